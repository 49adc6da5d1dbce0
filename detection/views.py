"""How pictures are shown to a detector, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectionView:
    """How pictures are shown to a detector that reads `size` x `size` pixels.

    Every picture is squeezed into the square, its sides not kept in proportion, as SSD does.
    `mean` and `std` are of the channels in 0..1: three, or one for a network that reads grey.

    In training only (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, sections 2.2 and
    3.6 and its code; torchvision's transforms of these names): `zoom_out` puts half of the pictures
    on a ground of the mean colour, up to so many times wider and higher (1: off; SSD: 4);
    `iou_crop` cuts out a part that overlaps an object; `flip` mirrors half of the pictures;
    `photometric` distorts colours.
    `difficult` are VOC's difficult objects, learnt as any other, as SSD does; crowds never are.
    Objects that come out smaller than `smallest` pixels, either way, are left out.

    `workers` is the number of decoding processes (None: one a core). `in_memory` decodes every
    picture once and keeps it, for sets that fit: 3 bytes a pixel.

    Raises: ValueError for a value outside its range.
    """

    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip: bool = True
    zoom_out: float = 4.0
    iou_crop: bool = True
    photometric: bool = True
    difficult: bool = True
    smallest: float = 1.0
    device: torch.device = CPU
    workers: int | None = None
    in_memory: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, but got {self.size}")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise ValueError(
                "mean and std must have one number each, or three, deviations above 0, but got "
                f"{self.mean} and {self.std}"
            )
        if not 1 <= self.zoom_out < math.inf:
            raise ValueError(
                "zoom_out is how many times wider a picture's ground may become, and must be a "
                f"finite number of at least 1, but got {self.zoom_out}; 1 switches it off"
            )
        if not 1 <= self.smallest < math.inf:
            raise ValueError(f"smallest must be at least 1 pixel, but got {self.smallest}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be at least 0, but got {self.workers}")

    @property
    def in_channels(self) -> int:
        return len(self.mean)
