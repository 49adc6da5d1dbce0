"""How far a study is: the time left, by what its cells took of late."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from nasaug.comparing.cells import Cell
from nasaug.comparing.status import status
from nasaug.comparing.store import Store

ALL = 12  # epochs of a cell: 10, and 2 of warm-up
SOME = 5


def _trained(store: Store, cell: Cell, seconds: float, written: float, epochs: int = ALL) -> None:
    """So many epochs of it, `seconds` each; the cell took no time besides."""
    folder = store.folder(cell.identity)
    folder.mkdir(parents=True)
    rows = [json.dumps({"epoch": epoch, "seconds": seconds}) for epoch in range(1, epochs + 1)]
    files = {
        folder / "metrics.jsonl": "\n".join(rows) + "\n",
        folder / "result.json": "{}",
        store.beside(cell.identity, "yaml"): "",
    }
    for path, text in files.items():
        path.write_text(text)
        os.utime(path, (written, written))


@pytest.fixture
def played(kit: Any) -> Any:
    """A study without tuning of which two of four seeds are done."""
    study = kit.study(seeds=4, tune={"grid": [0.1], "extend": False})

    def answer(cell: Cell) -> Any:
        return kit.trained(cell) if cell.config.seed < 2 else None

    played = kit.played(study, answer)
    played.play()
    return played


def test_the_time_left_follows_the_cells_that_were_trained_last(played: Any) -> None:
    plan = played.plan()
    done = [cell for cell in plan.cells if played.store.result(cell.identity) is not None]
    assert len(done) == 4 and len(plan.cells) == 8
    # Those of the first seed are from a machine that was ten times as fast.
    seconds = {"baseline": 20.0, "netaug": 60.0}
    for cell in done:
        fast = cell.config.seed == 0
        usual = seconds[cell.config.method]
        _trained(played.store, cell, usual / 10 if fast else usual, 1e9 + (not fast))
    for workers in (1, 2):
        found = status(played.planner, plan, workers).left
        assert found == pytest.approx(2 * ALL * (20 + 60) / workers)


def test_few_epochs_of_late_are_eked_out_by_earlier_ones(played: Any) -> None:
    plan = played.plan()
    for cell in plan.cells:
        if cell.config.seed < 2:
            _trained(played.store, cell, 2.0, 1e9)
    assert status(played.planner, plan, 1).left == pytest.approx(4 * ALL * 2.0)
    begun = next(cell for cell in plan.cells if cell.config.seed == 2)
    _trained(played.store, begun, 20.0, 1e9 + 1, SOME)
    # Its method's last epochs: its own, and those of one cell before it.
    speed = (SOME * 20.0 + ALL * 2.0) / (SOME + ALL)
    expected = 2 * ALL * 2.0 + (2 * ALL - SOME) * speed
    assert status(played.planner, plan, 1).left == pytest.approx(expected)


def test_nothing_is_said_before_an_epoch_was_trained(played: Any) -> None:
    found = status(played.planner, played.plan(), 1)
    assert found.left is None and "nothing is measured yet" in found.text
