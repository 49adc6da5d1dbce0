"""ExecuTorch for the CPU (XNNPACK): one image at a time, as devices run it, float32 or int8.

int8 is PT2E: observers on the exported graph see real images, then weights become symmetric with a
scale a channel and activations affine with a scale a tensor.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasaug.export.model import Calibration, Model, Runner, hushed, one_by_one


def write_executorch(model: Model, path: Path) -> None:
    """NAME.pte: (1, channels, R, R) -> (1, classes)."""
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter's own internals
        _lower(torch.export.export(model.net, (model.example(1),)), path)


def quantise_executorch(model: Model, path: Path, calibration: Calibration) -> None:
    """NAME.pte in int8; `path` is that of the int8 version, without an ending."""
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        config = get_symmetric_quantization_config(is_per_channel=True)
        example = (model.example(1),)
        graph = torch.export.export(model.net, example).module()
        graph = prepare_pt2e(graph, XNNPACKQuantizer().set_global(config))
        with torch.no_grad():
            for images in calibration.batches:
                for image in images:
                    graph(image[None])
        _lower(torch.export.export(convert_pt2e(graph), example), path)


def open_executorch(path: Path, threads: int) -> Runner:
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(threads)
        program = Runtime.get().load_program(path.with_suffix(".pte"))
        method = program.load_method("forward")

    def run(image: Tensor) -> Tensor:
        (logits,) = method.execute([image])
        return torch.as_tensor(logits).clone()  # its memory is the program's, used again next time

    return one_by_one(run)


def _lower(program: Any, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.with_suffix(".pte").write_bytes(edge.to_executorch().buffer)
