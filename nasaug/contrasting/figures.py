"""A contrast's plots: accuracy against compute, and on what the compute went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from nasaug.comparing.figures import look, put_legend, sheet_with_axes
from nasaug.comparing.formats import compute
from nasaug.pictures.canvas import BLUE, GREEN, GREY, INK, plain, style

Row = Mapping[str, Any]
# Colours, and what is unused of each.
PARTS = {
    "supernet": (BLUE, "unused_supernet"),
    "judging": (GREEN, "judging"),
    "training": (GREY, "unused_training"),
}

HATCHED: dict[str, Any] = {"fill": False, "hatch": "////", "edgecolor": INK, "linewidth": 0.5}


def course_figure(rows: Sequence[Row]) -> Figure:
    """Mean validation accuracy over the compute spent so far: a training that follows a search
    begins where this ended. Crosses: test accuracy at the end, with its interval."""
    names = [row["contestant"] for row in rows]
    with style():
        figure, axes = sheet_with_axes(4.6)
        for row in rows:
            if not row["n"]:
                continue
            colour, marker = look(names, row["contestant"])
            course, test = row["course"], row["test"]
            single = len(course["macs"]) == 1
            axes.plot(
                course["macs"],
                course["top1"],
                marker if single else "-",
                color=colour,
                linewidth=1.6,
                label=plain(row["contestant"]),
            )
            half = 0.0 if test["high"] is None else test["high"] - test["mean"]
            end = row["spent"]["total"]
            axes.errorbar(end, test["mean"], yerr=half, fmt="x", color=colour, capsize=2.5, ms=6)
        _from_the_middle(axes, rows)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compute(value)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("MACs x images spent, search included (crosses: test accuracy)")
        axes.set_ylabel("validation top-1")
        put_legend(axes)
    return figure


def _from_the_middle(axes: Any, rows: Sequence[Row]) -> None:
    """Leave out the first steep rise, which hides how they end."""
    late = [v for row in rows for v in row["course"]["top1"][len(row["course"]["top1"]) // 3 :]]
    late += [row["test"]["mean"] for row in rows if row["n"]]
    if late and max(late) > min(late):
        room = 0.08 * (max(late) - min(late))
        axes.set_ylim(min(late) - room, max(late) + room)


def spending_figure(rows: Sequence[Row]) -> Figure:
    """A bar for every contestant: supernet, judging, training; hatched: what is unused of each."""
    shown = [row for row in rows if row["n"]]
    with style():
        figure, axes = sheet_with_axes(1.2 + 0.36 * len(shown))
        axes.grid(axis="y", visible=False)
        for place, row in enumerate(shown):
            spent, left = row["spent"], 0.0
            for part, (colour, unused) in PARTS.items():
                # Every name once in the legend.
                name, also = (part, "unused" if left == 0 else None) if place == 0 else (None, None)
                axes.barh(place, spent[part], 0.6, left, color=colour, label=name)
                axes.barh(place, spent[unused], 0.6, left, label=also, **HATCHED)
                left += spent[part]
        axes.set_yticks(range(len(shown)), [plain(row["contestant"]) for row in shown])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compute(value)))
        axes.set_xlabel("MACs x images")
        put_legend(axes)
    return figure
