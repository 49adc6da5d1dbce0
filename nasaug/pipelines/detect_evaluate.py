"""Judging a trained detector on the test part of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasaug.console import emit_json, show_log_messages
from nasaug.detection import (
    DetectionView,
    Detector,
    load_detection_set,
    load_detector,
    read_detector_facts,
)
from nasaug.pipelines.detect_setting import check_objects, judged
from nasaug.pipelines.detect_train import costs, emit_detections, score_facts
from nasaug.setting import choose_device
from nasaug.supernet import load_target
from nasaug.training import keep_caches


def run_detect_evaluation(
    weights: str,
    target: str | None,
    data: str,
    style: str | None,
    skip_bad: bool,
    device: str,
    as_json: bool,
) -> None:
    """Raises: ValueError for weights that are damaged or of another target, and for data that are
    faulty or of other classes."""
    show_log_messages()
    keep_caches()
    place = choose_device(device)
    detector, facts, path = trained_detector(weights, target)
    pictures = load_detection_set(data, classes=detector.classes, skip_bad=skip_bad)
    check_objects(pictures.test, "test", data)
    view = shown_as_trained(detector, facts, path, device)
    how = style or data.partition(":")[0]
    scores = judged(detector.to(place), pictures.test, view, how)
    result: dict[str, Any] = {
        "target": facts.get("target", detector.arch.name),
        "data": data,
        **score_facts(scores),
        **costs(detector),
        "resolution": detector.options.size,
        "skipped": list(pictures.skipped),
        "weights": str(path),
        "run_dir": str(path.parent),
    }
    if as_json:
        emit_json(result)
        return
    size = detector.options.size
    emit_detections(f"{path} at {size} x {size}", result, result["scores"]["test"])


def trained_detector(place: str, target: str | None) -> tuple[Detector, dict[str, Any], Path]:
    """The detector of a run's folder or weights file, the facts saved with it, and the file.

    Raises: ValueError for a file that is missing, no detector, damaged, or not on `target`.
    """
    path = Path(place)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; name the folder of a finished nasaug detect train, or a "
            "weights file"
        )
    wanted = None
    if target is not None:
        channels = load_detector(path).arch.in_channels
        wanted = load_target(target, in_channels=channels)
    return load_detector(path, wanted), read_detector_facts(path), path


def shown_as_trained(
    detector: Detector, facts: dict[str, Any], path: Path, device: str
) -> DetectionView:
    """Raises: ValueError for facts that lack how pictures were shown."""
    mean, std = (facts.get(name) for name in ("mean", "std"))
    try:
        view = DetectionView(
            detector.options.size,
            tuple(float(value) for value in mean or ()),
            tuple(float(value) for value in std or ()),
            device=choose_device(device),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: of how pictures are shown, {error}") from None
    return view
