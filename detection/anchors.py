"""Anchors: boxes of several sizes and shapes at every position of every feature map.

SSD's (Liu et al., ECCV 2016, section 2.2), as torchvision makes them.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from nasaug.detection.options import DetectorOptions


@lru_cache(maxsize=64)
def anchors_of(sides: tuple[int, ...], options: DetectorOptions) -> Tensor:
    """float32 (A, 4): (x0, y0, x1, y1) in pixels of a picture of `options.size`, the first map's
    first, row by row; some reach over its edges."""
    generator = DefaultBoxGenerator(
        [list(options.aspect_ratios) for _ in sides], options.smallest, options.largest
    )
    picture = torch.zeros(()).expand(1, 1, options.size, options.size)
    maps = [torch.zeros(()).expand(1, 1, side, side) for side in sides]
    anchors: Tensor = generator(ImageList(picture, [(options.size, options.size)]), maps)[0]
    return anchors
