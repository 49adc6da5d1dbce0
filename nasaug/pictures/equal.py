"""Accuracy against MACs for several methods, and how far apart they are at equal accuracy.

Like the other plots it takes plain numbers, so that it serves mAP and top-1 alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from nasaug.pictures.canvas import BLUE, GREEN, INK, ORANGE, PAPER, RED, plain, sheet, style
from nasaug.pictures.plots import HEIGHT, WIDTH, Quantity

STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"))
BAND = "#EEF2F6"
# Where ticks may stand within each power of ten: curves seldom span one.
TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


@dataclass(frozen=True)
class Line:
    """A method: its points, cheapest first, with standard errors (None: unknown) and words."""

    name: str
    costs: Sequence[float]
    values: Sequence[float]
    errors: Sequence[float | None]
    words: Sequence[str]


@dataclass(frozen=True)
class Gap:
    """At `value` one method costs `dear`, the other `cheap`; `words` stand at the arrow."""

    value: float
    dear: float
    cheap: float
    words: str


def equal_figure(
    lines: Sequence[Line],
    cost: Quantity,
    value: Quantity,
    gaps: Sequence[Gap] = (),
    overlap: tuple[float, float] | None = None,
) -> Figure:
    """The lines over a logarithmic scale of costs, the gaps as arrows from dear to cheap.

    `overlap`, the values that both of two lines reach, is shaded. The lines are drawn as they are
    compared: straight between the points, over the logarithm of the costs.

    Raises: ValueError for a line whose costs, values, errors and words differ in number, or with
        costs that are not positive.
    """
    for line in lines:
        _check(line)
    with style():
        figure = sheet(WIDTH, HEIGHT)
        axes = figure.subplots()
        figure.set_layout_engine("constrained")
        axes.grid(color="#E6EAEE", linewidth=0.7)
        axes.set_axisbelow(True)
        if overlap is not None:
            axes.axhspan(
                *overlap, facecolor=BAND, edgecolor="none", zorder=0.5, label="reached by both"
            )
        for line, (colour, marker) in zip(lines, cycle(STYLES), strict=False):
            _draw(axes, line, colour, marker)
        for gap in gaps:
            _arrow(axes, gap)
        _scales(axes, cost, value)
        axes.legend(frameon=False, loc="lower right", fontsize=8)
    return figure


def _check(line: Line) -> None:
    counts = [len(each) for each in (line.costs, line.values, line.errors, line.words)]
    if len(set(counts)) > 1:
        raise ValueError(
            f"every point of {line.name} needs a cost, a value, an error and words, but there are "
            f"{', '.join(map(str, counts))}"
        )
    if any(each <= 0 for each in line.costs):
        raise ValueError(
            f"costs must be positive for a logarithmic scale, but {line.name} has "
            f"{min(line.costs):,}"
        )


def _draw(axes: Axes, line: Line, colour: str, marker: str) -> None:
    axes.errorbar(
        line.costs,
        line.values,
        # Without an error there is no bar; 0 would say that it is known exactly.
        yerr=[float("nan") if error is None else error for error in line.errors],
        color=colour,
        marker=marker,
        markersize=5,
        capsize=3,
        linewidth=1.6,
        label=plain(line.name),
    )
    for cost, value, words in zip(line.costs, line.values, line.words, strict=True):
        axes.annotate(
            plain(words),
            (cost, value),
            xytext=(5, -11),
            textcoords="offset points",
            fontsize=7,
            color=colour,
        )


def _arrow(axes: Axes, gap: Gap) -> None:
    arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (gap.cheap, gap.value), xytext=(gap.dear, gap.value), arrowprops=arrow)
    axes.annotate(
        plain(gap.words),
        ((gap.cheap * gap.dear) ** 0.5, gap.value),
        xytext=(0, -6),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=8,
        color=INK,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _scales(axes: Axes, cost: Quantity, value: Quantity) -> None:
    across, up = cost.tick or cost.say, value.tick or value.say
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: across(number)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: up(number)))
    axes.set_xlabel(cost.name)
    axes.set_ylabel(value.name)
