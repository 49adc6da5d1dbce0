"""The picture of a network row by row, over the target that it contains or by itself.

Three bars a row: the channels after it, the channels inside it (of a block with an expansion) and
its MACs. The dark part of a bar is the target's share, the light part what was added; a row that
the target lacks is green. By itself a network is all dark. Bars grow with the square root of their
number, so that the first rows, which are narrow, can be seen beside the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nasaug.pictures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    KINDS,
    ORANGE,
    STRIPE,
    plain,
    save_picture,
    sheet,
    style,
)
from nasaug.search import format_macs
from nasaug.supernet import Architecture, Skip, embed, macs, params, row_costs

# Inches. The columns begin at these places; a bar is at most BAR long, its number stands behind it.
ROW, TOP, BOTTOM, WIDTH = 0.36, 1.2, 0.3, 11.3
SIZE, KERNEL, OUT, INNER, COST = 2.1, 2.95, 3.85, 6.2, 8.55
BAR, THICK = 1.25, 0.2

Say = Callable[[int], str]


def draw_architecture(target: Architecture | None, winner: Architecture, path: Path) -> None:
    """Write the picture of `winner` over `target` (None: by itself) to `path` (.svg or .png).

    Raises: ValueError if `winner` does not contain `target`, or for another ending; OSError.
    """
    save_picture(architecture_figure(target, winner), path)


def architecture_figure(target: Architecture | None, winner: Architecture) -> Figure:
    """The picture of `winner` over `target`, or by itself where that is None.

    Raises: ValueError if it does not contain the target.
    """
    winner = winner.canonical()
    inside = winner if target is None else embed(target, winner)
    height = ROW * len(winner.rows)
    with style():
        figure = sheet(WIDTH, TOP + height + BOTTOM)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height + BOTTOM, -TOP)
        _head(axes, target, winner)
        _names(axes, inside, winner)
        mids = [[getattr(row, "mid", 0) for row in arch.rows] for arch in (inside, winner)]
        costs = [[cost.macs for cost in row_costs(arch)] for arch in (inside, winner)]
        _bars(axes, OUT, _outs(inside), _outs(winner), "{:,}".format)
        _bars(axes, INNER, mids[0], mids[1], "{:,}".format)
        _bars(axes, COST, costs[0], costs[1], format_macs)
    return figure


def _outs(arch: Architecture) -> list[int]:
    """The channels after every row; 0 for an absent row."""
    return [
        0 if isinstance(row, Skip) else row.out_channels(width)
        for row, width in zip(arch.rows, arch.widths_in, strict=True)
    ]


def _names(axes: Axes, inside: Architecture, winner: Architecture) -> None:
    sizes = zip(winner.sizes_in, (*winner.sizes_in[1:], 1), strict=True)
    rows = zip(inside.rows, winner.rows, winner.row_names, sizes, strict=True)
    for index, (own, row, name, (before, after)) in enumerate(rows):
        y = ROW * (index + 0.5)
        if index % 2 == 0:
            axes.axhspan(ROW * index, ROW * (index + 1), 0.1 / WIDTH, 1 - 0.1 / WIDTH, color=STRIPE)
        extra = isinstance(own, Skip)
        kind = KINDS.get(row.kind, row.kind)
        axes.text(0.2, y - 0.07, name, va="center", color=GREEN if extra else INK)
        kind = f"extra {kind}" if extra else kind
        axes.text(0.2, y + 0.085, kind, va="center", fontsize=7, color=GREY)
        size = f"{before}" if before == after else f"{before} → {after}"
        axes.text(SIZE, y, size, va="center", color=GREY)
        kernel, own_kernel = getattr(row, "kernel", None), getattr(own, "kernel", None)
        if kernel is not None:
            grown = not extra and kernel != own_kernel
            text = f"{own_kernel} → {kernel}" if grown else f"{kernel}"
            colour = GREEN if extra else INK if grown else GREY
            axes.text(KERNEL, y, text, va="center", color=colour, weight=_weight(grown))


def _weight(strong: bool) -> str:
    return "bold" if strong else "normal"


def _bars(axes: Axes, left: float, own: list[int], grown: list[int], say: Say) -> None:
    """A bar a row, the target's share dark; behind it the number, and what it was."""
    longest = math.sqrt(max(*grown, 1))
    for index, (before, after) in enumerate(zip(own, grown, strict=True)):
        if after == 0:
            continue
        y = ROW * (index + 0.5)
        long = BAR * math.sqrt(after) / longest
        axes.barh(y, long, THICK, left, color=ORANGE if before else GREEN, alpha=0.75)
        if before:
            axes.barh(y, BAR * math.sqrt(before) / longest, THICK, left, color=BLUE)
        text = say(after) if before in (0, after) else f"{say(before)} → {say(after)}"
        x = left + long + 0.07
        axes.text(x, y, text, va="center", fontsize=8, color=INK if after > before else GREY)


def _head(axes: Axes, target: Architecture | None, winner: Architecture) -> None:
    title, count, size = plain(winner.name), format_macs(macs(winner)), f"{params(winner):,}"
    parts: tuple[tuple[str, str], ...] = ()
    if target is not None:
        title = f"{title} over {plain(target.name)}"
        count = f"{format_macs(macs(target))} → {count}"
        size = f"{params(target):,} → {size}"
        parts = ((BLUE, "the target"), (ORANGE, "added to its rows"), (GREEN, "rows that it lacks"))
    axes.text(0.2, -0.95, title, fontsize=13, weight="bold", color=INK, va="center")
    at = f"at {winner.resolution} x {winner.resolution} pixels"
    costs = f"{count} MACs, {size} parameters, {at}"
    axes.text(0.2, -0.67, costs, color=GREY, va="center")
    for index, (colour, text) in enumerate(parts):
        x = 0.2 + 1.5 * index
        axes.barh(-0.38, 0.16, 0.14, x, color=colour)
        axes.text(x + 0.24, -0.38, text, va="center", fontsize=8, color=INK)
    columns = (
        (SIZE, "pixels"),
        (KERNEL, "kernel"),
        (OUT, "channels"),
        (INNER, "inner channels"),
        (COST, "MACs"),
    )
    for x, text in columns:
        axes.text(x, -0.12, text, va="center", fontsize=8, color=INK)
    note = "bar lengths: square roots"
    axes.text(WIDTH - 0.2, -0.38, note, va="center", ha="right", fontsize=7.5, color=GREY)
