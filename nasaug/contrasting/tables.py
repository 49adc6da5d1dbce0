"""A contrast's tables, as text and as Markdown, made from its summary and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    percent,
)
from nasaug.comparing.tables import cell_notes, rates_tried
from nasaug.search import format_macs

Row = Mapping[str, Any]
COLUMNS = (
    "contestant", "n", "test top-1 (%)", "95 % interval", "MACs", "parameters", "memory (KB)",
    "epochs", "supernet", "judging", "training", "total", "unused", "time",
)  # fmt: skip
COMPARED = (
    "contestant", "against", "n", "difference (points)", "95 % interval", "p", "p (Holm)", "final",
)  # fmt: skip
TUNED = ("of", "validation top-1 (%) by learning rate", "chosen")


def rows_table(summary: Row) -> Table:
    """A row for every contestant: how good, how large, and on what its compute went."""
    return COLUMNS, [
        [
            row["contestant"],
            count(row),
            percent(row["test"]["mean"]),
            interval(row["test"]),
            _spread(row["macs"], format_macs),
            _spread(row["params"], "{:,}".format),
            _spread(row["memory"], lambda given: f"{given / 1024:.1f}"),
            DASH if row["epochs"] is None else f"{row['epochs']:.0f}",
            *(compute(row["spent"][key]) for key in ("supernet", "judging", "training", "total")),
            _unused(row["spent"]),
            duration(row["seconds"]),
        ]
        for row in summary["rows"]
    ]


def _spread(values: Sequence[int], say: Any) -> str:
    """One number, or the least and the most of several."""
    if not values:
        return DASH
    low, high = say(min(values)), say(max(values))
    return str(low if low == high else f"{low} to {high}")


def _unused(spent: Row) -> str:
    if not spent["total"]:
        return DASH
    return f"{compute(spent['unused'])} ({100 * spent['unused'] / spent['total']:.0f} %)"


def compared_table(summary: Row) -> Table:
    """A row for every comparison, paired by seed."""
    return COMPARED, [
        [
            one["contestant"],
            one["against"],
            *difference_cells(one),
        ]
        for one in summary["comparisons"]
    ]


def tuning_table(summary: Row) -> Table:
    """A row for all that was tuned: both kinds of searches, and all trainings."""
    return TUNED, [[one["of"], *rates_tried(one)] for one in summary["tuning"] if one["rates"]]


def notes(summary: Row) -> list[str]:
    """What a reader of the tables must know, a sentence or two each."""
    found = [
        f"Every contestant spends {compute(summary['compute'])} MACs x images (forward MACs of all "
        "training passes, and of judging candidates), its search included, up to whole epochs; "
        f"where a training follows, a search takes {100 * summary['search_share']:.0f} %.",
        "Unused: the part on weights that the result does not have, that is sub-networks and "
        "helpers beyond what they share with it, all of a supernet whose weights nobody inherits, "
        "and all that judging candidates takes.",
        "Test accuracy is the mean over n seeds with Student's 95 % interval; every seed has a "
        "search of its own, so that the networks found differ. Differences are paired by seed "
        "(two-sided paired t-test, Holm over all of them).",
        "Learning rates of searches and trainings were chosen on validation images, by runs with "
        "other seeds, from one grid that grows while its edge is the best.",
        "Memory: the peak of int8 activations. Time: of the trainings, supernet included, as "
        "measured while runs went side by side.",
    ]
    if not summary["final"]:
        found.append("Not finished: rows whose n is below what is planned are not final.")
    found += [f"{one['of']}: {one['said']}." for one in summary["tuning"] if one["said"]]
    return [*found, *cell_notes(summary)]


def lead(summary: Row) -> str:
    """What the contrast is of, in a line."""
    return (
        f"Target: {summary['target']} ({format_macs(summary['target_macs'])} MACs). Searched down: "
        f"{summary['space']} within {format_macs(summary['budget_macs'])} MACs. "
        f"Data: {summary['data']}. Code: {summary['code']}."
    )


def markdown(summary: Row, level: int = 1) -> str:
    """The whole contrast as Markdown, under a heading of that level."""
    head, inner = "#" * level, "#" * (level + 1)
    names = "\n".join(f"- {row['contestant']}: {row['says']}" for row in summary["rows"])
    parts = [f"{head} {summary['study']}", f"**Question:** {summary['question']}", lead(summary)]
    parts += [
        f"{inner} Contestants",
        names,
        markdown_table(rows_table(summary), 1),
        f"{inner} Differences",
        markdown_table(compared_table(summary), 2),
        f"{inner} Learning rates",
        markdown_table(tuning_table(summary), 2),
        f"{inner} Notes",
        "\n".join(f"- {note}" for note in notes(summary)),
        f"**Answer:** {summary['answer']}",
    ]
    return "\n\n".join(parts) + "\n"
