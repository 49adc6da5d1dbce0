"""Detecting on all pictures of a part: what a detector finds, in the pictures' own pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from nasaug.detection.annotated import AnnotatedImages
from nasaug.detection.detector import Detector
from nasaug.detection.loaders import DetectionBatch
from nasaug.detection.metrics import Detections
from nasaug.detection.transforms import to_picture


def detect(
    detector: Detector, batches: Iterable[DetectionBatch], part: AnnotatedImages
) -> list[Detections]:
    """One for every picture of `part`, in its order and on the CPU; boxes in pixels of the picture
    itself. `batches` are those of `evaluation_batches(part, ...)`.

    Raises: UnreadablePicture (a ValueError) naming the file.
    """
    found = dict(_detected(detector, batches, part))
    return [found[index] for index in range(len(part))]


def _detected(
    detector: Detector, batches: Iterable[DetectionBatch], part: AnnotatedImages
) -> Iterator[tuple[int, Detections]]:
    was_training = detector.training
    detector.eval()
    try:
        for images, targets in batches:
            with torch.inference_mode():
                detections = detector.detections(detector(images))
            for index, own in zip(targets.indices.tolist(), detections, strict=True):
                yield index, in_picture(own, detector.options.size, *part.sizes[index].tolist())
    finally:
        detector.train(was_training)


def in_picture(found: Detections, size: int, width: int, height: int) -> Detections:
    """Detections in the square of `size` pixels as those in the picture of `width` x `height` that
    it was made of, on the CPU."""
    boxes = to_picture(found.boxes.cpu(), size, width, height)
    return Detections(boxes, found.scores.cpu(), found.labels.cpu())
