"""A study's outputs: summary.json, table.csv, table.md and report.html, one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasaug.comparing.figures import (
    compute_figure,
    curves_figure,
    interval_figure,
    rates_figure,
)
from nasaug.comparing.outputs import html_answer, html_table, write_files
from nasaug.comparing.spreadsheet import csv_text
from nasaug.comparing.tables import (
    MAP_NOTE,
    arms_table,
    compared_table,
    map_tables,
    markdown,
    notes,
    tuning_table,
    unpaired_table,
)
from nasaug.pictures import inline_svg
from nasaug.pipelines import page

Summary = Mapping[str, Any]


def write_outputs(out: Path, summary: Summary, study: str) -> dict[str, str]:
    """Write all four; returns their paths. `study` is the YAML that the page shows.

    Raises: OSError.
    """
    text = csv_text(summary), markdown(summary), report_page(summary, study)
    return write_files(out, summary, *text)


def report_page(summary: Summary, study: str) -> str:
    """The page's HTML."""
    sections = [("differences", "Does it help?", _differences(summary))]
    methods = list(dict.fromkeys(arm["method"] for arm in summary["arms"]))
    if summary["maps"]:
        sections.append(("map", "Map", _maps(summary)))
    for target in summary["targets"]:
        sections.append((f"target-{target}", target, _target(summary, target, methods)))
    sections += [
        ("rates", "Learning rates", _rates(summary, methods)),
        ("reading", "How to read this", "".join(map(page.paragraph, notes(summary)))),
        ("study", "The study", page.code(study)),
    ]
    if summary["failed"]:
        sections.insert(-2, ("failed", "What failed", _failed(summary)))
    lead = f"{summary['data']}, code {summary['code']}"
    return page.page(f"{summary['study']}: {summary['question']}", lead, sections)


def _differences(summary: Summary) -> str:
    rows = compared_table(summary)
    marked = [index for index, row in enumerate(rows[1]) if row[0].startswith("all")]
    not_paired = page.paragraph("By all runs of both sides, not paired:", "note")
    return (
        html_table(rows, 5, marked)
        + not_paired
        + html_table(unpaired_table(summary), 5)
        + html_answer(summary)
    )


def _maps(summary: Summary) -> str:
    parts = [page.paragraph(title) + html_table(table, 1) for title, table in map_tables(summary)]
    return page.paragraph(MAP_NOTE, "note") + "".join(parts)


def _target(summary: Summary, target: str, methods: list[str]) -> str:
    own = {**summary, "arms": [arm for arm in summary["arms"] if arm["target"] == target]}
    head, rows = arms_table(own)
    table = head[1:], [row[1:] for row in rows]
    return (
        html_table(table, 1)
        + page.paragraph(_verdicts(own["arms"]), "note")
        + page.side_by_side(_figures(own["arms"], target, methods))
    )


def _figures(arms: list[Mapping[str, Any]], target: str, methods: list[str]) -> list[str]:
    """As far as there are runs. Every length has curves of its own; longer baselines have theirs
    with the shorter ones."""
    if not any(arm["n"] for arm in arms):
        return []
    longer = {arm["method"] for arm in arms if arm["longer"] and arm["n"]}
    drawn = [
        ("accuracy", interval_figure, arms, "test accuracy with intervals"),
        ("compute", compute_figure, arms, "test accuracy against training MACs"),
    ]
    for epochs in sorted({arm["epochs"] for arm in arms if not arm["longer"] and arm["n"]}):
        own = [arm for arm in arms if arm["epochs"] == epochs and not arm["longer"]]
        said = f"validation and training accuracy over {epochs} epochs and the warm-up"
        drawn.append((f"curves-{epochs}", curves_figure, own, said))
    if longer:
        shown = [arm for arm in arms if arm["method"] in longer]
        drawn.append(("longer", curves_figure, shown, "the same for longer trainings"))
    return [
        page.figure(inline_svg(draw(rows, methods), f"{name}-{target}"), f"{target}: {caption}")
        for name, draw, rows, caption in drawn
    ]


def _verdicts(arms: list[Mapping[str, Any]]) -> str:
    verdicts = [
        f"{arm['method']} ({arm['epochs']} epochs) {said}"
        for arm in arms
        if (said := ", ".join(f"{verdict} in {n}" for verdict, n in arm["diagnosis"].items()))
    ]
    return f"Diagnosis by runs: {'; '.join(verdicts)}." if verdicts else ""


def _rates(summary: Summary, methods: list[str]) -> str:
    parts = []
    for target in summary["targets"]:
        own = [one for one in summary["tuning"] if one["target"] == target]
        if any(rate["validation"] is not None for one in own for rate in one["rates"]):
            figure = rates_figure(own, methods)
            svg = inline_svg(figure, f"rates-{target}")
            parts.append(page.figure(svg, f"{target}: learning rates tried"))
    return html_table(tuning_table(summary), 2) + page.side_by_side(parts)


def _failed(summary: Summary) -> str:
    return "".join(
        page.folded(f"{one['cell']}: {one['said']}", page.code("\n".join(one["lines"])))
        for one in summary["failed"]
    )
