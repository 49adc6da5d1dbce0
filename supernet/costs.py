"""What a network costs: MACs, parameters, peak activation memory.

MACs are the multiply-accumulates of convolutions and linear layers, batch 1, at the architecture's
own resolution, as the papers quote them. The closed form here is proven equal to fvcore by the
tests and is what inner loops use; `count_with_fvcore` is the counter of record for what a search or
a training run hands over.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.leaves import BoostedLeaf
from nasaug.supernet.rows import NESTED, GlobalAvgPool, Row, Skip


@dataclass(frozen=True)
class RowCost:
    """Costs of one row, batch 1; `memory` is its peak of int8 activations in bytes."""

    macs: int
    params: int
    memory: int


@lru_cache(maxsize=65536)
def row_cost(row: Row, in_channels: int, size: int) -> RowCost:
    """Costs of `row` reading (in_channels, size, size).

    Memory: while a leaf runs, its input and its output are alive, and so is the row's own input if
    it is added later (a shortcut convolution and then the sum run last). One byte a value, nothing
    in place.
    """
    macs = params = memory = 0
    alive, side = in_channels * size**2, size
    held = alive if row.residual else 0
    for index, leaf in enumerate(row.leaves(in_channels)):
        macs += leaf.macs(side)
        params += leaf.params
        before, side = side, leaf.out_size(side)
        output = leaf.out_channels * side**2
        peak = alive + output
        if isinstance(leaf, BoostedLeaf):
            peak = leaf.peak(before, keep=bool(held) and index == 0)
        memory = max(memory, peak + (held if index else 0))
        alive = output
    shortcut = row.shortcut(in_channels)
    if shortcut is not None:
        macs += shortcut.macs(size)
        params += shortcut.params
        result = shortcut.out_channels * side**2
        memory, held = max(memory, held + alive + result), result
    if row.residual:
        memory = max(memory, held + 2 * alive)
    return RowCost(macs, params, memory)


def row_costs(arch: Architecture) -> list[RowCost]:
    """One entry a row of `arch`."""
    return [
        row_cost(row, width, size)
        for row, width, size in zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True)
    ]


def macs(arch: Architecture) -> int:
    """MACs of convolutions and linear layers, batch 1, at `arch.resolution`."""
    return sum(cost.macs for cost in row_costs(arch))


@lru_cache(maxsize=4096)
def macs_at(arch: Architecture, size: int) -> int:
    """MACs, batch 1, of `arch` shown images of size x size, such as those of a training run."""
    return sum(row_cost(row, width, side).macs for row, width, side in _shown(arch, size))


def shared_macs(one: Architecture, other: Architecture, size: int) -> int:
    """Those of the MACs of `one`, batch 1, shown size x size, that are on weights which `other` has
    too. Both are aligned to the rows of one space (`SearchSpace.embed`), whose weights nest: the
    first channels, the middle of a kernel.
    """
    rows = zip(_shown(one, size), other.rows, other.widths_in, strict=True)
    return sum(
        row_cost(_intersection(row, theirs), min(width, their_width), side).macs
        for (row, width, side), theirs, their_width in rows
    )


def _intersection(one: Row, other: Row) -> Row:
    """What two choices for one row have in common."""
    if type(one) is not type(other):
        return Skip()
    pairs = {key: (value, getattr(other, key)) for key, value in vars(one).items() if key in NESTED}
    return replace(one, **{key: min(pair) for key, pair in pairs.items() if None not in pair})


def _shown(arch: Architecture, size: int) -> Iterator[tuple[Row, int, int]]:
    """Every row with the channels and the side that it reads, when shown size x size."""
    for row, width in zip(arch.rows, arch.widths_in, strict=True):
        yield row, width, size
        size = 1 if isinstance(row, GlobalAvgPool) else (size - 1) // row.downsampling + 1


def params(arch: Architecture) -> int:
    """Trainable parameters (running statistics of batch norm are none)."""
    return sum(cost.params for cost in row_costs(arch))


def peak_memory(arch: Architecture) -> int:
    """Peak activation memory of int8 inference in bytes, row by row, nothing in place."""
    return max(cost.memory for cost in row_costs(arch))


def count_with_fvcore(arch: Architecture) -> dict[str, int]:
    """fvcore's counts by operator for the network of `arch`, batch 1: {"conv": ..., "linear": ...}.

    `macs(arch)` is the sum of "conv" and "linear"; fvcore's own total adds norms and pools.
    """
    import torch

    from nasaug.supernet.network import Network

    with warnings.catch_warnings():
        # fvcore imports torch.jit, which torch deprecates.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        net = Network(arch.canonical(), init=None).eval()
        image = torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution)
        analysis = FlopCountAnalysis(net, image)
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        return {name: int(count) for name, count in analysis.by_operator().items()}
