"""Repeating passes on a GPU without launching their kernels one by one: CUDA graphs.

A tiny network's kernels take less time than Python needs to launch them, so that a GPU waits for
the program. What is the same in every step is therefore recorded once and played back as a whole
(Nguyen et al., "Accelerating PyTorch with CUDA Graphs", 2021). The kernels are those of the eager
step, in their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nasaug.training.monitor import TrainingFailed

# Steps that run as ever before one is recorded: libraries prepare themselves in the first ones.
STEPS_BEFORE = 3
Work = Callable[..., tuple[Tensor, ...]]


class Counting(Protocol):
    """Whose MACs a recording has to count again whenever it is played back."""

    macs: int


@dataclass(frozen=True)
class Recording:
    """`inputs` and `outputs` are the memory that `graph` reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    macs: int

    def played(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


class Replays:
    """The recordings of one training, on the GPU that is `device`."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._steps: Counter[Hashable] = Counter()  # of each key, before it was recorded
        self._recordings: dict[Hashable, Recording] = {}

    def __call__(
        self, key: Hashable, work: Work, inputs: tuple[Tensor, ...], counting: Counting
    ) -> tuple[Tensor, ...]:
        """`work(*inputs)`, which must launch the same kernels on the same weights and gradients
        whenever `key` and the inputs' shapes are the same. It returns tensors without a graph."""
        key = (key, *((each.shape, each.dtype) for each in inputs))
        recording = self._recordings.get(key)
        if recording is None:
            self._steps[key] += 1
            if self._steps[key] <= STEPS_BEFORE:
                return self._beside(work, inputs)
            recording = self._recordings[key] = self._recorded(work, inputs, counting)
        else:
            counting.macs += recording.macs
        return recording.played(inputs)

    def _beside(self, work: Work, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """On the stream that is recorded later: what a library prepares, it prepares for that."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            outputs = work(*inputs)
        here.wait_stream(self._stream)
        return outputs

    def _recorded(self, work: Work, inputs: tuple[Tensor, ...], counting: Counting) -> Recording:
        """Nothing is computed yet. Other threads, such as those that pin memory, may go on.

        Raises: TrainingFailed where memory does not suffice, or something cannot be recorded."""
        own = tuple(each.clone() for each in inputs)
        graph, before = torch.cuda.CUDAGraph(), counting.macs
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                outputs = work(*own)
        except RuntimeError as error:
            # Where work fails, ending the recording fails too, and says less.
            said = str(error.__context__ or error).strip().partition("\n")[0]
            raise TrainingFailed(
                f"the GPU could not record a step ({said}); set train.graphs=off to train without "
                "recordings"
            ) from error
        return Recording(graph, own, outputs, counting.macs - before)
