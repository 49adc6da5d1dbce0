"""What the tests of `nasaug detect` share: scenes, quick options, a finished training, a study that
is played in no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nasaug.comparing.cells import Cell
from nasaug.comparing.store import Store
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.plan import Plan, Planner
from nasaug.detection import (
    DetectorOptions,
    detector_macs,
    write_scenes,
)
from nasaug.supernet import Network, load_target
from nasaug.training import load_dataset, save_weights, write_json

COUNTS = {"train": 16, "val": 4, "test": 5}
SMALL = (
    "--target=micro_3k",
    "--size=64",
    "--epochs=1",
    "--set=train.warmup_epochs=0",
    "--set=train.batch_size=4",
    "--set=train.bn_images=8",
    "--set=data.workers=0",
    "--set=detector.extra=[32, 16]",
    "--set=detector.aspect_ratios=[2.0]",
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    items = load_dataset("fashion-mnist-mini")
    return {kind: write_scenes(folder / kind, kind, COUNTS, items) for kind in ("coco", "voc")}


@pytest.fixture(scope="session")
def coco(scenes: dict[str, Path]) -> str:
    return f"--data=coco:{scenes['coco']}"


@pytest.fixture(scope="session")
def trained(coco: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training."""
    from nasaug.__main__ import run

    path = tmp_path_factory.mktemp("trained") / "run"
    torch.set_num_threads(1)
    assert run(["detect", "train", *SMALL, coco, f"--out={path}"]) == 0
    return path


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The options of a training that ends within a second."""
    return SMALL


@pytest.fixture
def classified() -> Callable[..., Network]:
    """Writes the weights of a network for classes."""

    def write(path: Path, target: str = "micro_3k", classes: int = 10) -> Network:
        net = Network(load_target(target, classes), generator=torch.Generator().manual_seed(3))
        save_weights(path, net)
        return net

    return write


@pytest.fixture(scope="session")
def refused() -> Callable[[Any, str], None]:
    """Bad use, said in so many words."""

    def check(done: Any, message: str) -> None:
        assert done.code == 2
        assert message in done.said

    return check


TINY: dict[str, Any] = {
    "question": "Does it work?",
    "target": "micro_3k",
    "sizes": [64, 96],
    "seeds": 2,
    "scenes": {"items": "fashion-mnist-mini", "train": 12, "val": 4, "test": 4},
    "base": {
        "pretrain": {
            "data": {"name": "fashion-mnist-mini", "per_class": 7},
            "train": {"epochs": 2, "warmup_epochs": 0, "batch_size": 64, "bn_images": 64},
        },
        "detect": {
            "data": {"workers": 0},
            "detector": {"extra": [32, 16], "aspect_ratios": [2.0]},
            "train": {"epochs": 4, "warmup_epochs": 0, "batch_size": 4, "bn_images": 8},
        },
    },
    "tune": {"grid": [0.05, 0.1, 0.2], "extend": False, "share": 0.5},
}


@pytest.fixture
def detect_study() -> Callable[..., DetectStudy]:
    """Makes a tiny study, with other keys where given."""
    return lambda **keys: DetectStudy.model_validate(TINY | keys)


@pytest.fixture
def detect_file(tmp_path: Path) -> Callable[..., str]:
    """Writes tiny.yaml, with other keys where given, and returns its name."""

    def write(**keys: Any) -> str:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | keys))
        return "tiny.yaml"

    return write


class PlayedDetectors:
    """A study whose cells come to what `score` says of them: of a detector its mAP, of a
    pre-training its accuracy."""

    def __init__(self, study: DetectStudy, cells: Path, score: Callable[[Cell], float]) -> None:
        self.store = Store(cells, "code")
        self.planner = Planner(study, self.store)
        self.score = score
        self.order: list[Cell] = []

    def finish(self, cell: Cell) -> None:
        score, folder = self.score(cell), self.store.folder(cell.identity)
        folder.mkdir(parents=True)
        self.order.append(cell)
        result = {"train_macs": 1000, "train_seconds": 2.0}
        if cell.command == "train":
            write_json(folder / "result.json", result | {"top1": score, "validation_top1": score})
            return
        options: DetectorOptions = cell.config.detector  # type: ignore[attr-defined]
        macs = detector_macs(load_target("micro_3k", 10), 10, options)
        costs = {f"macs_{part}": value for part, value in macs._asdict().items()}
        result |= {"map": score, "validation_map": score, "macs": macs.total, **costs}
        write_json(folder / "result.json", {**result, "params": 9_000, "style": "coco"})

    def play(self, most: int = 500) -> Plan:
        """Run what is ready, in its order, until nothing is, or `most` cells."""
        while len(self.order) < most:
            ready = [
                cell
                for cell in self.planner.plan().cells
                if self.store.result(cell.identity) is None
                and all(map(self.store.result, cell.needs))
            ]
            if not ready:
                break
            self.finish(ready[0])
        return self.planner.plan()


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., PlayedDetectors]:
    """Takes a study, and what its cells come to."""
    return lambda study, score: PlayedDetectors(study, tmp_path / "cells", score)
