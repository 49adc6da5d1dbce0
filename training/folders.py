"""Image files in a folder a class, too many for memory: paths and labels, decoded when asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasaug.training.pictures import UnreadablePicture, open_picture
from nasaug.training.policies import drawing, image_policy
from nasaug.training.views import View

BRIGHTNESS, SATURATION = 32 / 255, 0.5
CENTRE = 0.875


@dataclass(frozen=True)
class ImagePaths:
    """Paths of image files and their labels, int64 (N,)."""

    paths: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Tensor) -> ImagePaths:
        return ImagePaths(tuple(self.paths[i] for i in indices.tolist()), self.labels[indices])


@dataclass(frozen=True)
class UnreadableImage:
    """What a decoding process hands back in place of a batch with a damaged file in it."""

    path: str
    reason: str


class ImageFiles(torch.utils.data.Dataset[Any]):
    """Decoded images by (index, seed): the seed alone decides how the image is augmented."""

    def __init__(
        self,
        part: ImagePaths,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        view: View,
        augments: bool,
    ) -> None:
        from torchvision.transforms import v2

        size = view.resolution
        steps: list[Any] = [v2.Resize(round(size / CENTRE)), v2.CenterCrop(size)]
        if augments and view.crop > 0:
            steps = [
                v2.RandomResizedCrop(size),
                v2.ColorJitter(brightness=BRIGHTNESS, saturation=SATURATION),
            ]
        if augments and view.flip:
            steps.append(v2.RandomHorizontalFlip())
        policy = image_policy(view) if augments else None
        if policy is not None:
            steps.append(policy)
        steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        if view.in_channels == 1:
            steps.append(v2.Grayscale())
        self._transform = v2.Compose(steps)
        # One block of memory each: decoding processes share it, while counting references to
        # millions of strings would copy them into every one.
        self._paths = np.array([os.fsencode(path) for path in part.paths])
        self._labels = part.labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | UnreadableImage:
        index, seed = key
        try:
            picture = open_picture(os.fsdecode(self._paths[index]))
        except UnreadablePicture as error:
            return UnreadableImage(error.path, error.reason)
        with drawing(seed):
            return self._transform(picture), int(self._labels[index])


def together(
    samples: list[tuple[Tensor, int] | UnreadableImage],
) -> tuple[Tensor, Tensor] | UnreadableImage:
    """A batch of decoded images, or the first one that could not be decoded."""
    images, labels = [], []
    for sample in samples:
        if isinstance(sample, UnreadableImage):
            return sample
        images.append(sample[0])
        labels.append(sample[1])
    return torch.stack(images), torch.tensor(labels)


def read_image_folder(
    folder: Path, classes: tuple[str, ...] | None = None
) -> tuple[ImagePaths, tuple[str, ...]]:
    """All images below `folder/CLASS/`, classes in alphabetical order, as torchvision reads them.

    Raises: ValueError for a missing folder, one without images, or a class not in `classes`.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; images are read from {folder}/CLASS/*.jpg")
    found = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if not found:
        raise ValueError(f"{folder} has no folder of a class in it")
    classes = classes or found
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(f"{folder} has a class that the training part lacks: {unknown[0]}")
    label_of = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        images = image_files_below(folder / name)
        if not images:
            raise ValueError(f"{folder / name} has no images ({', '.join(IMG_EXTENSIONS)})")
        paths += images
        labels += [label_of[name]] * len(images)
    return ImagePaths(tuple(paths), torch.tensor(labels)), classes


def image_files_below(folder: Path) -> list[str]:
    """The paths of all image files in any depth, in order; texts, as ImageNet has a million."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in IMG_EXTENSIONS
    )
