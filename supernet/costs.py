"""What a network costs: MACs, parameters, peak activation memory, flash.

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
from nasaug.supernet.memory import row_flash, row_memory
from nasaug.supernet.rows import NESTED, GlobalAvgPool, Row, Skip


@dataclass(frozen=True)
class RowCost:
    """Costs of one row, batch 1. `memory` is its peak of int8 activations in bytes, nothing in
    place, `memory_in_place` with what can be; `flash` the bytes of its int8 weights."""

    macs: int
    params: int
    memory: int
    memory_in_place: int
    flash: int


@lru_cache(maxsize=65536)
def row_cost(row: Row, in_channels: int, size: int) -> RowCost:
    """Costs of `row` reading (in_channels, size, size); see `memory.py` for the last three."""
    macs = params = 0
    side = size
    for leaf in row.leaves(in_channels):
        macs += leaf.macs(side)
        params += leaf.params
        side = leaf.out_size(side)
    shortcut = row.shortcut(in_channels)
    if shortcut is not None:
        macs += shortcut.macs(size)
        params += shortcut.params
    memory = row_memory(row, in_channels, size)
    return RowCost(macs, params, memory.plain, memory.in_place, row_flash(row, in_channels))


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


def peak_memory(arch: Architecture, in_place: bool = False, bytes_each: int = 1) -> int:
    """Peak activation memory of inference in bytes, batch 1: the largest of any row's.

    Nothing is in place unless `in_place`; `bytes_each` is 1 for int8 and 4 for float32.
    """
    rows = row_costs(arch)
    return bytes_each * max(row.memory_in_place if in_place else row.memory for row in rows)


def flash_size(arch: Architecture, bits: int = 8) -> int:
    """Bytes of the weights as shipped, norms folded into them. `bits` 8: int8, with an int32 bias
    and a float32 scale for every output channel; 32: float32. The graph, the program and its
    runtime are not counted.

    Raises: ValueError for other bits.
    """
    rows = zip(arch.rows, arch.widths_in, strict=True)
    return sum(row_flash(row, width, bits) for row, width in rows)


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
