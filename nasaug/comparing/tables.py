"""A study's tables, as text and as Markdown, made from its summary and nothing else.

Accuracies are percent, differences percentage points. What is not known is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
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
    points,
    probability,
    with_interval,
)
from nasaug.comparing.unpaired import unpaired_comparisons

Row = Mapping[str, Any]
EQUAL = {"epochs": "equal epochs", "macs": "equal MACs", "time": "equal time"}
ARM_COLUMNS = (
    "target", "method", "epochs", "rate", "n", "test top-1 (%)", "sd", "95 % interval",
    "validation (%)", "train (%)", "training MACs", "time", "baseline's at", "MACs", "parameters",
)  # fmt: skip
COMPARED_COLUMNS = (
    "target", "method", "epochs", "against", "at", "its epochs", "n", "difference (points)",
    "95 % interval", "p", "p (Holm)", "final",
)  # fmt: skip
UNPAIRED_COLUMNS = (
    "target", "method", "epochs", "against", "at", "its epochs", "runs", "difference (points)",
    "95 % interval", "p", "p (Holm)", "on training images",
)  # fmt: skip
# What time is, by a summary's `time`; one of an older release does not say.
TIME = {
    "seconds": "seconds as measured while the cells ran side by side",
    "cpu_seconds": "CPU seconds of one thread",
}
MAP_NOTE = "Percentage points with 95 % intervals, and how the baseline of that length fits."
# An arm is unsteady by that many medians of the standard deviations of arms of enough runs.
UNSTEADY, LEAST_RUNS, LEAST_ARMS = 3.0, 3, 3
TUNING_COLUMNS = ("target", "method", "epochs", "validation top-1 (%) by learning rate", "chosen")


def arms_table(summary: Row) -> Table:
    """A row for every method on every target, and for every longer baseline."""
    return ARM_COLUMNS, [
        [
            arm["target"],
            arm_name(arm),
            str(arm["epochs"]),
            number(arm["lr"]),
            count(arm),
            percent(arm["test"]["mean"]),
            percent(arm["test"]["sd"]),
            interval(arm["test"]),
            percent(arm["validation"]["mean"]),
            percent(arm["train"]["mean"]),
            compute(arm["train_macs"]),
            duration(arm[time_key(summary)]),
            reached(arm),
            *(DASH if arm[key] is None else f"{arm[key]:,}" for key in ("macs", "params")),
        ]
        for arm in summary["arms"]
    ]


def compared_table(summary: Row) -> Table:
    """A row for every comparison, and for those pooled over all targets of a length."""
    return COMPARED_COLUMNS, [
        [
            "all, pooled" if one["target"] == "all" else one["target"],
            one["method"],
            str(one["epochs"]),
            one["against"],
            EQUAL[one["equal"]],
            DASH if one["against_epochs"] is None else str(one["against_epochs"]),
            *difference_cells(one),
        ]
        for one in summary["comparisons"]
    ]


def unpaired_table(summary: Row) -> Table:
    """A row for every comparison on one target, by all runs of both sides."""
    return UNPAIRED_COLUMNS, [
        [
            one["target"],
            one["method"],
            str(one["epochs"]),
            one["against"],
            EQUAL[one["equal"]],
            str(one["against_epochs"]),
            *unpaired_cells(one),
            probability(one["p"]),
            probability(one["holm"]),
            with_interval(one["train"]),
        ]
        for one in unpaired_comparisons(summary)
    ]


def unpaired_cells(one: Row) -> list[str]:
    """How many runs each side has, the difference, its interval."""
    runs = f"{one['n']} and {one['against_n']}"
    return [runs, points(one["difference"]), interval(one, signed=True)]


def map_tables(summary: Row) -> list[tuple[str, Table]]:
    """Every map with its title: a row for every target, a column for every length."""
    return [
        (
            f"{one['method']} against {one['against']}, {EQUAL[one['equal']]}",
            (
                ("target", "parameters", *(f"{epochs} epochs" for epochs in one["lengths"])),
                [_map_row(row, one["lengths"]) for row in one["rows"]],
            ),
        )
        for one in summary["maps"]
    ]


def _map_row(row: Row, lengths: Iterable[int]) -> list[str]:
    cells = {cell["epochs"]: _map_cell(cell) for cell in row["cells"]}
    size = DASH if row["params"] is None else f"{row['params']:,}"
    return [row["target"], size, *(cells.get(epochs, DASH) for epochs in lengths)]


def _map_cell(cell: Row) -> str:
    if cell["n"] == 0:
        return cell["unknown"] or DASH
    fits = verdict(cell["baseline_fits"])
    said = f"; baseline {fits}" if fits else ""
    return f"{with_interval(cell)}, n = {count(cell)}{said}"


def verdict(diagnosis: Mapping[str, int]) -> str:
    """How runs fit: `under-fits`, or `under-fits in 2, undecided in 1`."""
    if len(diagnosis) == 1:
        return next(iter(diagnosis))
    often = sorted(diagnosis.items(), key=lambda one: -one[1])
    return ", ".join(f"{said} in {runs}" for said, runs in often)


def tuning_table(summary: Row) -> Table:
    """A row for every arm that was tuned."""
    return TUNING_COLUMNS, [
        [
            one["target"],
            one["method"],
            str(one["epochs"]),
            *rates_tried(one),
        ]
        for one in summary["tuning"]
        if one["rates"]
    ]


def rates_tried(one: Row) -> tuple[str, str]:
    """The rates with what they came to, and the chosen one."""
    tried = ", ".join(
        f"{rate['lr']:g}: {'diverged' if rate['diverged'] else percent(rate['validation'])}"
        for rate in one["rates"]
    )
    return tried, number(one["chosen"]) + (f" ({one['said']})" if one["said"] else "")


def arm_name(arm: Row) -> str:
    """A method; its longer training for compute's sake is told apart."""
    return f"{arm['method']}, longer" if arm["longer"] else str(arm["method"])


