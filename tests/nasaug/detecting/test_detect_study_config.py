"""What a detection study refuses, each in so many words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.comparing.store import Store
from nasaug.comparing.studies import built_in_detections, built_in_studies, study_path
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.checks import check_study
from nasaug.detecting.plan import Planner
from nasaug.detecting.run import load_detect_study

Make = Callable[..., DetectStudy]
Nasaug = Callable[..., Any]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sizes": [64]}, "read between input sizes, so that sizes must be two or more"),
        ({"sizes": [64, 64]}, "two or more different sides in pixels, but got [64, 64]"),
        ({"scenes": None}, "give scenes (they are made) or data (coco:PATH or voc:PATH)"),
        ({"data": "coco:x"}, "--set scenes=null leaves the scenes out"),
        ({"baseline": "alone"}, "baseline 'alone' is none of the methods"),
        ({"methods": {}}, "methods must hold at least one name"),
        ({"seeds": 0}, "seeds must be a count from 1"),
        ({"scenes": {"size": "big"}}, "a number of pixels such as 128, or 96..256, is needed"),
        (
            {"base": {"pretrain": {"target": "micro_10k"}}},
            "base.pretrain.target is decided by target",
        ),
        (
            {"base": {"pretrain": {"in_channels": 1}}},
            "base.pretrain.in_channels is decided by in_ch",
        ),
        (
            {"base": {"pretrain": {"data": {"dir": "x"}}}},
            "base.pretrain.data.dir is decided by data_dir",
        ),
        (
            {"base": {"detect": {"train": {"lr": 1}}}},
            "base.detect.train.lr is decided by tune.grid",
        ),
        ({"base": {"detect": {"detector": {"size": 64}}}}, "detector.size is decided by sizes"),
        (
            {"base": {"detect": {"init": "x"}}},
            "base.detect.init is decided by the method's pretrain",
        ),
        (
            {"methods": {"baseline": {"pretrain": {"train": {"epochs": 2}}}}},
            "methods.baseline.pretrain.train.epochs is decided by base.pretrain",
        ),
        (
            {"methods": {"baseline": {"detect": {"style": "voc"}}}},
            "methods.baseline.detect.style is decided by base.detect",
        ),
    ],
)
def test_keys_that_cannot_be(keys: dict[str, Any], said: str, detect_study: Make) -> None:
    with pytest.raises(ValueError) as error:
        detect_study(**keys)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"methods": {"baseline": {"pretrain": {"metod": "netaug"}}}},
            "methods.baseline.pretrain: unknown key 'metod'",
        ),
        (
            {"methods": {"baseline": {"detect": {"method": "kd"}}}},
            "methods.baseline.detect: method must be",
        ),
        (
            {"methods": {"baseline": {"pretrain": {"method": "netaug"}}}},
            "methods.baseline.pretrain: largest: auto is whatever was searched last",
        ),
        (
            {"methods": {"baseline": {"pretrain": {"method": "pruning"}}}},
            "pruning makes a smaller network of micro_3k, which no detector on the target",
        ),
        ({"sizes": [16, 64]}, "methods.baseline.detect: detector.size must be greater than"),
    ],
)
def test_runs_that_cannot_be(
    keys: dict[str, Any], said: str, detect_study: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as error:
        Planner(detect_study(**keys), Store(tmp_path, "code"))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"target": "micro_4k"}, "unknown target 'micro_4k'"),
        (
            {"sizes": [32, 64], "base": {"detect": {"detector": {"extra": [32, 16, 16, 16]}}}},
            "sizes: micro_3k cannot be read at 32: extra must have at most",
        ),
        ({"scenes": {"items": "fashion"}}, "unknown data set 'fashion'"),
        ({"scenes": {"size": 16}}, "sizes must be a smallest and a largest value between 32"),
        (
            {"base": {"pretrain": {"data": {"name": "fashion-mnist-mini", "per_class": 1}}}},
            "methods.baseline.pretrain: ",
        ),
        ({"scenes": None, "data": "coco:nowhere"}, "nowhere"),
        (
            {
                "methods": {
                    "baseline": {
                        "pretrain": None,
                        "detect": {"method": "netaug", "netaug": {"width": [1.0], "expand": [1.0]}},
                    }
                }
            },
            "methods.baseline.detect: there is nothing to train micro_3k in",
        ),
    ],
)
def test_what_is_tried_before_anything_runs(
    keys: dict[str, Any], said: str, detect_study: Make, tmp_path: Path
) -> None:
    planner = Planner(detect_study(**keys), Store(tmp_path, "code"))
    with pytest.raises(ValueError) as error:
        check_study(planner)
    assert said in str(error.value)
    assert not list(tmp_path.rglob("*.log"))


def test_the_command_says_it_in_a_line(
    nasaug: Nasaug, detect_file: Callable[..., str], files_below: Callable[[], dict[str, bytes]]
) -> None:
    name = detect_file(sizes=[64])
    before = files_below()
    done = nasaug("detect", "compare", name)
    assert done.code == 2 and "sizes must be two or more different sides" in done.said
    missing = nasaug("detect", "compare", "detection_scene")
    assert missing.code == 2 and "did you mean 'detection_scenes'" in missing.said
    name = detect_file()
    before = files_below()
    for ask in ("--status", "--report", "--publish=page"):
        done = nasaug("detect", "compare", name, ask)
        assert done.code == 2 and "holds no cells of this study yet" in done.said
    done = nasaug("detect", "compare", name, "--status", "--report")
    assert done.code == 2 and "ask one" in done.said
    assert files_below() == before


def test_built_in_detection_studies_are_legal(tmp_path: Path) -> None:
    known = built_in_detections()
    assert "detection_scenes" in known and not set(known) & set(built_in_studies())
    for name, path in known.items():
        first, second, *_ = path.read_text().splitlines()
        assert first.startswith("# ") and first.endswith("?")
        assert second.strip() == f"#   nasaug detect compare {name}"
        stem, study = load_detect_study(name, (), {})
        assert stem == name and first == f"# {study.question}"
        assert len(study.sizes) >= 2 and len(study.seeds) >= 3
        assert set(study.methods) >= {"baseline", "netaug"}
        Planner(study, Store(tmp_path, "code"))
    with pytest.raises(ValueError, match="unknown study 'detection_scenes'"):
        study_path("detection_scenes")
