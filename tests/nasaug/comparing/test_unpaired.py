"""Comparisons by all runs of both sides: against scipy's Welch test on the runs themselves."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from nasaug.comparing.statistics import mean_of
from nasaug.comparing.tables import unpaired_table
from nasaug.comparing.unpaired import unpaired_comparisons

# Test accuracies by method; the baseline has more runs.
SCORES = {
    "baseline": [0.870, 0.874, 0.869, 0.872, 0.871],
    "netaug": [0.880, 0.879, 0.877],
    "twice": [0.871, 0.870, 0.873],
}
TRAIN = {method: [score + 0.01 for score in scores] for method, scores in SCORES.items()}
TRAIN["netaug"] = [0.9, 0.91, 0.92]


@pytest.fixture
def summary() -> dict[str, Any]:
    """Of a study of one target at equal epochs."""
    arms = [
        {
            "target": "t", "method": method, "epochs": 5, "n": len(scores), "final": True,
            "cells": [f"{method}-{run}" for run in range(len(scores))],
            "test": mean_of(scores).to_dict(), "train": mean_of(TRAIN[method]).to_dict(),
        }
        for method, scores in SCORES.items()
    ]  # fmt: skip
    compared = [
        {
            "target": "t", "method": method, "epochs": 5, "against": "baseline",
            "against_epochs": 5, "equal": "epochs",
        }
        for method in ("netaug", "twice")
    ]  # fmt: skip
    return {"study": "it", "targets": ["t"], "arms": arms, "comparisons": compared}


def _expected(scores: dict[str, list[float]], method: str) -> Any:
    return stats.ttest_ind(scores[method], scores["baseline"], equal_var=False)


def test_all_runs_of_both_sides_count(summary: dict[str, Any]) -> None:
    found = unpaired_comparisons(summary)
    assert [(one["method"], one["n"], one["against_n"]) for one in found] == [
        ("netaug", 3, 5), ("twice", 3, 5),
    ]  # fmt: skip
    for one in found:
        expected = _expected(SCORES, one["method"])
        assert one["p"] == pytest.approx(expected.pvalue) and one["final"]
        assert one["low"] == pytest.approx(expected.confidence_interval().low)
        on_training = _expected(TRAIN, one["method"])
        assert one["train"]["high"] == pytest.approx(on_training.confidence_interval().high)
    netaug, twice = found
    assert netaug["p"] < twice["p"]
    assert netaug["holm"] == pytest.approx(2 * netaug["p"]) and twice["holm"] == twice["p"]


def test_the_table_says_it(summary: dict[str, Any]) -> None:
    head, rows = unpaired_table(summary)
    row = dict(zip(head, rows[0], strict=True))
    low, high = _expected(SCORES, "netaug").confidence_interval()
    assert row["runs"] == "3 and 5" and row["difference (points)"] == "+0.75"
    assert row["95 % interval"] == f"{100 * low:+.2f} to {100 * high:+.2f}"
    low, high = _expected(TRAIN, "netaug").confidence_interval()
    assert row["on training images"] == f"+2.88 ({100 * low:+.2f} to {100 * high:+.2f})"


def test_what_has_no_runs_or_no_other_side_is_left_out(summary: dict[str, Any]) -> None:
    summary["arms"][1] |= {"n": 0, "test": mean_of([]).to_dict()}
    summary["comparisons"].append({**summary["comparisons"][1], "against_epochs": None})
    summary["comparisons"].append({**summary["comparisons"][1], "target": "all"})
    assert [one["method"] for one in unpaired_comparisons(summary)] == ["twice"]


def test_one_run_has_no_interval(summary: dict[str, Any]) -> None:
    summary["arms"][1] |= {"n": 1, "test": mean_of([0.88]).to_dict(), "final": False}
    one, _ = unpaired_comparisons(summary)
    assert (one["low"], one["p"], one["holm"], one["final"]) == (None, None, None, False)
    assert one["difference"] == pytest.approx(0.88 - 0.8712)
