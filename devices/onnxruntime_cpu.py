"""ONNX Runtime on the CPU: rows and networks as small ONNX graphs, batch norm folded.

A row is a session of its own. What an empty session costs is taken off its repeats, since inside a
network only the first row pays it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nasaug.devices.entries import RowKey
from nasaug.devices.samples import timed_burst
from nasaug.supernet import Architecture, SearchSpace

REMEDY = "backend onnxruntime needs two more packages: pip install 'nasaug[onnx]'"


@contextmanager
def open_onnxruntime(threads: int) -> Iterator[OnnxRuntimeBackend]:
    """Raises: ValueError if onnx or onnxruntime is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"{REMEDY} ({error})") from None
    yield OnnxRuntimeBackend(onnxruntime, threads)


class OnnxRuntimeBackend:
    def __init__(self, runtime: Any, threads: int) -> None:
        self._runtime = runtime
        self._options = runtime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        self.versions = f"onnxruntime {runtime.__version__}"

    def empty(self) -> list[int]:
        """A session that hands one number through."""
        from nasaug.devices.onnx_graph import empty_model

        return timed_burst(self._runner(empty_model(), 1, 1))

    def sweep(
        self, space: SearchSpace, wanted: Collection[RowKey], rng: random.Random
    ) -> Iterator[dict[RowKey, list[int]]]:
        from nasaug.devices.onnx_graph import chain_model

        for key in rng.sample(sorted(wanted, key=str), len(wanted)):
            model = chain_model([key.row], key.in_channels, key.size)
            yield {key: timed_burst(self._runner(model, key.in_channels, key.size))}

    def network(self, arch: Architecture) -> list[int]:
        from nasaug.devices.onnx_graph import chain_model

        model = chain_model(arch.canonical().rows, arch.in_channels, arch.resolution)
        return timed_burst(self._runner(model, arch.in_channels, arch.resolution))

    def _runner(self, model: bytes, channels: int, size: int) -> Callable[[], object]:
        """One run of `model` on a random input, which stays bound between runs."""
        session = self._runtime.InferenceSession(
            model, self._options, providers=["CPUExecutionProvider"]
        )
        image = np.random.default_rng(0).standard_normal((1, channels, size, size))
        binding = session.io_binding()
        binding.bind_cpu_input("image", image.astype(np.float32))
        binding.bind_output("result")
        return lambda: session.run_with_iobinding(binding)
