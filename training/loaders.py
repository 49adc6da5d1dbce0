"""Batches for training and evaluation.

Small sets live in memory as uint8 and are augmented a batch at a time, on the device; large ones
are decoded by worker processes. Either way a batch is a function of (seed, epoch, index): an
interrupted run sees the same batches when it resumes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.training.datasets import Dataset, ImageArray, Part
from nasaug.training.decoding import Decoding
from nasaug.training.distributed import ALONE, Workers
from nasaug.training.evaluate import Batch
from nasaug.training.folders import ImageFiles, ImagePaths, UnreadableImage, together
from nasaug.training.orders import InOrder, Order, Shuffled
from nasaug.training.policies import Mixing, by_itself, image_policy
from nasaug.training.views import View

LUMA = (0.299, 0.587, 0.114)
# Images of a batch that is only looked at. A GPU spends its time on launches where they are small.
EVALUATED, EVALUATED_SMALL = 128, 1024
SMALL = 64


class ArrayBatches:
    """Batches from images in memory: images (N, C, R, R) float32 channels last, labels (N,) int64,
    or (N, classes) float32 where images are mixed."""

    def __init__(self, part: ImageArray, data: Dataset, view: View, order: Order) -> None:
        self.order = order
        self._images = part.images.to(view.device)
        self._labels = part.labels.to(view.device)
        self._data, self._view = data, view
        self._policy = image_policy(view) if order.augments else None
        self._mixing = Mixing(view, len(data.classes), order.augments)
        self._luma = torch.tensor(LUMA, device=view.device)[:, None, None]
        self._mean, self._std = self._normalisation()

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on."""
        for index, chosen in enumerate(self.order.indices(epoch, self._mixing.leading)):
            if index < start:
                continue
            chosen = chosen.to(self._view.device)
            images = self._images[chosen]
            if self.order.augments:
                images = self._augmented(images, epoch, index)
            seed = self.order.draw_seed("mix", epoch, index)
            yield self._mixing(self._shown(images), self._labels[chosen], seed)

    def _augmented(self, images: Tensor, epoch: int, index: int) -> Tensor:
        """Each image shifted and mirrored on its own, by one gather; then through the policy.

        What is drawn is drawn for the whole global batch, of which these images are a share.
        """
        assert isinstance(self.order, Shuffled)
        size = images.shape[-1]
        places = self.order.places(self._mixing.leading)
        reach = round(self._view.crop * size)
        offsets, mirrored = self._drawn(epoch, index, reach)
        offsets, mirrored = offsets[:, places], mirrored[places]
        if reach == 0 and not self._view.flip:
            moved = images
        elif reach == 0:
            moved = torch.where(mirrored[..., None, None].to(images.device), images.flip(3), images)
        else:
            moved = self._moved(images, reach, offsets, mirrored)
        if self._policy is None:
            return moved
        seeds = (self.order.draw_seed("policy", epoch, index, place) for place in places.tolist())
        return by_itself(self._policy, moved, seeds)

    @staticmethod
    def _moved(images: Tensor, reach: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
        """Each image moved down and right by `offsets` - `reach` into a frame of zeros."""
        count, _, _, size = images.shape
        rows = torch.arange(size) + offsets[0]
        columns = torch.arange(size) + offsets[1]
        columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(images.device), columns.to(images.device)
        padded = F.pad(images, (reach, reach, reach, reach))
        batch = torch.arange(count, device=images.device)
        return padded.permute(0, 2, 3, 1)[
            batch[:, None, None], rows[:, :, None], columns[:, None, :]
        ].permute(0, 3, 1, 2)

    @property
    def mirrors(self) -> bool:
        """Whether some images are shown mirrored."""
        return self.order.augments and self._view.flip

    def mirrored(self, epoch: int, index: int) -> Tensor:
        """Which images of a batch are shown mirrored, bool (N,); they are those of the order."""
        assert isinstance(self.order, Shuffled)
        reach = round(self._view.crop * self._images.shape[-1])
        return self._drawn(epoch, index, reach)[1][self.order.places(), 0]

    def _drawn(self, epoch: int, index: int, reach: int) -> tuple[Tensor, Tensor]:
        """Of every image of the global batch (M): how far it is moved down and right, int64
        (2, M, 1) from 0 to 2 `reach`, and whether it is mirrored, bool (M, 1)."""
        assert isinstance(self.order, Shuffled)
        total = self.order.global_size
        generator = torch.Generator().manual_seed(self.order.draw_seed(epoch, index))
        offsets = torch.randint(0, 2 * reach + 1, (2, total, 1), generator=generator)
        mirrored = torch.rand((total, 1), generator=generator) < 0.5
        return offsets, mirrored & self._view.flip

    def _shown(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) as the network reads them: scaled, resized, normalised."""
        x = images.float().div_(255.0)
        if self._grey:
            x = (x * self._luma).sum(1, keepdim=True)
        size = self._view.resolution
        if x.shape[-1] != size:
            shrinks = size < x.shape[-1]
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=shrinks)
        x = (x - self._mean) / self._std
        x = x.expand(-1, self._view.in_channels, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)

    @property
    def _grey(self) -> bool:
        """Whether coloured images are shown to a network of one channel."""
        return self._images.shape[1] == 3 and self._view.in_channels == 1

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as the network reads images, (channels, 1, 1)."""
        device = self._view.device
        mean, std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (self._data.mean, self._data.std)
        )
        if self._grey:
            mean, std = ((values * self._luma).sum(0, keepdim=True) for values in (mean, std))
        return mean, std


