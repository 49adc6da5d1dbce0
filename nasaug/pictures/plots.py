"""The plots of a finished or running search: judgements over costs, history, importances, losses.

They take plain numbers, so that they say nothing about where a study lies or how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from nasaug.pictures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    plain,
    sheet,
    style,
)

Say = Callable[[float], str]
WIDTH, HEIGHT = 7.4, 4.2
# A limit further away than this, in widths of the data, is told in words instead of drawn.
NEAR = 1.5
MOST_BARS = 16
COLOURS = (BLUE, SKY, ORANGE, RED)


@dataclass(frozen=True)
class Quantity:
    """What an axis shows: its name, how a number of it is written, and how on a scale."""

    name: str
    say: Say
    tick: Say | None = None


@dataclass(frozen=True)
class Point:
    """A judged trial: its number, its cost, its judgement (an interim one when `pruned`)."""

    number: int
    cost: float
    value: float
    pruned: bool = False


def cost_figure(
    points: Sequence[Point],
    cost: Quantity,
    value: Quantity,
    bounds: tuple[float | None, float | None] = (None, None),
    chosen: int | None = None,
    smaller_is_better: bool = True,
) -> Figure:
    """Judgements over a cost, the best for their cost joined, what the limits forbid shaded.

    `bounds` are the least and the largest cost allowed; `chosen` is the number of the trial that
    won. With `smaller_is_better` false the second quantity is a judgement too: no cost.
    """
    with style():
        figure, axes = _axes(cost, value)
        done = [point for point in points if not point.pruned]
        pruned = [point for point in points if point.pruned]
        _dots(axes, done, BLUE, "o", "judged")
        _dots(axes, pruned, GREY, "x", "dropped early, interim judgement")
        front = pareto_front(done, smaller_is_better)
        best_for = "best for its cost" if smaller_is_better else "not bettered in both"
        axes.plot(
            [point.cost for point in front],
            [point.value for point in front],
            color=ORANGE,
            marker="o",
            markersize=5,
            # Between two costs nothing better than at the lower one is known.
            drawstyle="steps-post" if smaller_is_better else "default",
            label=best_for,
            zorder=3,
        )
        winner = [point for point in done if point.number == chosen]
        if winner:
            axes.plot(
                winner[0].cost, winner[0].value, "*", color=RED, ms=15, label="the winner", zorder=4
            )
        _shade(axes, [point.cost for point in points], bounds, cost.say)
        _legend(axes)
    return figure


def pareto_front(points: Sequence[Point], smaller_is_better: bool = True) -> list[Point]:
    """Those that no other betters in both, cheapest first; of equals the first."""
    sign = 1 if smaller_is_better else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (sign * p.cost, -p.value, p.number)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def history_figure(points: Sequence[Point], value: Quantity) -> Figure:
    """Judgements in the order of the trials, and the best so far. A point's cost plays no part."""
    with style():
        figure, axes = _axes(Quantity("trial", "{:.0f}".format), value)
        by_number = sorted(points, key=lambda point: point.number)
        shown = [Point(p.number, p.number, p.value, p.pruned) for p in by_number]
        done = [point for point in shown if not point.pruned]
        _dots(axes, done, BLUE, "o", "judged")
        _dots(axes, [point for point in shown if point.pruned], GREY, "x", "dropped early")
        best: list[float] = []
        for point in done:
            best.append(max(point.value, best[-1] if best else point.value))
        axes.step(
            [point.number for point in done],
            best,
            where="post",
            color=RED,
            label="best so far",
            linewidth=1.8,
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)
    return figure


