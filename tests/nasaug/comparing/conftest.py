"""Studies whose cells take no time: a store that is told what cells came to, a stand-in command."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasaug.comparing import runner
from nasaug.comparing import sitting as running
from nasaug.comparing.cells import Cell
from nasaug.comparing.plan import Plan, Planner
from nasaug.comparing.runner import Runner
from nasaug.comparing.store import Failure, State, Store
from nasaug.study_config import Study

# A cell's accuracy by its configuration; what `Told.answer` gives.
Answer = Callable[[Cell], dict[str, Any] | Failure | None]


class Told(Store):
    """A store that holds what it is told, by identities; nothing is on the disk."""

    def __init__(self, cells: Path) -> None:
        super().__init__(cells, "code")
        self.results: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, Failure] = {}

    def result(self, cell: str) -> dict[str, Any] | None:
        return self.results.get(cell)

    def failure(self, cell: str) -> Failure | None:
        return self.failures.get(cell)

    def state(self, cell: str) -> State:
        if cell in self.results:
            return "done"
        if cell in self.failures:
            return "diverged" if self.failures[cell].diverged else "failed"
        return "waiting"


class Played:
    """A study played to its end, or step by step, in no time. `order` are the cells as they ran."""

    def __init__(self, study: Study, cells: Path, answer: Answer) -> None:
        self.store = Told(cells)
        self.planner = Planner(study, self.store)
        self.answer = answer
        self.order: list[Cell] = []

    def plan(self) -> Plan:
        return self.planner.plan()

    def step(self) -> bool:
        """Run the first cell that is waiting; whether there was one."""
        for cell in self.plan().cells:
            if self.store.state(cell.identity) == "waiting":
                if not all(map(self.store.result, cell.needs)):
                    continue
                found = self.answer(cell)
                if found is None:
                    continue
                self.order.append(cell)
                if isinstance(found, Failure):
                    self.store.failures[cell.identity] = found
                else:
                    self.store.results[cell.identity] = found
                return True
        return False

    def play(self) -> Plan:
        while self.step():
            assert len(self.order) < 2000
        return self.plan()


DIVERGED = Failure(1, ("nasaug: the loss of target became nan at step 7: the learning rate ...",))
BROKEN = Failure(1, ("nasaug: no space left on device",))


def make_study(**keys: Any) -> Study:
    """A study of two methods; `keys` replace its own."""
    given: dict[str, Any] = {
        "question": "Does it help?",
        "targets": ["micro_10k"],
        "seeds": 2,
        "base": {
            "in_channels": 1,
            "data": {"name": "fashion-mnist-mini"},
            "train": {"epochs": 10, "warmup_epochs": 2},
        },
        "methods": {"baseline": {}, "netaug": {"largest": "published"}},
        "tune": {"grid": [0.1, 0.2, 0.4]},
        "equal": ["epochs"],
    }
    return Study.model_validate(given | keys)


def trained(
    cell: Cell, top1: float = 0.8, macs: float = 1000.0, seconds: float = 10.0, **more: Any
) -> dict[str, Any]:
    """A result; MACs and seconds are those of an epoch."""
    return {
        "top1": top1,
        "validation_top1": top1,
        "train_top1": top1,
        "train_macs": macs * cell.epochs,
        "train_seconds": seconds * cell.epochs,
        "macs": 307_920,
        "params": 9_850,
        "diagnosis": "under-fits: 60 %",
        **more,
    }


def best_at(rate: float) -> Callable[[Cell], float]:
    """Validation accuracies that fall away on both sides of a learning rate."""
    return lambda cell: 0.8 - 0.01 * abs(math.log2((cell.lr or rate) / rate))


class StandIn:
    """The command of cells that finish at once, or do what `actions` say by a part of their name:
    {"do": "hang"}, {"do": "say", "text": ..., "code": ...}."""

    def __init__(self, folder: Path) -> None:
        self.plan = folder / "actions.json"
        self.act({})

    def act(self, actions: dict[str, Any], seconds: float = 0.0) -> None:
        slow = {"seconds": {"do": "sleep", "number": seconds}}
        # At once, since a cell may be reading it.
        new = self.plan.with_suffix(".new")
        new.write_text(json.dumps(slow | actions))
        new.replace(self.plan)

    def __call__(self, command: str, config: Path, folder: Path) -> list[str]:
        paths = (Path(__file__).with_name("stand_in.py"), command, config, folder, self.plan)
        return [sys.executable, *map(str, paths)]

    @property
    def log(self) -> list[tuple[str, str, float]]:
        """(begin or end, cell, seconds) in the order that they came."""
        path = Path(f"{self.plan}.log")
        lines = path.read_text().splitlines() if path.exists() else []
        return [(w, n, float(t)) for w, n, t in (line.split() for line in lines)]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


class Kit:
    """What the tests here share."""

    BROKEN, DIVERGED = BROKEN, DIVERGED
    study = staticmethod(make_study)
    trained = staticmethod(trained)
    best_at = staticmethod(best_at)

    def __init__(self, out: Path) -> None:
        self._out = out

    def played(self, study: Study, answer: Answer) -> Played:
        return Played(study, self._out / "cells", answer)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., str]:
    """Writes tiny.yaml, with other keys where given, and returns its name."""

    def write(**keys: Any) -> str:
        given = {
            "question": "Does it help?",
            "targets": ["micro_10k"],
            "seeds": 2,
            "base": {
                "in_channels": 1,
                "data": {"name": "fashion-mnist-mini"},
                "train": {"epochs": 3, "warmup_epochs": 0},
            },
            "methods": {"baseline": {}, "netaug": {"largest": "published"}},
            "tune": {"grid": [0.1, 0.2, 0.3]},
            "equal": ["epochs"],
        }
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(given | keys))
        return "tiny.yaml"

    return write


@pytest.fixture
def quickly(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cells are stand-ins."""
    monkeypatch.setattr(running, "Runner", functools.partial(Runner, command=stand_in))
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(runner, "SECONDS_FOR_OTHERS", 0.1)
    return stand_in
