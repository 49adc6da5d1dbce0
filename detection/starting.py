"""Where a detector's weights start when they are not fresh: at those of another detector.

A detector goes on with another recipe or at another input size, or learns other classes from few
pictures: what the two have in common need not be learnt again. Heads say how an object lies beside
an anchor (Liu et al., "SSD", ECCV 2016, Equation 2), so that they fit only where the map that they
read and the anchors on it are the same.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from nasaug.detection.detector import Detector, ElasticChain
from nasaug.detection.layout import Chain, Layout
from nasaug.supernet import Architecture


def take_detector(detector: Detector, target: Architecture, theirs: Detector) -> list[str]:
    """Give `target` inside of `detector` the weights of `theirs`, a detector on it, where they fit.

    These are the backbone's rows that both have; the extra layers up to the first that differs; the
    heads of every feature map that is the same and has the same anchors, as shares of the picture,
    whose size may differ; of these the scores only for the same classes, in the same order.

    Returns in words what stays as it is; nothing where all was taken.
    """
    ours, others = detector.layout(target), theirs.layout()
    detector.backbone.take(theirs.backbone, target)
    known = _sources(others)
    layers = sum(source in known for source in _sources(ours)[len(ours.rows) :])
    heads = _alike_heads(detector, ours, theirs, others)
    classes = detector.classes == theirs.classes
    for index, leaves in enumerate(ours.extra[:layers]):
        _take(detector.extra[index], theirs.extra[index], leaves)
    for index in heads:
        _take(detector.boxes[index], theirs.boxes[index], ours.boxes[index])
        if classes:
            _take(detector.scores[index], theirs.scores[index], ours.scores[index])
    new = []
    if others.rows[-1] < ours.rows[-1]:
        new.append(f"the backbone from {target.canonical().row_names[others.rows[-1] + 1]} on")
    if layers < len(ours.extra):
        new.append(f"{len(ours.extra) - layers} of {len(ours.extra)} extra layers")
    if len(heads) < len(ours.sides):
        fresh = len(ours.sides) - len(heads)
        new.append(f"the heads of {fresh} of {len(ours.sides)} feature maps")
    if heads and not classes:
        count, before = len(detector.classes), len(theirs.classes)
        other = " others" if count == before else ""
        new.append(f"all scores ({count} classes in place of {before}{other})")
    return new


def _sources(layout: Layout) -> list[tuple[int, tuple[Chain, ...]]]:
    """What each feature map is made by: a row of the backbone, and the extra layers after it."""
    backbone: list[tuple[int, tuple[Chain, ...]]] = [(row, ()) for row in layout.rows]
    ends = range(1, len(layout.extra) + 1)
    return backbone + [(layout.rows[-1], layout.extra[:end]) for end in ends]


def _alike_heads(one: Detector, ours: Layout, other: Detector, others: Layout) -> list[int]:
    """The indices of the maps whose heads mean the same in both."""
    sources = zip(_sources(ours), _sources(others), strict=False)
    shapes = zip(_anchor_shapes(one, ours), _anchor_shapes(other, others), strict=False)
    return [
        index
        for index, ((made, known), (own, theirs)) in enumerate(zip(sources, shapes, strict=True))
        if made == known and own.shape == theirs.shape and torch.allclose(own, theirs, atol=1e-5)
    ]


def _anchor_shapes(detector: Detector, layout: Layout) -> list[Tensor]:
    """Of each map the widths and heights (k, 2) of the k anchors at a place, as shares of the
    picture's side."""
    places = detector.options.anchors_a_place
    firsts = accumulate((side**2 * places for side in layout.sides[:-1]), initial=0)
    anchors = [detector.anchors[first : first + places] for first in firsts]
    return [(boxes[:, 2:] - boxes[:, :2]) / detector.options.size for boxes in anchors]


def _take(mine: torch.nn.Module, theirs: torch.nn.Module, leaves: Chain) -> None:
    """Have `mine` compute for `leaves` what `theirs`, which is of them alone, does."""
    assert isinstance(mine, ElasticChain)
    tensors = theirs.state_dict()
    with torch.no_grad():
        for leaf in leaves:
            for name, tensor in getattr(mine, leaf.name).sliced(leaf).items():
                tensor.copy_(tensors[f"{leaf.name}.{name}"])
