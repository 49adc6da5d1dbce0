"""How a study's numbers are said: percent, points, intervals, compute, durations, Markdown tables.

Accuracies are percent, differences percentage points. What is not known is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.search import format_macs

Row = Mapping[str, Any]
Table = tuple[tuple[str, ...], list[list[str]]]
DASH = "-"


def difference_cells(one: Row) -> list[str]:
    """n, the paired difference, its interval, p, p after Holm, whether it is final."""
    return [
        count(one),
        one.get("unknown") or points(one["difference"]),
        interval(one, signed=True),
        probability(one["p"]),
        probability(one["holm"]),
        "yes" if one["final"] else "no",
    ]


def count(row: Row) -> str:
    """How many runs, and of how many that are to be."""
    return str(row["n"]) if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f}"


def points(value: float | None) -> str:
    """Percentage points, with their sign."""
    return DASH if value is None else f"{100 * value:+.2f}"


def interval(row: Row, signed: bool = False) -> str:
    if row["low"] is None:
        return DASH
    say = points if signed else percent
    return f"{say(row['low'])} to {say(row['high'])}"


def with_interval(row: Row) -> str:
    """A difference in one cell."""
    spread = "" if row["low"] is None else f" ({interval(row, signed=True)})"
    return points(row["difference"]) + spread


def probability(value: float | None) -> str:
    if value is None:
        return DASH
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def number(value: float | None) -> str:
    return DASH if value is None else f"{value:g}"


def compute(macs: float | None) -> str:
    """Training MACs: `938G`, `1.22T`."""
    if macs is None:
        return DASH
    return f"{macs / 1e12:.3g}T" if macs >= 1e12 else format_macs(round(macs))


def duration(seconds: float | None) -> str:
    """`45 s`, `12.5 min`, `3.2 h`."""
    if seconds is None:
        return DASH
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def markdown_table(table: Table, left: int) -> str:
    """A table whose first `left` columns are words, the others numbers."""
    head, rows = table
    if not rows:
        return "Nothing yet."
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (head, rule, *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
