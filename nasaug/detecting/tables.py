"""A detection study's tables, as text and as Markdown, made from its summary and nothing else.

mAP and accuracies are percent, differences percentage points. What is not known is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.comparing.formats import (
    DASH,
    Table,
    compute,
    count,
    difference_cells,
    duration,
    interval,
    markdown_table,
    number,
    percent,
)
from nasaug.comparing.tables import cell_notes, rates_tried
from nasaug.detecting.summary import ALL, MACS
from nasaug.search import format_macs

Row = Mapping[str, Any]
COLUMNS = (
    "method", "size", "n", "test mAP (%)", "sd", "95 % interval", "validation (%)", "MACs",
    "backbone", "extra", "heads", "rate", "training MACs", "time",
)  # fmt: skip
STARTS = (
    "method", "pre-trained by", "on", "n", "epochs", "rate", "test top-1 (%)", "95 % interval",
    "training MACs", "time",
)  # fmt: skip
COMPARED = (
    "method", "size", "against", "n", "difference (points)", "95 % interval", "p", "p (Holm)",
    "final",
)  # fmt: skip
EQUAL = ("method", "against", "at the mAP of", "n", "mAP (%)", "its MACs", "MACs", "fewer MACs")
TUNED = ("method", "of", "on validation pictures by learning rate (%)", "chosen")


def rows_table(summary: Row) -> Table:
    """A row for every method at every size."""
    return COLUMNS, [
        [
            row["method"],
            str(row["size"]),
            count(row),
            percent(row["map"]["mean"]),
            percent(row["map"]["sd"]),
            interval(row["map"]),
            percent(row["validation"]["mean"]),
            *(DASH if row[key] is None else format_macs(row[key]) for key in MACS),
            number(row["lr"]),
            compute(row["train_macs"]),
            duration(row["train_seconds"]),
        ]
        for row in summary["rows"]
    ]


def starts_table(summary: Row) -> Table:
    """A row for how every method's backbone was pre-trained, and what that took."""
    return STARTS, [
        [row["method"], "nothing: fresh weights", *[DASH] * (len(STARTS) - 2)]
        if row["by"] is None
        else [
            row["method"],
            row["by"],
            row["data"],
            count(row),
            str(row["epochs"]),
            number(row["lr"]),
            percent(row["test"]["mean"]),
            interval(row["test"]),
            compute(row["train_macs"]),
            duration(row["train_seconds"]),
        ]
        for row in summary["starts"]
    ]


def compared_table(summary: Row) -> Table:
    """A row for every method at every size, and of the means over all sizes, paired by seed."""
    return COMPARED, [
        [
            one["method"],
            "all, mean" if one["size"] == ALL else str(one["size"]),
            one["against"],
            *difference_cells(one),
        ]
        for one in summary["comparisons"]
    ]


def equal_table(summary: Row) -> Table:
    """MACs at equal mAP: over all mAP that both reach, and at that of each of the baseline's sizes
    that the other reaches."""
    rows = []
    for one in summary["equal"]:
        found, both = one["found"], (one["method"], one["against"])
        if found is None:
            rows.append([*both, "-", count(one), DASH, DASH, DASH, "not known (see the notes)"])
            continue
        low, high = found["overlap"]
        over = f"{percent(low)} to {percent(high)}"
        rows.append(
            [*both, "all that both reach", count(one), over, DASH, DASH, found["mean"]["said"]]
        )
        rows += [
            [
                *both,
                f"{one['against']} at {saving['resolution']}",
                count(one),
                percent(saving["level"]),
                format_macs(saving["baseline_macs"]),
                format_macs(saving["macs"]),
                saving["fewer"]["said"],
            ]
            for saving in found["savings"]
        ]
    return EQUAL, rows


def tuning_table(summary: Row) -> Table:
    """A row for all that was tuned."""
    return TUNED, [
        [one["method"], _of(one), *rates_tried(one)] for one in summary["tuning"] if one["rates"]
    ]


def _of(one: Row) -> str:
    return "pre-training" if one["size"] is None else f"detector at {one['size']}"


def _how_tuned(summary: Row) -> str:
    if any(one["rates"] for one in summary["tuning"] if one["size"] is not None):
        return (
            "Learning rates of detectors were chosen on validation mAP, for every method at every "
            "size alike, by runs with other seeds, pre-training included."
        )
    return "Learning rates of detectors are not tuned: all have the one that was given."


def notes(summary: Row) -> list[str]:
    """What a reader of the tables must know, a sentence or two each."""
    style = next((row["style"] for row in summary["rows"] if row["style"]), "coco")
    counted = "AP at IoU 0.5" if style == "voc" else "AP at IoU 0.50 to 0.95"
    found = [
        f"mAP: {counted} on the test part, mean over n seeds with Student's 95 % interval. A "
        "detector with seed s begins with the pre-training with seed s. All pre-trainings have "
        "equal epochs, not equal compute; so have all detectors.",
        "Differences are paired by seed (two-sided paired t-test). Holm corrects over methods and "
        "sizes; over methods for the means of each seed over all sizes.",
        _how_tuned(summary),
        "Fewer MACs: between two curves of mAP over the logarithm of MACs, straight between sizes, "
        "nothing extrapolated; a negative number is so many more. In brackets a 95 % interval of "
        "the bootstrap over seeds; ? is a bound outside of what was measured.",
    ]
    for one in summary["equal"]:
        if one["unknown"]:
            found.append(f"{one['method']} against {one['against']}: {one['unknown']}.")
        for note in (one["found"] or {}).get("notes", ()):
            found.append(f"{one['method']} against {one['against']}: {note}.")
    if not summary["final"]:
        found.append("Not finished: rows whose n is below what is planned are not final.")
    found += [
        f"{one['method']}, {_of(one)}: {one['said']}." for one in summary["tuning"] if one["said"]
    ]
    return [*found, *cell_notes(summary)]


def lead(summary: Row) -> str:
    """What the study is of, in a line."""
    sizes = ", ".join(map(str, summary["sizes"]))
    return (
        f"Detectors on {summary['target']} at {sizes} pixels. Data: {summary['data']}. "
        f"Code: {summary['code']}."
    )


def markdown(summary: Row, level: int = 1) -> str:
    """The whole study as Markdown, under a heading of that level."""
    head, inner = "#" * level, "#" * (level + 1)
    parts = [f"{head} {summary['study']}", f"**Question:** {summary['question']}", lead(summary)]
    sections = {
        "MACs at equal mAP": markdown_table(equal_table(summary), 3),
        "Detectors": markdown_table(rows_table(summary), 1),
        "Differences": markdown_table(compared_table(summary), 3),
        "Pre-training": markdown_table(starts_table(summary), 3),
        "Learning rates": markdown_table(tuning_table(summary), 2),
        "Notes": "\n".join(f"- {note}" for note in notes(summary)),
    }
    for title, content in sections.items():
        parts += [f"{inner} {title}", content]
    return "\n\n".join([*parts, f"**Answer:** {summary['answer']}"]) + "\n"
