"""The results page: what the published studies found, from their summaries and nothing else.

    FOLDER/results.md                     a table of all studies, then the tables of each
    FOLDER/results/STUDY.json             a study's summary
    FOLDER/results/STUDY-TARGET.svg       accuracy against training compute

The page is written anew from all summaries that lie there, so that studies may be published one by
one, from different machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasaug.comparing.figures import compute_figure
from nasaug.comparing.tables import compute, duration, markdown, markdown_table
from nasaug.pictures import save_picture
from nasaug.training import read_json_object, write_atomically

Summary = Mapping[str, Any]
PAGE, FOLDER = "results.md", "results"
COLUMNS = ("study", "question", "answer", "runs", "training", "time", "final")
INTRODUCTION = """\
# Results

What the studies of `nasaug compare` found. This page is written by

    nasaug compare STUDY --publish docs

from the summaries in `results/`, and by nothing and nobody else; how to read it is in
[compare.md](compare.md). Rows whose n is below what is planned, and studies that are not final,
will change."""


def publish(folder: Path, summary: Summary) -> Path:
    """Put a study's summary and figures there and write the page; returns the page's path.

    Raises: OSError; ValueError for a damaged summary of another study.
    """
    own = folder / FOLDER
    own.mkdir(parents=True, exist_ok=True)
    write_atomically(own / f"{summary['study']}.json", json.dumps(summary, allow_nan=False) + "\n")
    methods = list(dict.fromkeys(arm["method"] for arm in summary["arms"]))
    for target in summary["targets"]:
        arms = _run_on(summary, target)
        if arms:
            save_picture(compute_figure(arms, methods), own / _figure(summary, target))
    page = folder / PAGE
    write_atomically(page, results_page(summaries_in(folder)))
    return page


def summaries_in(folder: Path) -> list[dict[str, Any]]:
    """Of all published studies, by name. Raises: OSError; ValueError for a damaged file."""
    return [read_json_object(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def results_page(summaries: Sequence[Summary]) -> str:
    """The page's Markdown."""
    rows = [
        [
            f"[{one['study']}](#{one['study']})",
            one["question"],
            one["answer"],
            f"{_runs(one, 'n')} of {_runs(one, 'planned')}",
            compute(_spent(one, "train_macs")),
            duration(_spent(one, "train_seconds")),
            "yes" if one["final"] else "no",
        ]
        for one in summaries
    ]
    parts = [INTRODUCTION, markdown_table((COLUMNS, rows), 3)]
    for one in summaries:
        parts += [markdown(one, level=2).rstrip(), *_figures(one)]
    return "\n\n".join(parts) + "\n"


def _runs(summary: Summary, key: str) -> int:
    return sum(int(arm[key]) for arm in summary["arms"])


def _spent(summary: Summary, key: str) -> float | None:
    """By all final runs so far; None where none says."""
    spent = [arm[key] * arm["n"] for arm in summary["arms"] if arm[key] is not None]
    return sum(spent) if spent else None


def _run_on(summary: Summary, target: str) -> list[Mapping[str, Any]]:
    """The arms of a target that have runs."""
    return [arm for arm in summary["arms"] if arm["target"] == target and arm["n"]]


def _figure(summary: Summary, target: str) -> str:
    return f"{summary['study']}-{target}.svg"


def _figures(summary: Summary) -> list[str]:
    return [
        f"![{target}: test accuracy against training MACs]({FOLDER}/{_figure(summary, target)})"
        for target in summary["targets"]
        if _run_on(summary, target)
    ]