def time_key(summary: Row) -> str:
    """The key under which an arm has its training time, that which is equal at equal time."""
    return f"train_{_time(summary)}"


def _time(summary: Row) -> str:
    return str(summary.get("time", "seconds"))


def reached(arm: Row) -> str:
    if arm["n"] == 0:
        return DASH
    return "not reached" if arm["reaches"] is None else str(arm["reaches"])


def notes(summary: Row) -> list[str]:
    """What a reader of the tables must know, a sentence or two each."""
    warmup = f"{summary['warmup_epochs']:g} of warm-up"
    found = [
        "Test accuracy of the runs with the study's seeds, mean over n of them with Student's 95 % "
        "interval. The learning rate of every arm was chosen on validation images, by runs with "
        "other seeds, from one grid that grows while its edge is the best.",
        "Differences are paired by target and seed (two-sided paired t-test); Holm corrects for "
        "the methods that are compared on a target, at one length, at equal one thing.",
        "Not paired: by all runs of both sides, Welch's t-test, which is the sharper one where "
        "runs of one seed are no more alike than others. On training images: the same "
        "difference there; a method that is ahead there and not on the test images fits better and "
        "generalises worse.",
        f"Epochs come after {warmup}. At equal MACs and at equal time the other side is trained "
        "so much longer (or shorter) that it costs the same, or is the study's own length that "
        "costs as much within 5 %: forward MACs of all passes times images, or "
        f"{TIME[_time(summary)]}.",
        "Baseline's at: the first epoch, warm-up included, at which the mean validation "
        "accuracy is that with which the baseline of the same length ends.",
    ]
    if not summary["final"]:
        found.append("Not finished: rows whose n is below what is planned are not final.")
    found += [
        f"{one['target']}, {one['method']}, {one['final_epochs']} epochs: {one['said']}."
        for one in summary["tuning"]
        if one["said"]
    ]
    return [*found, *_unsteady(summary), *cell_notes(summary)]


def _unsteady(summary: Row) -> list[str]:
    """Arms whose runs differ so much more than the other arms' that some of them nearly failed: the
    rate that a tuning run chose does not suit them, and what beats them beats the rate."""
    known = [arm for arm in summary["arms"] if arm["n"] >= LEAST_RUNS]
    if len(known) < LEAST_ARMS:
        return []
    usual = median(arm["test"]["sd"] for arm in known)
    return [
        f"Doubtful: {arm['target']}, {arm_name(arm)}, {arm['epochs']} epochs, whose standard "
        f"deviation of {percent(arm['test']['sd'])} points is more than {UNSTEADY:g} times the "
        f"usual {percent(usual)}. Its rate, {number(arm['lr'])}, looked best in tuning and does "
        "not suit all seeds; differences from it say more of the rate than of the method."
        for arm in known
        if arm["test"]["sd"] > UNSTEADY * usual
    ]


def cell_notes(summary: Row) -> list[str]:
    """Which cells failed, and which code made them."""
    found = [f"Failed: {one['cell']} ({one['said']})." for one in summary["failed"]]
    for version, cells in summary.get("other_code", {}).items():
        found.append(f"Other code, {version}, finished {cells} of these cells: kept apart.")
    if summary.get("mixed_code"):
        versions = ", ".join(summary["mixed_code"])
        found.append(
            f"Cells of code {summary['code']} were gone on with by {versions}, on request."
        )
    return found


def markdown(summary: Row, level: int = 1) -> str:
    """The whole study as Markdown, under a heading of that level."""
    head, inner = "#" * level, "#" * (level + 1)
    parts = [f"{head} {summary['study']}", f"**Question:** {summary['question']}"]
    parts += [
        f"Data: {summary['data']}. Code: {summary['code']}.",
        f"{inner} Differences",
        markdown_table(compared_table(summary), 5),
        *_map_parts(summary, inner),
        f"{inner} Differences, runs not paired",
        markdown_table(unpaired_table(summary), 5),
        f"{inner} Accuracies",
        markdown_table(arms_table(summary), 2),
        f"{inner} Learning rates",
        markdown_table(tuning_table(summary), 2),
        f"{inner} Notes",
        "\n".join(f"- {note}" for note in notes(summary)),
        f"**Answer:** {summary['answer']}",
    ]
    return "\n\n".join(parts) + "\n"


def _map_parts(summary: Row, heading: str) -> list[str]:
    tables = map_tables(summary)
    parts = [part for title, table in tables for part in (f"{title}:", markdown_table(table, 1))]
    return [f"{heading} Map", MAP_NOTE, *parts] if parts else []
