"""Pictures of two items each: a harder data set made of one whose pictures show one item.

Small networks learn ten kinds of clothes within minutes, and then nothing is left to show whether
a training method helps. Here two items overlap in one picture of the same size, and the class is
which two of the kinds they are: what a picture costs to compute stays, what must be told apart
grows. Overlaid digits are the usual test of this kind (Sabour et al., "Dynamic Routing Between
Capsules", NeurIPS 2017, section 6: MultiMNIST); here the two are always of different kinds, and a
pair is one class rather than two labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

PAIR_SEED = 0
# How far each item is moved from the middle, in shares of the picture's side.
NEAREST, FARTHEST = 0.18, 0.25


def pair_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of all pairs of different classes, in the order of their labels."""
    return tuple(f"{first} + {second}" for first, second in combinations(classes, 2))


def in_pairs(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """uint8 (N, C, H, W) and int64 (N,) below `classes` -> the same of N pictures of two items.

    Picture i shows item i and its partner (see `partners`) at full size, moved in opposite
    directions by 18 to 25 % of the side (5 to 7 of 28 pixels), drawn for each picture; where they
    overlap, the brighter pixel is seen. Its label is the place of the two classes, in either
    order, among `pair_classes`. The same pictures every time.

    Raises: ValueError as `partners` does.
    """
    generator = torch.Generator().manual_seed(PAIR_SEED)
    partner = partners(labels, classes, generator)
    offsets = _offsets(len(labels), images.shape[-1], generator)
    pictures = torch.maximum(_moved(images, offsets), _moved(images[partner], -offsets))
    label_of = torch.full((classes, classes), -1)
    for label, (first, second) in enumerate(combinations(range(classes), 2)):
        label_of[first, second] = label_of[second, first] = label
    return pictures, label_of[labels, labels[partner]]


def partners(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A permutation (N,) of the items that gives each one of another class.

    So every item is in two pictures, once as itself and once as a partner. Items of a class are
    dealt to the other classes in turn: each pair of classes has N / (classes (classes - 1) / 2)
    pictures, rounded down or up. Which items of the two classes meet is random.

    Raises: ValueError unless all classes have equally many items.
    """
    counts = labels.bincount(minlength=classes)
    if counts.min() < counts.max():
        raise ValueError(
            "pictures of two items need equally many items of every class, but there are "
            f"{int(counts.min())} to {int(counts.max())}; use a complete, balanced data set"
        )
    each = len(labels) // classes
    by_class = labels.argsort(stable=True).view(classes, each)
    first, second = (
        by_class.gather(1, torch.rand(classes, each, generator=generator).argsort(1))
        for _ in range(2)
    )
    # In column j every class c meets class c + 1 + (j mod (classes - 1)): a rotation, never 0.
    column = torch.arange(each)
    other = (torch.arange(classes)[:, None] + 1 + column % (classes - 1)) % classes
    partner = torch.empty_like(labels)
    partner[first] = second[other, column]
    return partner


def _offsets(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(N, 2) whole pixels down and right: any direction, a distance between the two shares."""
    turn, far = torch.rand(2, count, generator=generator)
    angle, distance = 2 * math.pi * turn, size * (NEAREST + (FARTHEST - NEAREST) * far)
    return torch.stack([distance * angle.sin(), distance * angle.cos()], 1).round().long()


def _moved(images: Tensor, offsets: Tensor) -> Tensor:
    """Each image moved by its own (down, right); zeros come in, what leaves is cut off."""
    count, channels, height, width = images.shape
    reach = int(offsets.abs().max())
    padded = F.pad(images, (reach, reach, reach, reach))
    rows = torch.arange(height) + reach - offsets[:, :1]
    columns = torch.arange(width) + reach - offsets[:, 1:]
    picture, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)
    return padded[
        picture, channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
