"""A study's plots: accuracies with intervals, curves, accuracy against compute, rates tried.

One target a figure. They take parts of the study's summary, so that they can be drawn again from
summary.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from nasaug.comparing.formats import compute
from nasaug.comparing.tables import arm_name
from nasaug.pictures.canvas import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, plain, sheet, style

Row = Mapping[str, Any]
WIDTH = 7.4
PURPLE = "#CC79A7"
COLOURS = (INK, BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY)
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
GRID = "#E6EAEE"


def look(methods: Sequence[str], method: str) -> tuple[str, str]:
    """A method's colour and marker, the same in all figures; no two of 64 are alike."""
    index = methods.index(method)
    turn = index // len(COLOURS)
    return COLOURS[index % len(COLOURS)], MARKERS[(index + turn) % len(MARKERS)]


def interval_figure(arms: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Test accuracy of every arm: the mean, its interval, and the runs' number."""
    shown = [arm for arm in arms if arm["test"]["mean"] is not None]
    with style():
        figure, axes = sheet_with_axes(1.0 + 0.3 * len(shown))
        axes.grid(axis="y", visible=False)
        for place, arm in enumerate(shown):
            test = arm["test"]
            colour, marker = look(methods, arm["method"])
            if test["low"] is not None:
                axes.plot([test["low"], test["high"]], [place, place], color=colour, linewidth=1.8)
            face = "white" if arm["longer"] else colour
            axes.plot(test["mean"], place, marker, color=colour, mfc=face, ms=7)
        lengths = {arm["epochs"] for arm in shown if not arm["longer"]}
        several = len(lengths) > 1
        names = [f"{_full_name(arm, several)} (n = {arm['n']})" for arm in shown]
        axes.set_yticks(range(len(shown)), [plain(name) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(1, len(shown)))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("test top-1, mean and 95 % interval")
    return figure


def curves_figure(arms: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Mean validation (solid) and training (dashed) accuracy over the epochs."""
    with style():
        figure, axes = sheet_with_axes(4.4)
        several = len({arm["epochs"] for arm in arms if not arm["longer"]}) > 1
        for arm in arms:
            colour, _ = look(methods, arm["method"])
            width = 1.0 if arm["longer"] else 1.8
            validation, train = arm["curves"]["validation"], arm["curves"]["train"]
            if not validation["epochs"]:
                continue
            label = plain(_full_name(arm, several))
            axes.plot(validation["epochs"], validation["top1"], color=colour, lw=width, label=label)
            axes.plot(train["epochs"], train["top1"], "--", color=colour, lw=0.8 * width)
        _from_the_middle(axes, arms)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("epoch, warm-up included (solid: validation; dashed: training images)")
        axes.set_ylabel("top-1")
        put_legend(axes)
    return figure


def _from_the_middle(axes: Axes, arms: Iterable[Row]) -> None:
    """Leave out the first steep rise, which hides how curves differ at the end."""
    curves = [arm["curves"][part]["top1"] for arm in arms for part in ("validation", "train")]
    late = [value for curve in curves for value in curve[len(curve) // 4 :]]
    if late and max(late) > min(late):
        room = 0.05 * (max(late) - min(late))
        axes.set_ylim(min(late) - room, max(late) + room)


def compute_figure(arms: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Test accuracy against training MACs: a line for every method through its lengths, those of
    the longer baselines too (hollow), with 95 % intervals."""
    with style():
        figure, axes = sheet_with_axes(4.2)
        shown = [a for a in arms if a["train_macs"] and a["test"]["mean"] is not None]
        for method in methods:
            own = sorted((a for a in shown if a["method"] == method), key=lambda a: a["train_macs"])
            if not own:
                continue
            colour, marker = look(methods, method)
            costs = [arm["train_macs"] for arm in own]
            means = [arm["test"]["mean"] for arm in own]
            axes.errorbar(
                costs,
                means,
                yerr=[[_half(arm) for arm in own]] * 2,
                marker=marker,
                color=colour,
                linewidth=1.0,
                elinewidth=1.2,
                capsize=2.5,
                label=plain(method),
            )
            for arm in own:
                if arm["longer"]:
                    at = arm["train_macs"], arm["test"]["mean"]
                    axes.plot(*at, marker, color=colour, mfc="white", zorder=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compute(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("training compute: forward MACs of all passes x images")
        axes.set_ylabel("test top-1, 95 % interval")
        put_legend(axes)
    return figure


def _half(arm: Row) -> float:
    """Half of the interval; nothing where a single run has none."""
    test = arm["test"]
    return 0.0 if test["high"] is None else float(test["high"] - test["mean"])


def rates_figure(tuning: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Validation accuracy at every learning rate tried, the chosen one ringed; a line style for
    every length."""
    lengths = sorted({one["final_epochs"] for one in tuning})
    with style():
        figure, axes = sheet_with_axes(4.2)
        for one in tuning:
            colour, marker = look(methods, one["method"])
            known = [rate for rate in one["rates"] if rate["validation"] is not None]
            if not known:
                continue
            index = lengths.index(one["final_epochs"])
            name = f"{one['method']}, {one['final_epochs']} epochs"
            axes.plot(
                [rate["lr"] for rate in known],
                [rate["validation"] for rate in known],
                LINES[index % len(LINES)],
                marker=marker,
                color=colour,
                linewidth=1.2,
                label=plain(name if len(lengths) > 1 else one["method"]),
            )
            best = [rate for rate in known if rate["lr"] == one["chosen"]]
            for rate in best:
                axes.plot(rate["lr"], rate["validation"], "o", color=colour, mfc="none", ms=12)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("learning rate (ringed: chosen)")
        axes.set_ylabel("validation top-1")
        put_legend(axes)
    return figure


def _full_name(arm: Row, several: bool) -> str:
    """With its length, where it is not the only one."""
    told = several or arm["longer"]
    return f"{arm_name(arm)}: {arm['epochs']} epochs" if told else arm_name(arm)


def sheet_with_axes(height: float) -> tuple[Figure, Axes]:
    figure = sheet(WIDTH, height)
    axes = figure.subplots()
    figure.set_layout_engine("constrained")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def put_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=8
        )
