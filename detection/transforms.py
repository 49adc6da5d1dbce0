"""From a picture and its boxes to the square that a detector reads, and back.

It is torchvision's transforms v2 that move boxes along with pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasaug.detection.views import DetectionView
from nasaug.training.policies import drawing

Shown = tuple[Tensor, Tensor, Tensor]


class SquareTransform:
    """Pictures uint8 (3, H, W) with boxes and labels to uint8 (C, size, size), boxes moved along.

    With `augments` as the view says, decided by the seed alone; else the resize only.

    Colours are distorted after the resize, where that costs the same for every picture, and far
    less than on a photograph. SSD does it first, so that its ground of the mean colour stays as is.
    """

    def __init__(self, view: DetectionView, augments: bool) -> None:
        from torchvision.transforms import v2

        from nasaug.detection.crop import QuickIoUCrop

        steps: list[Any] = []
        if augments and view.zoom_out > 1:
            ground = [round(255 * mean) for mean in _colour(view.mean)]
            steps.append(v2.RandomZoomOut(ground, side_range=(1.0, view.zoom_out)))
        if augments and view.iou_crop:
            steps.append(QuickIoUCrop())
        if augments and view.flip:
            steps.append(v2.RandomHorizontalFlip())
        steps.append(v2.Resize((view.size, view.size), antialias=True))
        if augments:
            # Rounding may put an edge just outside, where a box would be taken for a wrong one.
            steps += [
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=view.smallest),
            ]
        if augments and view.photometric:
            steps.append(v2.RandomPhotometricDistort())
        if view.in_channels == 1:
            steps.append(v2.Grayscale())
        self._steps = v2.Compose(steps)

    def __call__(self, picture: Tensor, boxes: Tensor, labels: Tensor, seed: int = 0) -> Shown:
        """picture uint8 (3, H, W), boxes float32 (n, 4), labels int64 (n,) to the same of the
        square; with fewer boxes where some were cut off or became too small."""
        from torchvision import tv_tensors

        sample = {
            "image": tv_tensors.Image(picture),
            "boxes": tv_tensors.BoundingBoxes(
                boxes.clone(), format="XYXY", canvas_size=picture.shape[-2:]
            ),
            "labels": labels,
        }
        with drawing(seed):
            shown = self._steps(sample)
        return (
            shown["image"].as_subclass(Tensor),
            shown["boxes"].as_subclass(Tensor),
            shown["labels"],
        )


def _colour(mean: tuple[float, ...]) -> tuple[float, ...]:
    return mean * 3 if len(mean) == 1 else mean


def normalised(images: Tensor, view: DetectionView) -> Tensor:
    """uint8 (N, C, size, size) as the network reads them: float32, channels last."""
    x = images.float().div_(255.0)
    mean, std = (
        torch.tensor(values, device=x.device)[:, None, None] for values in (view.mean, view.std)
    )
    return x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def to_picture(boxes: Tensor, size: int, width: int, height: int) -> Tensor:
    """Boxes float32 (n, 4) in the square of `size` pixels as boxes in the picture it was made of,
    of `width` x `height` pixels, cut off at its edges."""
    ratio = boxes.new_tensor([width, height, width, height])
    return torch.minimum((boxes * (ratio / size)).clamp(min=0), ratio)
