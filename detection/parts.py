"""What a reader of detection data hands over, before a validation part is held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from nasaug.detection.annotated import AnnotatedImage, AnnotatedImages

# Box, label, area, whether it is difficult, whether it is a crowd.
Object = tuple[tuple[float, float, float, float], int, float, bool, bool]


class Parts(NamedTuple):
    """`validation` is None where the data has no part of its own for it; a part is None if nothing
    is left of it when faults are skipped."""

    train: AnnotatedImages | None
    validation: AnnotatedImages | None
    test: AnnotatedImages | None
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]


def annotated(
    path: str, size: tuple[int, int], objects: Sequence[Object], image_id: int
) -> AnnotatedImage:
    """A picture of `size` (width, height) with its objects as tensors."""
    boxes, labels, areas, difficult, crowd = zip(*objects, strict=True) if objects else ((),) * 5
    return AnnotatedImage(
        path=path,
        width=size[0],
        height=size[1],
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        areas=torch.tensor(areas, dtype=torch.float32),
        difficult=torch.tensor(difficult, dtype=torch.bool),
        crowd=torch.tensor(crowd, dtype=torch.bool),
        image_id=image_id,
    )