class FileBatches:
    """The same from image files, decoded by worker processes; those of training stay.

    Raises: ValueError, while iterating, naming a file that is missing or damaged.
    """

    def __init__(self, part: ImagePaths, data: Dataset, view: View, order: Order) -> None:
        self.order = order
        self._view = view
        self._mixing = Mixing(view, len(data.classes), order.augments)
        files = ImageFiles(part, data.mean, data.std, view, order.augments)
        self._decoding = Decoding(
            files, order, together, view.workers, view.device, self._mixing.leading
        )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on."""
        for index, batch in enumerate(self._decoding.epoch(epoch, start), start):
            if isinstance(batch, UnreadableImage):
                raise ValueError(f"image {batch.path} cannot be read: {batch.reason}")
            images, labels = batch
            device = self._view.device
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            labels = labels.to(device, non_blocking=True)
            yield self._mixing(images, labels, self.order.draw_seed("mix", epoch, index))


Batches = ArrayBatches | FileBatches


def training_batches(
    data: Dataset, view: View, batch_size: int, seed: int, group: Workers = ALONE
) -> Batches:
    """Shuffled and augmented batches of the training part; each worker of `group` has its share.

    An epoch leaves out the last, incomplete batch.

    Raises: ValueError if there is no whole batch.
    """
    return _batches(data, data.train, view, Shuffled(len(data.train), batch_size, seed, group))


def evaluation_batches(
    data: Dataset, part: Part, view: View, batch_size: int | None = None
) -> Batches:
    """All images of a part in order, not augmented."""
    if batch_size is None:
        many = view.device.type == "cuda" and view.resolution <= SMALL
        batch_size = EVALUATED_SMALL if many else EVALUATED
    return _batches(data, part, view, InOrder(len(part), batch_size))


def calibration_batches(
    data: Dataset, view: View, images: int, batch_size: int = EVALUATED
) -> Batches:
    """A fixed random subset of the training part, not augmented: for batch-norm statistics.

    The last batch is left out if it is smaller than the others (unless it is the only one).
    """
    batch_size = min(batch_size, images, len(data.train))
    return evaluation_batches(data, _subset(data, images, batch_size), view, batch_size)


def training_sample(data: Dataset, view: View, images: int) -> Batches:
    """About as many training images, the same every time, not augmented: to be judged on."""
    return evaluation_batches(data, _subset(data, images, EVALUATED), view)


def _subset(data: Dataset, images: int, batch_size: int) -> Part:
    """A fixed random subset of the training part, of whole batches."""
    count = min(images, len(data.train))
    batch_size = min(batch_size, count)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(data.train), generator=generator)[: count - count % batch_size]
    return data.train.subset(chosen)


def _batches(data: Dataset, part: Part, view: View, order: Order) -> Batches:
    if isinstance(part, ImageArray):
        return ArrayBatches(part, data, view, order)
    return FileBatches(part, data, view, order)
