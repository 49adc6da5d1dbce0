"""Judging a candidate by the weights it inherits from the supernet.

A sub-network is exported, its batch-norm statistics are re-estimated, and its top-1 on the
validation images is its worth (Guo et al., ECCV 2020). A race (racing.py) asks for a few images at
a time; what was judged is remembered, so that no image goes twice through one candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from nasaug.supernet import Architecture, Network, macs_at
from nasaug.training import Batch, reestimate_batch_norm

REMEMBERED = 64
Select = Callable[[Tensor], Iterable[Batch]]


@dataclass(frozen=True)
class Answers:
    """What a network says to n images, on the CPU. `right` (n,) bool: whether its first choice is
    the label; `margins` (n,): the label's logit less the largest of the others."""

    right: Tensor
    margins: Tensor

    def of(self, chosen: Tensor) -> Answers:
        return Answers(self.right[chosen], self.margins[chosen])


@dataclass
class Spent:
    """Images that went through candidates: to re-estimate batch norm, and to be judged; and the
    MACs of both."""

    calibration: int = 0
    validation: int = 0
    macs: int = 0

    @property
    def total(self) -> int:
        return self.calibration + self.validation


@dataclass
class _Known:
    """The answers so far; `seen` (N,) bool: for which images."""

    answers: Answers
    seen: Tensor = field(repr=False)


class InheritedAccuracy:
    """Validation top-1 of a sub-network, its batch-norm statistics re-estimated first.

    `calibration` and `validation` are the same batches for every candidate. `select(indices)`
    gives batches of the validation images at `indices` (n,), in that order; only a race needs it.
    `spent` counts the images. The last `REMEMBERED` candidates' answers are kept: the supernet's
    weights must stay as they are.
    """

    def __init__(
        self,
        supernet: Network,
        calibration: Iterable[Batch],
        validation: Iterable[Batch],
        select: Select | None = None,
    ) -> None:
        self.spent = Spent()
        self._supernet, self._calibration = supernet, calibration
        self._validation, self._select = validation, select
        self._known: OrderedDict[Architecture, _Known] = OrderedDict()
        self._exported: tuple[Architecture, Network] | None = None

    def __call__(self, arch: Architecture) -> float:
        """The share of all validation images that `arch` gets right.

        Raises: ValueError if `arch` is not inside the supernet, or there is no validation image.
        """
        right = self.answers(arch).right
        return int(right.sum()) / len(right)

    def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers:
        """To the validation images at the indices `chosen` (n,), in that order; to all when None.

        Raises: as `__call__`; ValueError for a part of the images when there is no `select`.
        """
        known = self._known.pop(arch, None)
        if known is None and chosen is None:
            whole = self._judge(arch, self._validation)
            known = _Known(whole, torch.ones_like(whole.right))
        known = known or self._nothing()
        wanted = torch.arange(len(known.seen)) if chosen is None else chosen
        missing = wanted[~known.seen[wanted]].unique()
        if len(missing):
            self._add(known, missing, self._judge(arch, self._selected(missing)))
        self._known[arch] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known.answers.of(wanted)

    @cached_property
    def _images(self) -> int:
        return sum(len(labels) for _, labels in self._validation)

    @cached_property
    def _size(self) -> int:
        """The side at which images are shown."""
        return next(iter(self._calibration))[0].shape[-1]

    def _nothing(self) -> _Known:
        right = torch.zeros(self._images, dtype=torch.bool)
        return _Known(Answers(right, torch.zeros(self._images)), right.clone())

    def _add(self, known: _Known, indices: Tensor, answers: Answers) -> None:
        known.answers.right[indices] = answers.right
        known.answers.margins[indices] = answers.margins
        known.seen[indices] = True

    def _selected(self, indices: Tensor) -> Iterable[Batch]:
        if self._select is None:
            raise ValueError(
                "a part of the validation images was asked for: give InheritedAccuracy `select`, "
                "which takes indices and returns batches of the images there"
            )
        return self._select(indices)

    def _judge(self, arch: Architecture, batches: Iterable[Batch]) -> Answers:
        """As `nasaug.training.evaluate` counts top-1, image by image."""
        network = self._network(arch)
        right, margins = [], []
        with torch.inference_mode():
            for images, labels in batches:
                logits = network(images).float()
                first = logits.topk(min(5, logits.shape[1]), dim=1).indices[:, 0]
                labels = labels[:, None]
                others = logits.scatter(1, labels, -torch.inf).amax(1)
                right.append((first == labels[:, 0]).cpu())
                margins.append((logits.gather(1, labels)[:, 0] - others).cpu())
                self.spent.validation += len(images)
                self.spent.macs += len(images) * macs_at(arch, images.shape[-1])
        if not right:
            raise ValueError("there is not one image to evaluate on")
        return Answers(torch.cat(right), torch.cat(margins))

    def _network(self, arch: Architecture) -> Network:
        """The exported candidate in eval mode; the last one is kept."""
        if self._exported is None or self._exported[0] != arch:
            network = self._supernet.export(arch)
            images = reestimate_batch_norm(network, self._calibration)
            self.spent.calibration += images
            self.spent.macs += images * macs_at(arch, self._size)
            self._exported = arch, network.eval()
        return self._exported[1]