def importance_figure(
    shares: Mapping[str, float], chance: Mapping[str, float], value: Quantity
) -> Figure:
    """Bars for the decisions that explain most of a judgement's variance.

    `shares` are fractions of the variance; `chance` what shuffled judgements would give.
    """
    names = sorted(shares, key=lambda name: -shares[name])[:MOST_BARS]
    with style():
        figure = sheet(WIDTH, 0.75 + 0.24 * len(names))
        axes = figure.subplots()
        places = range(len(names))
        axes.barh(places, [shares[name] for name in names], 0.66, color=SKY)
        axes.plot([chance[name] for name in names], places, "|", color=INK, ms=11, mew=1.6)
        axes.set_yticks(places, [plain(name) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"share of the variance of {value.name} (stroke: what chance gives)")
        figure.set_layout_engine("constrained")
    return figure


def supernet_figure(
    epochs: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    top1: Sequence[float] = (),
    whose: str = "the target",
) -> Figure:
    """The supernet's training: its losses by name and the top-1 inside it of the member `whose`.

    One number an epoch; `top1` (fractions) may be empty.
    """
    with style():
        figure = sheet(WIDTH, 3.2)
        left = figure.subplots()
        figure.set_layout_engine("constrained")
        left.grid(color="#E6EAEE", linewidth=0.7)
        for (name, loss), colour in zip(losses.items(), cycle(COLOURS), strict=False):
            left.plot(epochs, loss, "o-", color=colour, label=plain(name))
        left.set_xlabel("epoch")
        left.set_ylabel("training loss", color=BLUE)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(losses) > 1:
            left.legend(frameon=False, fontsize=8)
        if top1:
            right = left.twinx()
            right.spines["right"].set_visible(True)
            right.plot(epochs, top1, "s--", color=GREEN)
            right.set_ylabel(f"{whose}'s top-1 inside it", color=GREEN)
            right.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _axes(horizontal: Quantity, vertical: Quantity) -> tuple[Figure, Axes]:
    figure = sheet(WIDTH, HEIGHT)
    axes = figure.subplots()
    figure.set_layout_engine("constrained")
    axes.grid(color="#E6EAEE", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(horizontal.name)
    axes.set_ylabel(vertical.name)
    axes.xaxis.set_major_formatter(_ticks(horizontal))
    axes.yaxis.set_major_formatter(_ticks(vertical))
    return figure, axes


def _ticks(quantity: Quantity) -> FuncFormatter:
    tick = quantity.tick or quantity.say
    return FuncFormatter(lambda value, _: tick(value))


def _dots(axes: Axes, points: Sequence[Point], colour: str, marker: str, label: str) -> None:
    if points:
        axes.scatter(
            [point.cost for point in points],
            [point.value for point in points],
            s=22,
            c=colour,
            marker=marker,
            alpha=0.7,
            label=label,
            zorder=2,
        )


def _shade(
    axes: Axes, costs: Sequence[float], bounds: tuple[float | None, float | None], say: Say
) -> None:
    """Shade what lies beyond the bounds, where they are near enough to be seen."""
    low, high = bounds
    if not costs:
        return
    room = max(max(costs) - min(costs), 0.05 * max(map(abs, costs)), 1e-9)
    left, right = min(costs) - 0.08 * room, max(costs) + 0.08 * room
    far = []
    if high is not None:
        if high <= max(costs) + NEAR * room:
            right = high + 0.12 * room
            _forbid(axes, high, right, f"over {say(high)}")
        else:
            far.append(f"limit {say(high)}: further right")
    if low is not None:
        if low >= min(costs) - NEAR * room:
            left = low - 0.12 * room
            _forbid(axes, left, low, f"under {say(low)}")
        else:
            far.append(f"least {say(low)}: further left")
    axes.set_xlim(left, right)
    if far:
        axes.set_title("; ".join(far), fontsize=8, color=GREY, loc="right")


def _forbid(axes: Axes, start: float, end: float, text: str) -> None:
    axes.axvspan(start, end, facecolor=RED, alpha=0.13, hatch="///", edgecolor=RED, linewidth=0)
    axes.text(
        (start + end) / 2,
        0.5,
        text,
        transform=axes.get_xaxis_transform(),
        rotation=90,
        ha="center",
        va="center",
        fontsize=8,
        color=RED,
    )


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=8
        )
