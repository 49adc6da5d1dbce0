"""Which images of each class: a share that is held out, few of each, or a long tail of them.

The long tail is the usual one for judging methods on imbalanced data (Cui et al., "Class-Balanced
Loss Based on Effective Number of Samples", CVPR 2019): class c of C keeps n_c ratio^(-c / (C - 1))
of its n_c images, so that of equally large classes the first keeps `ratio` times as many as the
last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

SPLIT_SEED = 0


class Labelled(Protocol):
    """Images with labels, int64 (N,): in memory or in files."""

    @property
    def labels(self) -> Tensor: ...
    def subset(self, indices: Tensor) -> Self: ...


Part = TypeVar("Part", bound=Labelled)


def imbalanced(part: Part, ratio: float) -> Part:
    """`part` with a long tail over its classes, at least one image of each; always the same images.

    A larger ratio keeps a part of what a smaller one keeps; 1 keeps all.

    Raises: ValueError for a ratio below 1 or not finite.
    """
    if not 1 <= ratio < math.inf:
        raise ValueError(
            "imbalance is how many times the images of the last class the first one keeps, and "
            f"must be a finite number of at least 1, but got {ratio}"
        )
    if ratio == 1:
        return part
    classes = list(_shuffled_by_class(part.labels))
    kept = [
        members[: max(1, round(len(members) * ratio ** (-index / max(1, len(classes) - 1))))]
        for index, members in enumerate(classes)
    ]
    return part.subset(torch.cat(kept).sort().values)


def at_most(part: Part, per_class: int) -> Part:
    """`part` with at most `per_class` images of each class; always the same images.

    A larger number keeps all that a smaller one keeps.

    Raises: ValueError for less than one.
    """
    if per_class < 1:
        raise ValueError(
            f"per_class is how many training images of each class are kept, but got {per_class}; "
            "it must be at least 1"
        )
    kept = [members[:per_class] for members in _shuffled_by_class(part.labels)]
    return part.subset(torch.cat(kept).sort().values)


def stratified_split(labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(kept, held out) indices: of every class `share`, at least one image of those with two."""
    kept, held = [], []
    for members in _shuffled_by_class(labels):
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held.append(members[:count])
        kept.append(members[count:])
    if not any(map(len, held)):
        raise ValueError("every class has one image only: none is left to validate on")
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def _shuffled_by_class(labels: Tensor) -> Iterator[Tensor]:
    """The indices of each class that occurs, in an order that is the same every time."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    counts = labels.bincount()
    for members in labels.argsort(stable=True).split(counts[counts > 0].tolist()):
        yield members[torch.randperm(len(members), generator=generator)]
