"""What stands on a backbone's feature maps, as a table of leaves: extra layers and heads.

As in the backbone (`nasaug.supernet.leaves`) one description serves three readers: the detector
builds its modules from it, a pass reads from it how much of each weight to use, the costs are
computed from it. It is SSDLite's (Sandler et al., "MobileNetV2", CVPR 2018, section 6.2; the blocks
are those of torchvision's ssdlite): a head is a depthwise 3x3 and a 1x1 convolution, an extra layer
a 1x1 to half of its width, a depthwise 3x3 of stride 2 and a 1x1.

NetAug widens the features of the backbone, so that what reads them has to be elastic as well: a
helper's heads are wider than the target's and begin with its channels, just as the classifier's
weights do in the paper (Cai et al., ICLR 2022). Cutting a helper's maps to the target's channels
would leave all other channels of its last rows without a purpose or a gradient. Behind the first
extra convolution all widths are the target's own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from nasaug.detection.features import feature_rows, feature_sides, feature_widths
from nasaug.detection.options import EXTRA, DetectorOptions
from nasaug.supernet import Architecture, row_costs
from nasaug.supernet.leaves import ConvLeaf

Chain = tuple[ConvLeaf, ...]


class DetectorMacs(NamedTuple):
    """MACs, batch 1: of the backbone's rows that are run, the extra layers, and the heads."""

    backbone: int
    extra: int
    heads: int

    @property
    def total(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Layout:
    """`rows` of the backbone give the first feature maps, each of the chains `extra` one more;
    `scores` and `boxes` hold a chain a map, `sides` its side."""

    rows: tuple[int, ...]
    extra: tuple[Chain, ...]
    scores: tuple[Chain, ...]
    boxes: tuple[Chain, ...]
    sides: tuple[int, ...]

    @property
    def chains(self) -> tuple[Chain, ...]:
        return (*self.extra, *self.scores, *self.boxes)

    @property
    def params(self) -> int:
        """Trainable parameters of all but the backbone."""
        return sum(leaf.params for chain in self.chains for leaf in chain)


@lru_cache(maxsize=4096)
def layout_of(arch: Architecture, classes: int, options: DetectorOptions) -> Layout:
    """The layout on `arch` for `classes` kinds of objects, at `options.size`.

    Raises: ValueError for strides that `arch` has no row of, and for an extra layer that would
        read a map of one pixel.
    """
    arch = replace(arch.canonical(), resolution=options.size)
    rows = feature_rows(arch, options.strides)
    widths, sides = [*feature_widths(arch, rows)], [*feature_sides(arch, rows)]
    extra: list[Chain] = []
    for number, width in enumerate(EXTRA if options.extra is None else options.extra):
        if sides[-1] == 1:
            if options.extra is None:
                break
            raise ValueError(
                f"extra must have at most {number} widths for pictures of {options.size} x "
                f"{options.size}, where the map is 1 x 1 then, but got {[*options.extra]}"
            )
        extra.append(_extra_layer(widths[-1], width))
        widths.append(width)
        sides.append((sides[-1] - 1) // 2 + 1)
    places = options.anchors_a_place
    return Layout(
        rows,
        tuple(extra),
        tuple(_head(width, places * (classes + 1)) for width in widths),
        tuple(_head(width, places * 4) for width in widths),
        tuple(sides),
    )


@lru_cache(maxsize=4096)
def detector_macs(arch: Architecture, classes: int, options: DetectorOptions) -> DetectorMacs:
    """MACs of the detector on `arch`, of convolutions, batch 1, at `options.size`.

    Raises: as `layout_of`.
    """
    layout = layout_of(arch, classes, options)
    costs = row_costs(replace(arch.canonical(), resolution=options.size))
    backbone = sum(cost.macs for cost in costs[: layout.rows[-1] + 1])
    read = layout.sides[len(layout.rows) - 1 :]
    extra = sum(_macs(chain, side) for chain, side in zip(layout.extra, read, strict=False))
    maps = zip(layout.scores, layout.boxes, layout.sides, strict=True)
    heads = sum(_macs(scores, side) + _macs(boxes, side) for scores, boxes, side in maps)
    return DetectorMacs(backbone, extra, heads)


def count_detector_with_fvcore(detector: nn.Module, side: int, in_channels: int) -> int:
    """MACs of convolutions by fvcore, batch 1, for pictures of `side` x `side`: the counter of
    record, which the closed form equals."""
    with warnings.catch_warnings():
        # fvcore imports torch.jit, which torch deprecates.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        parameter = next(detector.parameters())
        picture = torch.zeros(1, in_channels, side, side).to(parameter.device, parameter.dtype)
        was_training = detector.training
        # Batch norm cannot train on one picture's map of 1 x 1.
        analysis = FlopCountAnalysis(detector.eval(), picture)
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        count = int(analysis.by_operator()["conv"])
        detector.train(was_training)
        return count


def _macs(chain: Chain, side: int) -> int:
    total = 0
    for leaf in chain:
        total += leaf.macs(side)
        side = leaf.out_size(side)
    return total


def _head(width: int, out: int) -> Chain:
    return (
        ConvLeaf("depthwise", width, width, 3, groups=width, act="relu6"),
        ConvLeaf("predict", width, out, norm=False, bias=True),
    )


def _extra_layer(width: int, out: int) -> Chain:
    inner = out // 2
    return (
        ConvLeaf("reduce", width, inner, act="relu6"),
        ConvLeaf("depthwise", inner, inner, 3, stride=2, groups=inner, act="relu6"),
        ConvLeaf("expand", inner, out, act="relu6"),
    )
