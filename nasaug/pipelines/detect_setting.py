"""What training a detector does first: device, pictures, target, how the one sees the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nasaug.console import say
from nasaug.detect_config import DetectConfig
from nasaug.detection import (
    AnnotatedImages,
    DetectionBatches,
    DetectionScores,
    DetectionSet,
    DetectionView,
    Detector,
    calibration_batches,
    detect,
    evaluation_batches,
    judge_detections,
    load_detection_set,
    training_batches,
)
from nasaug.detection.views import IMAGENET_MEAN, IMAGENET_STD
from nasaug.setting import choose_device
from nasaug.supernet import Architecture, load_target
from nasaug.training import Workers, check_batch, join_workers, keep_caches
from nasaug.training.loaders import LUMA

# The keys of the data section that say how pictures are shown.
VIEWED = {
    *("flip", "zoom_out", "iou_crop", "photometric", "difficult", "smallest"),
    *("workers", "in_memory"),
}


@dataclass(frozen=True)
class DetectSetting:
    """`target` is at the detector's own input size."""

    config: DetectConfig
    target: Architecture
    data: DetectionSet
    view: DetectionView
    group: Workers
    training: DetectionBatches

    def calibration(self) -> DetectionBatches:
        images = self.config.train.bn_images
        return calibration_batches(self.data, self.view, images, self.config.train.batch_size)

    def judged(self, detector: Detector, part: AnnotatedImages) -> DetectionScores:
        return judged(detector, part, self.view, self.config.judged_by)


def prepare_detection(config: DetectConfig) -> DetectSetting:
    """Raises: ValueError for unknown targets and data, faulty pictures, a part without an object to
    find, and a device that is not there."""
    keep_caches()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    given = config.data
    data = load_detection_set(
        str(given.name), given.validation, given.classes, skip_bad=given.skip_bad
    )
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    for name, part in parts.items():
        check_objects(part, name, data.name)
    size = config.detector.size
    target = load_target(config.target, max(2, len(data.classes)), size, config.in_channels)
    mean, std = _statistics(config, target.in_channels)
    options = given.model_dump(include=VIEWED)
    view = DetectionView(size, mean, std, device=device, **options)
    if view.in_channels != target.in_channels:
        raise ValueError(
            f"data.mean and data.std must have {target.in_channels} numbers, one for each channel "
            f"that {target.name} reads, but have {view.in_channels}"
        )
    group = join_workers(device)
    check_batch(config.train, group.size)
    training = training_batches(data, view, config.train.batch_size, config.seed, group)
    if group.first:
        counts = f"{len(data.train):,} training, {len(data.validation):,} validation"
        say(
            f"{data.name}: {counts}, {len(data.test):,} test pictures of {len(data.classes)} "
            f"classes, shown at {size} x {size}"
        )
    return DetectSetting(config, target, data, view, group, training)


def judged(
    detector: Detector, part: AnnotatedImages, view: DetectionView, style: str
) -> DetectionScores:
    """The mAP of what `detector` finds on the pictures of `part`."""
    found = detect(detector, evaluation_batches(part, view), part)
    return judge_detections(found, part, detector.classes, style)


def check_objects(part: AnnotatedImages, name: str, data: str) -> None:
    """Raises: ValueError where there is nothing to find; better before a training than after."""
    if not (~part.difficult & ~part.crowd).any():
        raise ValueError(
            f"the {name} part of {data} has no object to find on its {len(part)} pictures; it "
            "needs at least one that is neither difficult nor a crowd"
        )


def _statistics(config: DetectConfig, channels: int) -> tuple[tuple[float, ...], ...]:
    """Mean and deviation of what is shown; of grey, those of ImageNet's luma."""
    if config.data.mean is not None and config.data.std is not None:
        return config.data.mean, config.data.std
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    pairs = (IMAGENET_MEAN, IMAGENET_STD)
    grey = (sum(w * v for w, v in zip(LUMA, values, strict=True)) for values in pairs)
    return tuple((round(value, 6),) for value in grey)
