"""What runs rows and networks, by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from nasaug.devices.entries import RowKey
from nasaug.devices.onnxruntime_cpu import open_onnxruntime
from nasaug.devices.torch_cpu import open_torch
from nasaug.supernet import Architecture, SearchSpace, did_you_mean


class Backend(Protocol):
    """Times rows and networks of random weights, batch 1, in nanoseconds."""

    @property
    def versions(self) -> str:
        """Of what the times depend on, such as `torch 2.9.0`."""

    def empty(self) -> list[int]:
        """A burst of runs with nothing to do: what every row's repeats hold beside the row."""

    def sweep(
        self, space: SearchSpace, wanted: Collection[RowKey], rng: random.Random
    ) -> Iterator[Mapping[RowKey, list[int]]]:
        """A burst of every wanted row, in an order drawn by `rng`, some at a time."""

    def network(self, arch: Architecture) -> list[int]:
        """A burst of a whole network."""


BACKENDS: dict[str, Callable[[int], AbstractContextManager[Backend]]] = {
    "torch": open_torch,
    "onnxruntime": open_onnxruntime,
}


def open_backend(name: str, threads: int = 1) -> AbstractContextManager[Backend]:
    """Raises: ValueError for an unknown name, or a package that is not installed."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: {did_you_mean(name, BACKENDS)}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, but got {threads}")
    return BACKENDS[name](threads)
