"""Pictures with boxes, as values: one of them, many of them, and a data set in three parts.

Boxes are (x0, y0, x1, y1) in pixels of the picture. They are edges, not pixels: the first pixel of
a row reaches from 0 to 1, so that a box over all of a picture is (0, 0, width, height) and a box's
width is x1 - x0. Every reader converts to this.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A picture and its n objects.

    `width` and `height` are in pixels. `boxes` float32 (n, 4), `labels` int64 (n,) index the set's
    classes, `areas` float32 (n,) in pixels: of the objects themselves where the set says so (COCO),
    else of their boxes. `difficult` bool (n,) are those that VOC counts neither as found nor as
    missed, `crowd` bool (n,) those that stand for many (COCO). `image_id` is COCO's own, else a
    number counted from 1.
    """

    path: str
    width: int
    height: int
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    difficult: Tensor
    crowd: Tensor
    image_id: int


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Many pictures, each quantity in one block of memory, which decoding processes share.

    The objects of picture i are `first[i]` to `first[i + 1]` of the blocks.
    """

    paths: np.ndarray[tuple[int], np.dtype[np.bytes_]]
    image_ids: Tensor
    sizes: Tensor
    first: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    difficult: Tensor
    crowd: Tensor

    @classmethod
    def of(cls, images: Iterable[AnnotatedImage]) -> AnnotatedImages:
        """The same pictures in blocks. Raises: ValueError without a picture."""
        images = list(images)
        if not images:
            raise ValueError("a part of a data set needs at least one picture, but got none")
        counts = torch.tensor([0, *(len(image.labels) for image in images)])
        return cls(
            paths=np.array([os.fsencode(image.path) for image in images]),
            image_ids=torch.tensor([image.image_id for image in images]),
            sizes=torch.tensor([(image.width, image.height) for image in images]),
            first=counts.cumsum(0),
            boxes=torch.cat([image.boxes for image in images]),
            labels=torch.cat([image.labels for image in images]),
            areas=torch.cat([image.areas for image in images]),
            difficult=torch.cat([image.difficult for image in images]),
            crowd=torch.cat([image.crowd for image in images]),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> AnnotatedImage:
        """Raises: IndexError beyond the last, which also ends a loop over all."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        width, height = self.sizes[index].tolist()
        first, end = self.first[index : index + 2].tolist()
        return AnnotatedImage(
            path=os.fsdecode(self.paths[index]),
            width=width,
            height=height,
            boxes=self.boxes[first:end],
            labels=self.labels[first:end],
            areas=self.areas[first:end],
            difficult=self.difficult[first:end],
            crowd=self.crowd[first:end],
            image_id=int(self.image_ids[index]),
        )

    def subset(self, indices: Sequence[int] | Tensor) -> AnnotatedImages:
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        counts = self.first.diff()[chosen]
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        # The rows of their objects: where each picture's begin here, less where they will begin.
        moved = (self.first[chosen] - first[:-1]).repeat_interleave(counts)
        rows = moved + torch.arange(len(moved))
        return AnnotatedImages(
            paths=self.paths[chosen.numpy()],
            image_ids=self.image_ids[chosen],
            sizes=self.sizes[chosen],
            first=first,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            difficult=self.difficult[rows],
            crowd=self.crowd[rows],
        )


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """Three parts, kept apart: choices are made on `validation`, `test` is for one look at the end.

    `classes` are the names by label; `category_ids` are COCO's numbers by label (1, 2, ... where
    the set has none). `skipped` says, for each thing that was wrong and left out, what and where.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: AnnotatedImages
    validation: AnnotatedImages
    test: AnnotatedImages
    skipped: tuple[str, ...] = ()

    def digest(self) -> str:
        """Tells sets apart by their training part: names of files, boxes and labels; not by the
        folder that they lie in, nor by pixels."""
        part = self.train
        digest = hashlib.blake2b(digest_size=16)
        digest.update(b"\0".join(os.path.basename(path) for path in part.paths.tolist()))
        for block in (part.first, part.boxes, part.labels, part.difficult, part.crowd):
            digest.update(block.numpy().tobytes())
        return digest.hexdigest()
