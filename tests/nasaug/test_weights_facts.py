"""What the weights of a search say of themselves."""

from __future__ import annotations

from pathlib import Path

from nasaug.config import SearchConfig, load_config
from nasaug.pipelines.found import export_found
from nasaug.setting import prepare
from nasaug.supernet import Network
from nasaug.training import RunFolder, load_weights, read_facts


def test_what_a_search_down_found_says_what_it_saw(clothes: Path, tmp_path: Path) -> None:
    options = {
        "target": "micro_3k",
        "data.name": "fashion-mnist",
        "data.dir": str(clothes),
        "train.resolution": 20,
        "device": "cpu",
    }
    setting = prepare(load_config(SearchConfig, None, (), options))
    run = RunFolder(tmp_path / "run")
    export_found(setting, Network(setting.target), setting.target, run)
    assert load_weights(run.weights).arch == setting.target
    assert read_facts(run.weights) == {
        "target": "micro_3k",
        "init": "inherited",
        "data": "fashion-mnist",
        "classes": list(setting.data.classes),
        "resolution": 20,
        "crop": 1.0,
        "mean": [0.286] * 3,
        "std": [0.353] * 3,
    }
