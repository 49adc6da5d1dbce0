"""Batches of pictures with boxes, by the contract of `nasaug.training.loaders`.

`len` is the number of batches in an epoch and `epoch(epoch, start)` gives them from batch `start`
on; each is a function of (seed, epoch, index), so that an interrupted run sees the same when it
resumes. A batch is a pair whose first is the images, so that the training loop and the
re-estimation of batch norm, which look at no more than that, take it as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nasaug.detection.annotated import AnnotatedImages, DetectionSet
from nasaug.detection.picture import read_picture
from nasaug.detection.transforms import SquareTransform, normalised
from nasaug.detection.views import DetectionView
from nasaug.training import ALONE, UnreadablePicture, Workers
from nasaug.training.decoding import Decoding
from nasaug.training.orders import InOrder, Order, Shuffled


class Targets(NamedTuple):
    """What is on each of N images: boxes float32 (n, 4) in pixels of the image as it is shown,
    labels int64 (n,); and which pictures of the part they are, int64 (N,), on the CPU."""

    boxes: list[Tensor]
    labels: list[Tensor]
    indices: Tensor


# Images float32 (N, C, size, size), channels last, and their targets.
DetectionBatch = tuple[Tensor, Targets]


class DetectionBatches:
    """Batches of a part, decoded by worker processes, or once where the view keeps them in memory.

    Raises: UnreadablePicture (a ValueError), while iterating, naming a file that is missing or
        damaged; with pictures in memory at once.
    """

    def __init__(self, part: AnnotatedImages, view: DetectionView, order: Order) -> None:
        self.order = order
        self._view = view
        pictures = ShownPictures(part, view, order.augments)
        self._decoding = Decoding(pictures, order, together, view.workers, view.device)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[DetectionBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[DetectionBatch]:
        """The batches of one epoch, from batch `start` on."""
        device = self._view.device
        for batch in self._decoding.epoch(epoch, start):
            if isinstance(batch, UnreadablePicture):
                raise batch
            images, boxes, labels, counts, indices = batch
            images = normalised(images.to(device, non_blocking=True), self._view)
            targets = Targets(
                list(boxes.to(device, non_blocking=True).split(counts.tolist())),
                list(labels.to(device, non_blocking=True).split(counts.tolist())),
                indices,
            )
            yield images, targets


def training_batches(
    data: DetectionSet, view: DetectionView, batch_size: int, seed: int, group: Workers = ALONE
) -> DetectionBatches:
    """Shuffled and augmented batches of the training part; each worker of `group` has its share.

    An epoch leaves out the last, incomplete batch.

    Raises: ValueError if there is no whole batch.
    """
    return DetectionBatches(data.train, view, Shuffled(len(data.train), batch_size, seed, group))


def evaluation_batches(
    part: AnnotatedImages, view: DetectionView, batch_size: int = 32
) -> DetectionBatches:
    """All pictures of a part in order, not augmented, with all of their boxes."""
    return DetectionBatches(part, view, InOrder(len(part), batch_size))


def calibration_batches(
    data: DetectionSet, view: DetectionView, images: int, batch_size: int = 32
) -> DetectionBatches:
    """A fixed random subset of the training part, not augmented: for batch-norm statistics.

    The last batch is left out if it is smaller than the others (unless it is the only one).
    """
    count = min(images, len(data.train))
    batch_size = min(batch_size, count)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(data.train), generator=generator)[: count - count % batch_size]
    return evaluation_batches(data.train.subset(chosen), view, batch_size)


class ShownPictures(torch.utils.data.Dataset[Any]):
    """Pictures as they are shown, by (index, seed): the seed alone decides what is drawn."""

    def __init__(self, part: AnnotatedImages, view: DetectionView, augments: bool) -> None:
        self._part = part
        self._transform = SquareTransform(view, augments)
        self._learnt = ~part.crowd & (view.difficult | ~part.difficult)
        self._augments = augments
        self._kept = [self._decoded(i) for i in range(len(part))] if view.in_memory else None

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, int] | Exception:
        index, seed = key
        try:
            picture = self._decoded(index) if self._kept is None else self._kept[index]
        except UnreadablePicture as error:
            return error
        objects = slice(*self._part.first[index : index + 2].tolist())
        boxes, labels = self._part.boxes[objects], self._part.labels[objects]
        if self._augments:
            learnt = self._learnt[objects]
            boxes, labels = boxes[learnt], labels[learnt]
        return *self._transform(picture, boxes, labels, seed), index

    def _decoded(self, index: int) -> Tensor:
        width, height = self._part.sizes[index].tolist()
        return read_picture(os.fsdecode(self._part.paths[index]), width, height)


def together(samples: list[Any]) -> tuple[Tensor, ...] | UnreadablePicture:
    """A batch in five tensors, as few go between processes best: images, boxes of all, labels of
    all, the number of objects of each, indices. Or the first picture that could not be decoded."""
    for sample in samples:
        if isinstance(sample, UnreadablePicture):
            return sample
    images, boxes, labels, indices = zip(*samples, strict=True)
    counts = torch.tensor([len(some) for some in labels])
    return torch.stack(images), torch.cat(boxes), torch.cat(labels), counts, torch.tensor(indices)
