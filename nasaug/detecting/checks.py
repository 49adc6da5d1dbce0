"""What is wrong with a detection study, said before any of its cells runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasaug.detect_config import DetectConfig
from nasaug.detecting.plan import ANY, Planner
from nasaug.detecting.scenes import make_scenes, scene_style
from nasaug.detection import detector_macs
from nasaug.pipelines.detect_plan import make_detect_plan
from nasaug.pipelines.detect_setting import prepare_detection
from nasaug.pipelines.plan import make_plan
from nasaug.setting import Setting, prepare
from nasaug.supernet import load_target
from nasaug.train_config import TrainConfig
from nasaug.training import load_dataset

# No run lies there: the folder beside which a larger network would be looked for.
NOWHERE = Path("nowhere")


def check_study(planner: Planner) -> None:
    """Make the scenes, and try how every kind of run begins.

    Raises: ValueError, OSError for the first that could not be run: an unknown target, data that
        are not there, a size that the target cannot be read at, no larger network.
    """
    study = planner.study
    if study.scenes is not None:
        scene_style(study.scenes)
        # Before scenes are made, which takes a while.
        classes = len(load_dataset(study.scenes.items, study.data_dir).classes)
        for method in study.methods:
            for size in study.sizes:
                _check_size(_detecting(planner, method, size), classes)
    _check_pretraining(planner)
    if study.scenes is not None and planner.runs.scenes is not None:
        make_scenes(study.scenes, planner.runs.scenes, study.data_dir)
    _check_detectors(planner)


def _detecting(planner: Planner, method: str, size: int) -> DetectConfig:
    config = planner.runs.detecting(method, size, *ANY, None).config
    assert isinstance(config, DetectConfig)
    return config


def _check_size(config: DetectConfig, classes: int) -> None:
    """Raises: ValueError for a size at which the detector would have no map to look at."""
    options = config.detector
    try:
        target = load_target(config.target, classes, options.size, config.in_channels)
        detector_macs(target, classes, options)
    except ValueError as error:
        where = f"sizes: {config.target} cannot be read at {options.size}"
        raise ValueError(f"{where}: {error}") from None


def _check_pretraining(planner: Planner) -> None:
    known: Setting | None = None
    for method in filter(planner.runs.pretrains, planner.study.methods):
        config = planner.runs.pretraining(method, *ANY).config
        assert isinstance(config, TrainConfig)
        try:
            same = known is not None and known.config.data == config.data
            known = prepare(config, known.data if known is not None and same else None)
            make_plan(config, known, planner.store.root / NOWHERE)
        except ValueError as error:
            raise ValueError(f"methods.{method}.pretrain: {error}") from None


def _check_detectors(planner: Planner) -> None:
    """The pictures are looked at once."""
    study = planner.study
    setting = prepare_detection(_detecting(planner, study.baseline, study.sizes[0]))
    classes = len(setting.data.classes)
    for method in study.methods:
        for size in study.sizes:
            config = _detecting(planner, method, size)
            _check_size(config, classes)
            target = load_target(config.target, max(2, classes), size, config.in_channels)
            try:
                make_detect_plan(config, replace(setting, config=config, target=target))
            except ValueError as error:
                raise ValueError(f"methods.{method}.detect: {error}") from None
