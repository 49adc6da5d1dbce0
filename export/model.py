"""What every format is written from and run as."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nasaug.export.folding import Folded
from nasaug.export.source import Description, run_source, source_of, state_of

# images (N, channels, R, R) float32 -> logits (N, classes) float32
Runner = Callable[[Tensor], Tensor]
Method = Literal["minmax", "entropy", "percentile"]


@dataclass(frozen=True, eq=False)
class Model:
    """One network in the two forms that files are made of: folded tensors, and `net`, the generated
    module `text` with these tensors in it."""

    folded: Folded
    described: Description
    text: str
    tensors: Mapping[str, Tensor]
    net: nn.Module

    @classmethod
    def of(cls, folded: Folded, described: Description) -> Model:
        """Raises: ValueError as `source_of`."""
        text, tensors = source_of(folded, described), state_of(folded)
        return cls(folded, described, text, tensors, run_source(text, described, tensors))

    def example(self, batch: int) -> Tensor:
        """An input of the right shape."""
        arch = self.folded.arch
        return torch.zeros(batch, arch.in_channels, arch.resolution, arch.resolution)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Real images, in batches (N, channels, R, R), and how the ranges of activations follow:
    `minmax` takes the extremes, `entropy` and `percentile` cut outliers off. A format that cannot
    choose has a way of its own (see `Format.ranges`)."""

    batches: Sequence[Tensor]
    method: Method = "minmax"


def one_by_one(run: Runner) -> Runner:
    """Of a runner for single images one for batches."""
    return lambda images: torch.cat([run(image[None].contiguous()) for image in images])


@contextmanager
def hushed() -> Iterator[None]:
    """What converters print, from Python and from C++, goes nowhere: stdout is for results."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere:
        try:
            for number in kept:
                os.dup2(nowhere.fileno(), number)
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
