"""What studies say together: every final comparison counts once, whatever page it stands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nasaug.comparing.together import all_compared, together_figure, together_section
from nasaug.pictures.canvas import BLUE, GREY, RED
from nasaug.publishing import publish, results_pages, summaries_in

DOCS = Path(__file__).parents[3] / "docs"


def _summary(
    study: str, *means: float, sd: float = 0.001, equal: str = "epochs", seeds: int = 3
) -> dict[str, Any]:
    """Of a study of one target; methods a, b... have test accuracies of such `means`, the baseline
    0.5, all with one `sd`. Methods of one name are the same runs in all studies."""
    arms = [_arm("baseline", 0.5, sd, seeds)]
    compared = []
    for method, mean in zip("abcdef", means, strict=False):
        arms.append(_arm(method, mean, sd, seeds))
        compared.append(
            {
                "target": "t", "method": method, "epochs": 5, "against": "baseline",
                "against_epochs": 5, "equal": equal,
            }
        )  # fmt: skip
    return {"study": study, "targets": ["t"], "arms": arms, "comparisons": compared}


def _arm(method: str, mean: float, sd: float, seeds: int) -> dict[str, Any]:
    cells = [f"t-{method}-e5-s{seed}" for seed in range(seeds)]
    test = {"n": seeds, "mean": mean, "sd": sd, "low": None, "high": None}
    return {
        "target": "t", "method": method, "epochs": 5, "n": seeds, "final": True, "cells": cells,
        "test": test, "train": test,
    }  # fmt: skip


def test_ahead_behind_and_not_told_apart_are_counted() -> None:
    # Welch's t for equal sd and n: half of the interval is 2.776 sd sqrt(2 / 3), here 0.227 points.
    found = all_compared([_summary("one", 0.51, 0.4977, 0.5, 0.502)])
    assert [one["method"] for one in found] == ["b", "c", "d", "a"]
    said = together_section(found, "results", "together.svg")
    # p of b is 0.048 before correction, and that of d above 0.05.
    assert "| equal epochs | 4 | 1 | 1 | 1 | 0 | 2 |" in said
    assert "equal MACs" not in said and "![All differences, sorted](results/together.svg)" in said
    assert "Runs of one seed" not in said
    rows = [line for line in said.splitlines() if line.startswith("| [one](results/one.md)")]
    assert [row.split(" | ")[2] for row in rows] == ["a", "b"]
    assert "| 3 and 3 | +1.00 | +0.77 to +1.23 | 0.0010 |" in rows[0]


def test_the_correlation_of_pairs_is_said() -> None:
    summary = _summary("one", 0.5, 0.51, 0.52)
    for one, r in zip(summary["comparisons"], (-0.5, 0.5, 0.3), strict=True):
        one["correlation"] = r
    said = together_section(all_compared([summary]), "results", "together.svg")
    # Mean 0.1, sd 0.529, t of two degrees of freedom 4.303.
    assert "correlate by +0.10 in the mean of 3 comparisons (-1.21 to +1.41)." in _joined(said)


def _joined(text: str) -> str:
    return " ".join(text.split())


def test_shared_runs_count_once_with_most_seeds() -> None:
    few, many = _summary("few", 0.51), _summary("many", 0.51, seeds=8)
    for order in ([few, many], [many, few]):
        assert [(one["study"], one["n"]) for one in all_compared(order)] == [("many", 8)]
    other = _summary("macs", 0.51, equal="macs")
    assert len(all_compared([few, many, other])) == 2
    # Sharing the baseline alone, two comparisons are still two.
    assert len(all_compared([_summary("both", 0.5, 0.5)])) == 2


def test_what_is_not_final_pooled_or_without_an_interval_does_not_count() -> None:
    summary = _summary("one", 0.51, 0.52, 0.53, 0.54)
    _, first, _, third, _ = summary["arms"]
    first["final"] = False
    summary["comparisons"][1] |= {"target": "all", "against_epochs": None}
    third["test"] |= {"n": 1, "sd": None}
    assert [one["method"] for one in all_compared([summary])] == ["d"]
    summary["arms"][0]["final"] = False  # the baseline
    assert not all_compared([summary])


def test_a_method_of_several_comparisons_is_pooled() -> None:
    means = {"one": 0.51, "two": 0.512, "three": 0.52}
    summaries = [_summary(study, mean, 0.5) for study, mean in means.items()]
    for number, summary in enumerate(summaries):
        for arm in summary["arms"]:
            arm["cells"] = [f"{number}-{cell}" for cell in arm["cells"]]
    summaries[0]["comparisons"].pop()  # of b there are two left
    said = together_section(all_compared(summaries), "results", "together.svg")
    rows = [line for line in said.splitlines() if line.startswith("| a | baseline |")]
    # Means of 1.0, 1.2, 2.0, by errors that are alike and small: their mean and spread, 0.53.
    assert rows == ["| a | baseline | equal epochs | 3 | +1.40 | +0.09 to +2.71 | 0.52 |"]
    assert "| b | baseline |" not in said
    # A fourth shares the runs of a with the third: it is no news.
    fourth = _summary("four", 0.52)
    fourth["arms"][1]["cells"] = summaries[2]["arms"][1]["cells"]
    compared = all_compared([*summaries, fourth])
    assert len(compared) == 6
    assert rows[0] in together_section(compared, "results", "together.svg").splitlines()
    assert "Over all targets" not in together_section(all_compared(summaries[:2]), "r", "t.svg")


def test_the_figure_has_every_difference() -> None:
    found = all_compared([_summary("a", 0.51, 0.48), _summary("b", 0.5, equal="macs")])
    [axes] = together_figure(found).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xydata().tolist()[0][0] for line in dots] == pytest.approx([0.0, -2.0, 1.0])  # type: ignore[union-attr]
    assert [line.get_color() for line in dots] == [GREY, RED, BLUE]
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
