"""A detection study's outputs: summary.json, table.csv, table.md and report.html, one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nasaug.comparing.outputs import csv_of, html_answer, html_table, write_files
from nasaug.detecting.summary import MACS
from nasaug.detecting.tables import (
    compared_table,
    equal_table,
    lead,
    markdown,
    notes,
    rows_table,
    starts_table,
    tuning_table,
)
from nasaug.pictures import Gap, Line, Quantity, equal_figure, inline_svg
from nasaug.pipelines import page
from nasaug.search import format_macs

Summary = Mapping[str, Any]
COST = Quantity("MACs of the detector, batch 1", lambda value: format_macs(round(value)))
MAP = Quantity("test mAP, mean and standard error", lambda value: f"{100 * value:.1f} %")


def write_outputs(out: Path, summary: Summary, study: str) -> None:
    """Write all four. `study` is the YAML that the page shows. Raises: OSError."""
    text = csv_text(summary), markdown(summary), report_page(summary, study)
    write_files(out, summary, *text)


def csv_text(summary: Summary) -> str:
    """A line for every method at every size: plain numbers, means over its seeds. What is not known
    is empty."""
    starts = {start["method"]: start for start in summary["starts"]}
    compared = {(one["method"], one["size"]): one for one in summary["comparisons"]}
    keys = ("difference", "low", "high", "p", "holm")
    lines = [
        {
            **{key: row[key] for key in ("method", "size", "n", "planned", "final", "lr")},
            **{f"map_{key}": row["map"][key] for key in ("mean", "sd", "low", "high")},
            "validation_mean": row["validation"]["mean"],
            **{key: row[key] for key in (*MACS, "params", "epochs", "train_macs", "train_seconds")},
            "pretrain_macs": starts[row["method"]]["train_macs"],
            "pretrain_seconds": starts[row["method"]]["train_seconds"],
            **{
                f"against_{key}": compared.get((row["method"], row["size"]), {}).get(key)
                for key in keys
            },
        }
        for row in summary["rows"]
    ]
    return csv_of(lines)


def report_page(summary: Summary, study: str) -> str:
    """The page's HTML."""
    sections = [
        ("equal", "MACs at equal mAP", _figures(summary) + html_table(equal_table(summary), 3)),
        (
            "differences",
            "Differences",
            html_table(compared_table(summary), 3) + html_answer(summary),
        ),
        ("detectors", "Detectors", html_table(rows_table(summary), 1)),
        ("pretraining", "Pre-training", html_table(starts_table(summary), 3)),
        ("rates", "Learning rates", html_table(tuning_table(summary), 2)),
        ("reading", "How to read this", "".join(map(page.paragraph, notes(summary)))),
        ("study", "The study", page.code(study)),
    ]
    return page.page(f"{summary['study']}: {summary['question']}", lead(summary), sections)


def drawings(summary: Summary) -> dict[str, tuple[Callable[[], Figure], str]]:
    """What draws the plots, by name, with captions; none while no seed is finished at all sizes."""
    return {
        f"equal-{one['method']}": (
            partial(curves_figure, one),
            f"mAP against MACs: {one['method']} and {one['against']}",
        )
        for one in summary["equal"]
        if one["curves"]
    }


def curves_figure(one: Mapping[str, Any]) -> Figure:
    """Both curves, a point a size; the mAP that both reach; the largest saving, where any is above
    0."""
    lines = [
        Line(
            f"{curve['name']} (n = {one['n']})",
            curve["macs"],
            curve["means"],
            curve["errors"],
            [str(size) for size in curve["sizes"]],
        )
        for curve in one["curves"]
    ]
    found = one["found"]
    if found is None:
        return equal_figure(lines, COST, MAP)
    gaps = []
    largest = max(found["savings"], key=lambda saving: saving["fewer"]["value"], default=None)
    if largest is not None and largest["fewer"]["value"] > 0:
        words = f"{largest['fewer']['said']} fewer MACs"
        gaps = [Gap(largest["level"], largest["baseline_macs"], largest["macs"], words)]
    return equal_figure(lines, COST, MAP, gaps, tuple(found["overlap"]))


def _figures(summary: Summary) -> str:
    return page.side_by_side(
        page.figure(inline_svg(draw(), name), caption)
        for name, (draw, caption) in drawings(summary).items()
    )
