"""What a detector's training is: which detector, trained by which step, from which weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nasaug.detect_config import DetectConfig, HelpersSection
from nasaug.detection import (
    DetectionStep,
    Detector,
    Helpers,
    detection_step,
    holds_detector,
    load_detector,
    take_detector,
)
from nasaug.given_weights import given_weights
from nasaug.netaug import Augmentation
from nasaug.pipelines.detect_setting import DetectSetting
from nasaug.pipelines.starting import started_from
from nasaug.search import format_macs
from nasaug.supernet import Architecture
from nasaug.supernet.network import Init
from nasaug.workspace import read_best


@dataclass(frozen=True)
class DetectPlan:
    """`detector` is trained by `step`, `target` inside of it is shipped; `inside` says it all."""

    detector: Detector
    target: Architecture
    step: DetectionStep
    inside: str


def make_detect_plan(config: DetectConfig, setting: DetectSetting) -> DetectPlan:
    """Raises: ValueError for what cannot be trained as asked, before anything is."""
    generator = torch.Generator().manual_seed(config.seed)
    classes, options = setting.data.classes, config.detector
    target = setting.target.with_classes(len(classes))
    section = config.helpers
    augmentation = None if section is None else _augmentation(section, target)
    largest = target if augmentation is None else augmentation.largest
    scheme: Init = "fan_out" if augmentation is None else "kaiming_uniform"
    detector = Detector(largest, classes, options, scheme, generator)
    target = detector.arch if augmentation is None else augmentation.target
    cost = detector.macs(target)
    said = (
        f"a detector on {target.name} ({format_macs(cost.total)} MACs, {format_macs(cost.backbone)}"
        " of them the backbone's)"
    )
    if augmentation is not None:
        said += f" inside those of up to {format_macs(detector.macs().total)}"
    if config.init is not None:
        said += f", {_begun_with(config.init, detector, target, setting.target)}"
    helpers = None
    if augmentation is not None and section is not None:
        wide, narrow = augmentation.helpers, augmentation.narrow
        helpers = Helpers(wide, narrow, section.alpha, section.width_until)
    step = detection_step(target, helpers)
    return DetectPlan(detector.to(setting.view.device), target, step, said)


def _augmentation(section: HelpersSection, target: Architecture) -> Augmentation:
    """Raises: ValueError for factors that widen nothing, and for a search's result that is none or
    does not contain the target."""
    factors = section.factors(target.name)
    if section.largest is None:
        found = Augmentation.by_factors(
            target, factors, section.divisor, section.kernel_growth, section.extra_depth
        )
    else:
        path = Path(section.largest)
        path = path / "best.json" if path.is_dir() else path
        largest = Architecture.from_dict(read_best(path)["architecture"])
        largest = replace(largest.with_classes(target.num_classes), resolution=target.resolution)
        found = Augmentation.inside(target, largest, factors, section.divisor)
    if found.largest == target:
        raise ValueError(
            f"there is nothing to train {target.name} in: the largest network is the target itself;"
            " raise a factor (netaug.width, netaug.expand), or use --method baseline"
        )
    return found


def _begun_with(place: str, detector: Detector, target: Architecture, shown: Architecture) -> str:
    """Give the target inside of `detector` the weights of a detector, as far as they fit, or of a
    network for any classes; what is around it stays fresh. Returns in words what it began with.

    `shown` is the target as a network for classes.

    Raises: ValueError for weights that are not there, damaged, or of another target.
    """
    try:
        path = given_weights(place)
    except ValueError as error:
        raise ValueError(f"--init {place}: {error}") from None
    if holds_detector(path):
        new = take_detector(detector, target, load_detector(path, shown))
        if not new:
            return f"from the whole detector of {place}"
        return f"from the detector of {place}, with fresh weights for {', '.join(new)}"
    names = [str(number) for number in range(shown.num_classes)]
    start = started_from(str(path), shown, names, torch.Generator())
    detector.backbone.take(start.net, target)
    return f"from the weights of {place}, with fresh weights for all behind the backbone"
