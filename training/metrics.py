"""Judging a network at length: what accuracy alone does not say, above all on imbalanced data.

A prediction counts for a class when the class is within the top k (libraries differ in what
precision@k means; this is ours):

- precision@k of class c: images of c with c in their top k / images with c in their top k,
- recall@k of class c: images of c with c in their top k / images of c,
- F1@k: 2 precision recall / (precision + recall), 0 / 0 being 0 in all three,
- macro: the mean over all classes, with and without images.

Expected calibration error (Guo et al., ICML 2017, Equation 3): the sum over 15 equally wide bins of
confidence, ((m - 1) / 15, m / 15], of |accuracy - mean confidence| times the bin's share of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasaug.supernet import Network
from nasaug.training.evaluate import Batch, Scores, show

BINS = 15
# Up to so many classes the confusion matrix is written whole, above it only what is not zero.
WHOLE_MATRIX = 100


@dataclass(frozen=True)
class AtK:
    """Precision, recall and F1 within the top k: macro averages, and of each class."""

    k: int
    precision: float
    recall: float
    f1: float
    precisions: tuple[float, ...]
    recalls: tuple[float, ...]
    f1s: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "per_class": {
                "precision": list(self.precisions),
                "recall": list(self.recalls),
                "f1": list(self.f1s),
            },
        }


@dataclass(frozen=True)
class Judgement:
    """What a network does on `images` images; fractions, and the mean cross entropy.

    `support` is the number of images of each class. `confusion` holds (true class, predicted class,
    images) of the pairs that occur, in order: the confusion matrix without its zeros.
    """

    images: int
    classes: int
    top1: float
    top5: float
    loss: float
    calibration_error: float
    at: tuple[AtK, ...]
    support: tuple[int, ...]
    confusion: tuple[tuple[int, int, int], ...]

    def within(self, k: int) -> AtK:
        """Precision, recall and F1 within the top `k`. Raises: ValueError for a k not judged."""
        for found in self.at:
            if found.k == k:
                return found
        judged = ", ".join(str(found.k) for found in self.at)
        raise ValueError(f"k must be one of those judged ({judged}), but got {k}")

    def matrix(self) -> list[list[int]]:
        """The confusion matrix whole: rows are true classes, columns predicted ones."""
        cells = [[0] * self.classes for _ in range(self.classes)]
        for true, predicted, images in self.confusion:
            cells[true][predicted] = images
        return cells

    def to_dict(self) -> dict[str, Any]:
        """For JSON. `confusion` is the matrix; above 100 classes `confusion_cells` stands instead,
        [true class, predicted class, images] of what is not zero."""
        whole = self.classes <= WHOLE_MATRIX
        cells = {"confusion_cells": [list(cell) for cell in self.confusion]}
        return {
            "images": self.images,
            "classes": self.classes,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "at": {str(found.k): found.to_dict() for found in self.at},
            "support": list(self.support),
            **({"confusion": self.matrix()} if whole else cells),
        }


def judge(
    net: Network, batches: Iterable[Batch], classes: int, ks: Sequence[int] = (1, 5)
) -> Judgement:
    """Judge `net` in eval mode by one pass over `batches`; k above `classes` is all of them.

    Raises: ValueError without an image, for a k below 1, and for a network of other classes.
    """
    if not ks or any(not isinstance(k, int) or k < 1 for k in ks):
        raise ValueError(f"ks must be integers of at least 1, such as (1, 5), but got {tuple(ks)}")
    if net.arch.num_classes != classes:
        raise ValueError(
            f"the network tells {net.arch.num_classes} classes apart, but is judged on {classes}"
        )
    counts = _Counts(classes, sorted(set(ks)))
    show(net, batches, counts.add)
    return counts.judgement()


class _Counts:
    """What is counted batch by batch, on the device of the logits."""

    def __init__(self, classes: int, ks: Sequence[int]) -> None:
        self.classes, self.ks = classes, ks
        self.scores = Scores()
        self.support = torch.zeros(classes, dtype=torch.int64)
        self.within = torch.zeros(len(ks), classes, dtype=torch.int64)
        self.hits = torch.zeros(len(ks), classes, dtype=torch.int64)
        # A row each: images, correct images and confidence of a bin.
        self.bins = torch.zeros(3, BINS, dtype=torch.float64)
        # true class x classes + predicted class, of every image.
        self.pairs: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (N, classes) float32, labels (N,) int64."""
        self._to(logits.device)
        ranked = self.scores.add(logits, labels, self.ks[-1])
        self.support.scatter_add_(0, labels, torch.ones_like(labels))
        for row, k in enumerate(self.ks):
            top = ranked[:, :k]
            hit = (top == labels[:, None]).any(1).long()
            self.within[row].scatter_add_(0, top.flatten(), torch.ones_like(top).flatten())
            self.hits[row].scatter_add_(0, labels, hit)
        self.pairs.append(labels * self.classes + ranked[:, 0])
        confidence = logits.double().softmax(1).amax(1)
        correct = (ranked[:, 0] == labels).double()
        bin_of = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        rows = torch.stack([torch.ones_like(confidence), correct, confidence])
        self.bins.scatter_add_(1, bin_of.expand(3, -1), rows)

    def _to(self, device: torch.device) -> None:
        if self.support.device != device:
            self.support, self.bins = self.support.to(device), self.bins.to(device)
            self.within, self.hits = self.within.to(device), self.hits.to(device)

    def judgement(self) -> Judgement:
        pairs, images = torch.cat(self.pairs).unique(return_counts=True)
        cells = zip(
            (pairs // self.classes).tolist(),
            (pairs % self.classes).tolist(),
            images.tolist(),
            strict=True,
        )
        _, correct, confidence = self.bins
        total = self.scores.images
        return Judgement(
            images=total,
            classes=self.classes,
            **self.scores.values(),
            calibration_error=float((correct - confidence).abs().sum()) / total,
            at=tuple(self._at(row, k) for row, k in enumerate(self.ks)),
            support=tuple(self.support.tolist()),
            confusion=tuple(cells),
        )

    def _at(self, row: int, k: int) -> AtK:
        hits = self.hits[row].double()
        precisions = _ratio(hits, self.within[row].double())
        recalls = _ratio(hits, self.support.double())
        f1s = _ratio(2 * precisions * recalls, precisions + recalls)
        each = (precisions, recalls, f1s)
        precision, recall, f1 = (float(values.mean()) for values in each)
        return AtK(k, precision, recall, f1, *(tuple(values.tolist()) for values in each))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotients, 0 / 0 being 0."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
