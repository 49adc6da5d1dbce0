"""What studies say together: every final comparison counts once, whatever page it stands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasaug.comparing.together import all_compared, together_figure, together_section
from nasaug.publishing import publish, results_pages, summaries_in

DOCS = Path(__file__).parents[3] / "docs"


def _summary(
    study: str, *differences: tuple[float, float], equal: str = "epochs", seeds: int = 3
) -> dict[str, Any]:
    """Of a study of one target; methods a, b... differ from the baseline by `differences`, the mean
    and half of the interval. Methods of one name are the same runs in all studies."""
    arms, compared = [_arm("baseline", seeds)], []
    for method, (mean, half) in zip("abcdef", differences, strict=False):
        arms.append(_arm(method, seeds))
        compared.append(
            {
                "target": "t", "method": method, "epochs": 5, "against": "baseline",
                "against_epochs": 5, "equal": equal, "n": seeds, "planned": seeds, "final": True,
                "difference": mean, "low": mean - half, "high": mean + half, "p": 0.04,
                "holm": 0.04 if half < 0.005 else 0.3,
            }
        )  # fmt: skip
    return {"study": study, "targets": ["t"], "arms": arms, "comparisons": compared}


def _arm(method: str, seeds: int) -> dict[str, Any]:
    cells = [f"t-{method}-e5-s{seed}" for seed in range(seeds)]
    return {"target": "t", "method": method, "epochs": 5, "cells": cells}


def test_ahead_behind_and_not_told_apart_are_counted() -> None:
    found = all_compared([_summary("one", (0.01, 0.001), (-0.02, 0.01), (0.0, 0.01), (0.1, 0.2))])
    assert [one["method"] for one in found] == ["b", "c", "a", "d"]
    said = together_section(found, "results", "together.svg")
    assert "| equal epochs | 4 | 1 | 1 | 1 | 0 | 2 |" in said
    assert "equal MACs" not in said and "![All differences, sorted](results/together.svg)" in said
    rows = [line for line in said.splitlines() if line.startswith("| [one](results/one.md)")]
    assert [row.split(" | ")[2] for row in rows] == ["a", "b"]
    assert "| +1.00 | +0.90 to +1.10 | 0.0400 |" in rows[0]


def test_shared_runs_count_once_with_most_seeds() -> None:
    few, many = _summary("few", (0.01, 0.001)), _summary("many", (0.02, 0.01), seeds=8)
    for order in ([few, many], [many, few]):
        assert [(one["study"], one["n"]) for one in all_compared(order)] == [("many", 8)]
    other = _summary("macs", (0.01, 0.001), equal="macs")
    assert len(all_compared([few, many, other])) == 2
    # The same baseline alone makes two comparisons no one.
    both = _summary("both", (0.0, 0.01), (0.0, 0.01))
    assert len(all_compared([both])) == 2


def test_what_is_not_final_pooled_or_without_an_interval_does_not_count() -> None:
    summary = _summary("one", (0.01, 0.001), (0.01, 0.001), (0.01, 0.001), (0.03, 0.001))
    first, second, third, _ = summary["comparisons"]
    first["final"] = False
    second["target"] = "all"
    third["low"] = third["high"] = None
    assert [one["difference"] for one in all_compared([summary])] == [0.03]


def test_the_figure_has_every_difference(tmp_path: Path) -> None:
    found = all_compared(
        [_summary("a", (0.01, 0.001), (-0.02, 0.01)), _summary("b", (0.0, 0.01), equal="macs")]
    )
    [axes] = together_figure(found).axes
    dots = {
        line.get_xdata()[0]: line.get_color() for line in axes.lines if line.get_marker() == "o"
    }  # type: ignore[index]
    assert sorted(dots) == [-2.0, 0.0, 1.0] and len(set(dots.values())) == 3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["equal MACs", "equal epochs"]


def test_the_page_has_the_section_where_something_is_compared(tmp_path: Path) -> None:
    [summary] = [one for one in summaries_in(DOCS) if one["study"] == "sorting"]
    page, picture = tmp_path / "results.md", tmp_path / "results/together.svg"
    publish(tmp_path, summary)
    assert "## Taken together" in page.read_text() and picture.exists()
    publish(tmp_path, {**summary, "comparisons": []})
    assert "Taken together" not in page.read_text() and not picture.exists()


def test_contrasts_and_detectors_are_left_to_their_pages() -> None:
    kinds = [one for one in summaries_in(DOCS) if "kind" in one]
    assert kinds and "Taken together" not in results_pages(kinds)["results.md"]
