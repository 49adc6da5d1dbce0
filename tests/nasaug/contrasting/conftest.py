"""A contrast on tiny data, and a way to play its runs in no time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasaug.comparing.cells import Cell
from nasaug.comparing.store import Store
from nasaug.config import SearchConfig
from nasaug.contrast_config import Contrast
from nasaug.contrasting.plan import Plan, Planner
from nasaug.supernet import Architecture, Network, SearchSpace, load_space, load_target, macs
from nasaug.train_config import TrainConfig
from nasaug.training import save_weights, write_json

BUDGET = 400_000
Score = Callable[[Cell], float]


@pytest.fixture
def given(clothes: Path) -> dict[str, Any]:
    """The keys of a tiny contrast."""
    return {
        "target": "micro_10k",
        "space": "micro_down",
        "budget": BUDGET,
        "epochs": 24,
        "seeds": 2,
        "base": {
            "in_channels": 1,
            "data": {"name": "fashion-mnist", "dir": str(clothes)},
            "train": {"warmup_epochs": 0, "batch_size": 64, "bn_images": 128},
        },
        "up": {"trials": 2},
        "down": {"trials": 2},
        "tune": {"grid": [0.1, 0.2, 0.4], "extend": False},
    }


@pytest.fixture
def contrast(given: dict[str, Any]) -> Callable[..., Contrast]:
    """Makes a contrast, with other keys where given."""
    return lambda **keys: Contrast.model_validate(given | keys)


@pytest.fixture
def written(given: dict[str, Any], tmp_path: Path) -> Callable[..., str]:
    """Writes tiny.yaml and returns its name."""

    def write(**keys: Any) -> str:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(given | keys))
        return "tiny.yaml"

    return write


class Played:
    """A contrast whose cells come to what `score` says: the best rate is in the middle of the grid
    unless it says otherwise. A search finds the space's smallest member, at a fixed cost."""

    SEARCHED = 10**9

    def __init__(self, contrast: Contrast, cells: Path, score: Score | None = None) -> None:
        self.store = Store(cells, "code")
        self.planner = Planner(contrast, self.store)
        self.score = score or (lambda cell: 0.8 - 0.01 * abs(math.log2((cell.lr or 1) / 0.2)))
        self.order: list[Cell] = []

    def finish(self, cell: Cell) -> None:
        folder = self.store.folder(cell.identity)
        folder.mkdir(parents=True)
        top1 = self.score(cell)
        self.order.append(cell)
        if isinstance(cell.config, TrainConfig):
            result = {"top1": top1, "validation_top1": top1, "train_macs": 5, "train_seconds": 1.0}
            write_json(folder / "result.json", result)
            return
        assert isinstance(cell.config, SearchConfig)
        found = self.found(cell.config.direction)
        best = {"accuracy": top1, "macs": macs(found), "architecture": found.to_dict()}
        facts = {"direction": cell.config.direction, "target": cell.config.target}
        (folder / "supernet").mkdir()
        row = {"step": 1, "macs": self.SEARCHED - self.SEARCHED // 10, "seconds": 2.0}
        (folder / "supernet/metrics.jsonl").write_text(json.dumps(row) + "\n")
        save_weights(folder / "weights.safetensors", Network(found), {})
        write_json(folder / "best.json", {**facts, **best, "budget_macs": BUDGET})
        write_json(
            folder / "result.json", {"best": best, "judging_macs": self.SEARCHED // 10, **facts}
        )

    @staticmethod
    def found(direction: str) -> Architecture:
        """The smallest network of the space; up, the largest one."""
        if direction == "down":
            return load_space("micro_down", 10).target.canonical()
        target = load_target("micro_10k", 10, 28, 1)
        return SearchSpace.around(target, (1, 2), (1, 2)).largest.canonical()

    def play(self, most: int = 500) -> Plan:
        """Run what is ready, in its order, until nothing is, or `most` cells."""
        while len(self.order) < most:
            plan = self.planner.plan()
            ready = [
                cell
                for cell in plan.cells
                if self.store.result(cell.identity) is None
                and all(map(self.store.result, cell.needs))
            ]
            if not ready:
                break
            self.finish(ready[0])
        return self.planner.plan()


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., Played]:
    """Takes a contrast, and what its cells come to."""
    return lambda contrast, score=None: Played(contrast, tmp_path / "cells", score)
