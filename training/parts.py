"""What a data set is read into: images in memory or in files, a part each for training and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from nasaug.training.folders import ImagePaths


@dataclass(frozen=True)
class ImageArray:
    """Images in memory: uint8 (N, C, H, W), C = 1 or 3, and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> ImageArray:
        return ImageArray(self.images[indices], self.labels[indices])


Part = ImageArray | ImagePaths


class Parts(NamedTuple):
    """As a data set comes. Without a validation part, or a test part, of its own it has None: they
    are held out of the training part."""

    train: Part
    test: Part | None
    classes: tuple[str, ...]
    validation: Part | None = None


# From where to look, in order, and whether to download (into the last of them).
Builder = Callable[[list[Path], bool], Parts]
