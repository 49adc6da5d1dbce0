"""A contrast's outputs: summary.json, table.csv, table.md and a self-contained report.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nasaug.comparing.outputs import csv_of, html_answer, html_table, write_files
from nasaug.contrasting.figures import course_figure, spending_figure
from nasaug.contrasting.tables import (
    compared_table,
    lead,
    markdown,
    notes,
    rows_table,
    tuning_table,
)
from nasaug.pictures import inline_svg
from nasaug.pipelines import page

Summary = Mapping[str, Any]


def write_outputs(out: Path, summary: Summary, contrast: str) -> None:
    """Write all four. `contrast` is the YAML that the page shows. Raises: OSError."""
    text = csv_text(summary), markdown(summary), report_page(summary, contrast)
    write_files(out, summary, *text)


def csv_text(summary: Summary) -> str:
    """A line for every contestant: plain numbers, means over its seeds."""
    lines = [
        {
            "contestant": row["contestant"],
            "n": row["n"],
            "planned": row["planned"],
            **{f"test_{key}": row["test"][key] for key in ("mean", "sd", "low", "high")},
            "validation_mean": row["validation"]["mean"],
            **{key: " ".join(map(str, row[key])) for key in ("macs", "params", "memory")},
            "lr": row["lr"],
            "epochs": row["epochs"],
            **{f"spent_{key}": value for key, value in row["spent"].items()},
            "seconds": row["seconds"],
        }
        for row in summary["rows"]
    ]
    return csv_of(lines)


def report_page(summary: Summary, contrast: str) -> str:
    """The page's HTML."""
    names = [(row["contestant"], row["says"]) for row in summary["rows"]]
    sections = [
        ("contestants", "Who is better?", page.facts(names) + html_table(rows_table(summary), 1)),
        ("compute", "Accuracy against compute", page.side_by_side(_figures(summary))),
        (
            "differences",
            "Differences",
            html_table(compared_table(summary), 2) + html_answer(summary),
        ),
        ("rates", "Learning rates", html_table(tuning_table(summary), 2)),
        ("reading", "How to read this", "".join(map(page.paragraph, notes(summary)))),
        ("contrast", "The contrast", page.code(contrast)),
    ]
    return page.page(f"{summary['study']}: {summary['question']}", lead(summary), sections)


def drawings(summary: Summary) -> dict[str, tuple[Callable[[], Figure], str]]:
    """What draws the plots, by name, with captions; none while nothing is finished."""
    rows = summary["rows"]
    if not any(row["n"] for row in rows):
        return {}
    return {
        "course": (partial(course_figure, rows), "accuracy against the compute spent"),
        "spending": (partial(spending_figure, rows), "on what the compute went"),
    }


def _figures(summary: Summary) -> list[str]:
    return [
        page.figure(inline_svg(draw(), name), caption)
        for name, (draw, caption) in drawings(summary).items()
    ]
