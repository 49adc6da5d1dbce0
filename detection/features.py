"""Which rows of a network give feature maps: for each stride the deepest row before the pooling.

SSD (Liu et al., ECCV 2016, section 2.1) predicts from maps of several strides. SSDLite on
MobileNetV2 (Sandler et al., CVPR 2018, section 6.2) reads stride 16 inside of the row that halves
the map next, after its expansion. Here it is plain outputs of rows: they are there in every kind of
row, a bottleneck's and a pooling's as well; their channels keep their places when inner channels
are sorted (`sort_channels`), which an expansion's do not; and they are what the helpers of NetAug
widen by the first factor, as all features between rows. At the last stride the deepest row is the
1x1 convolution in front of the pooling, the same as SSDLite's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile
from operator import mul

from nasaug.supernet import Architecture, GlobalAvgPool


def strides_of(arch: Architecture) -> list[int]:
    """The total stride after each row in front of the global pooling."""
    rows = takewhile(lambda row: not isinstance(row, GlobalAvgPool), arch.rows)
    return list(accumulate((row.downsampling for row in rows), mul))


def chosen_strides(arch: Architecture, strides: Sequence[int] | None = None) -> tuple[int, ...]:
    """`strides`, or the last two that `arch` has.

    Raises: ValueError for strides that `arch` has no row of, or that do not grow.
    """
    there = sorted(set(strides_of(arch)))
    if strides is None:
        return tuple(there[-2:])
    unknown = next((stride for stride in strides if stride not in there), None)
    if unknown is not None:
        raise ValueError(
            f"{arch.name} has no feature map of stride {unknown}; its strides are "
            f"{', '.join(map(str, there))}"
        )
    if list(strides) != sorted(set(strides)):
        raise ValueError(f"strides must grow, from the finest feature map on, but got {[*strides]}")
    return tuple(strides)


def feature_rows(arch: Architecture, strides: Sequence[int] | None = None) -> tuple[int, ...]:
    """The indices of the rows whose outputs are the feature maps, in ascending order.

    Raises: as `chosen_strides`.
    """
    after = strides_of(arch)
    last = len(after) - 1
    return tuple(last - after[::-1].index(stride) for stride in chosen_strides(arch, strides))


def feature_widths(arch: Architecture, rows: Sequence[int]) -> tuple[int, ...]:
    """The channels of what leaves each of `rows`."""
    return tuple(arch.widths_in[row + 1] for row in rows)


def feature_sides(arch: Architecture, rows: Sequence[int]) -> tuple[int, ...]:
    """The sides of the (square) maps that leave `rows`, at `arch.resolution`."""
    return tuple(arch.sizes_in[row + 1] for row in rows)
