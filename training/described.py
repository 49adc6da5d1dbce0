"""What a weights file says of the images that its network was trained on, so that others can show
it theirs in the same way."""

from __future__ import annotations

from typing import Any

from nasaug.training.datasets import Dataset, ImageArray
from nasaug.training.folders import CENTRE
from nasaug.training.loaders import LUMA
from nasaug.training.views import View


def describe(data: Dataset, view: View) -> dict[str, Any]:
    """Facts for `save_weights`: data (the name), classes (their names in the logits' order),
    resolution (pixels), crop (the share of an image's shorter side that is shown: files are cropped
    in their middle, arrays are shown whole), mean and std (see `normalisation`)."""
    mean, std = normalisation(data, view.in_channels)
    return {
        "data": data.name,
        "classes": list(data.classes),
        "resolution": view.resolution,
        "crop": 1.0 if isinstance(data.test, ImageArray) else CENTRE,
        "mean": list(mean),
        "std": list(std),
    }


def normalisation(data: Dataset, in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation that images of `data` are normalised by, one number each for every
    channel that the network reads, of pixels from 0 to 1."""
    if len(data.mean) > in_channels:
        return _grey(data.mean), _grey(data.std)
    times = in_channels // len(data.mean)
    return data.mean * times, data.std * times


def _grey(values: tuple[float, ...]) -> tuple[float, ...]:
    return (sum(value * weight for value, weight in zip(values, LUMA, strict=True)),)
