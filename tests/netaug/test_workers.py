"""Several workers, or several batches a step, do what one process does with one large batch."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("one_worker.py")
Measured = list[dict[str, float]]
# Twenty steps of training let rounding errors of 1e-16 grow; the bar is 1e-5.
BAR = 1e-5


@pytest.fixture(scope="module")
def losses() -> Callable[..., Measured]:
    found: Callable[..., Measured] = runpy.run_path(str(PROGRAM))["losses"]
    return found


def _measured_by_both(two_workers: Callable[..., None], folder: Path, mode: str) -> Measured:
    """What two processes measured, which must be the same."""
    two_workers(PROGRAM, folder, mode)
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    return list(first)


def _assert_alike(found: Measured, expected: Measured) -> None:
    assert len(found) == len(expected) == 20
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=BAR, abs=BAR)
    # Not because nothing moved.
    assert expected[-1]["loss_target"] != pytest.approx(expected[0]["loss_target"], rel=1e-3)


def test_two_workers_measure_what_one_process_does(
    losses: Any, two_workers: Callable[..., None], tmp_path: Path
) -> None:
    """With the statistics and embeddings of both: NetAug with surgery, relations, in-place."""
    found = _measured_by_both(two_workers, tmp_path, "synchronised")
    expected = losses(tmp_path / "alone", batch_size=12, rate=0.04)
    assert {"loss_target", "loss_helper", "loss_relational", "loss_in_place"} <= set(expected[0])
    _assert_alike(found, expected)


def test_two_batches_a_step_are_two_workers_that_keep_to_themselves(
    losses: Any, two_workers: Callable[..., None], tmp_path: Path
) -> None:
    """Accumulated batches have statistics of their own, as unsynchronised workers do."""
    found = losses(tmp_path / "alone", accumulate=2, relational=False)
    # Worker r of two has every second batch of six images, and so has part r of a step.
    _assert_alike(found, _measured_by_both(two_workers, tmp_path, "apart"))


def test_the_statistics_matter(losses: Any, tmp_path: Path) -> None:
    """Else the test above would pass without them."""
    whole = losses(tmp_path / "whole", batch_size=12, rate=0.04, relational=False)
    parts = losses(tmp_path / "parts", accumulate=2, relational=False)
    assert parts[5]["loss_target"] != pytest.approx(whole[5]["loss_target"], rel=1e-4)
