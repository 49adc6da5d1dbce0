"""PyTorch on the CPU: the exported network as `nasaug evaluate` runs it (channels last, batch norm
not folded).

Rows are timed inside networks that hold them: by itself a row finds its input and its weights in
the cache, and the sums over rows came out a quarter too low.

Run it in a process that keeps freed memory (`nasaug.training.keep_caches`), as the commands do:
otherwise the times of large activations depend on how the heap happens to lie.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nasaug.devices.entries import RowKey
from nasaug.devices.samples import timed_burst
from nasaug.devices.space_rows import networks_covering
from nasaug.supernet import Architecture, Network, SearchSpace


@contextmanager
def open_torch(threads: int) -> Iterator[TorchBackend]:
    """With so many threads, for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield TorchBackend()
    finally:
        torch.set_num_threads(before)


class TorchBackend:
    versions = f"torch {torch.__version__}"

    def empty(self) -> list[int]:
        """Rows are timed from inside: nothing is to be taken off."""
        return [0]

    def sweep(
        self, space: SearchSpace, wanted: Collection[RowKey], rng: random.Random
    ) -> Iterator[dict[RowKey, list[int]]]:
        networks = list(networks_covering(space, wanted, rng))
        rng.shuffle(networks)
        for arch in networks:
            yield _time_rows(arch)

    def network(self, arch: Architecture) -> list[int]:
        net, image = _prepared(arch)
        with torch.inference_mode():
            return timed_burst(lambda: net(image))


def _time_rows(arch: Architecture) -> dict[RowKey, list[int]]:
    """Bursts of the rows of one network. A row that it holds twice gets the repeats of both."""
    net, image = _prepared(arch)
    ends: list[int] = []
    for block in net.blocks:
        block.register_forward_hook(lambda *_: ends.append(time.perf_counter_ns()))
    runs: list[list[int]] = []

    def run() -> None:
        ends.clear()
        start = time.perf_counter_ns()
        net(image)
        runs.append([end - begin for begin, end in zip([start, *ends], ends, strict=False)])

    with torch.inference_mode():
        warm = len(timed_burst(run))
    keys = [RowKey(*key) for key in zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True)]
    bursts: dict[RowKey, list[int]] = {}
    for key, repeats in zip(keys, zip(*runs[-warm:], strict=True), strict=True):
        bursts.setdefault(key, []).extend(repeats)
    return bursts


def _prepared(arch: Architecture) -> tuple[Network, Tensor]:
    """The network of `arch` with random weights, and an image for it."""
    generator = torch.Generator().manual_seed(0)
    net = Network(arch.canonical(), "fan_out", generator).eval()
    image = torch.randn(
        1, arch.in_channels, arch.resolution, arch.resolution, generator=generator
    ).contiguous(memory_format=torch.channels_last)
    return net.to(memory_format=torch.channels_last), image
