"""The picture of what a network's rows hold in memory: two bars a row, and the device's limit.

The dark part of a bar is what the row takes when its kernels write over their inputs, the light
part what they take besides when they do not (see `supernet/memory.py`). The longest of each is the
network's peak, and has its number.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nasaug.pictures.canvas import BLUE, INK, PAPER, RED, SKY, plain, save_picture, sheet, style
from nasaug.pictures.plots import NEAR, WIDTH
from nasaug.supernet import Architecture, in_kb, row_costs

ROW, EDGE, KB = 0.24, 1.35, 1024


def draw_memory(arch: Architecture, path: Path, bits: int = 8, limit: int | None = None) -> None:
    """Write the picture to `path` (.svg or .png).

    Raises: ValueError for another ending; OSError.
    """
    save_picture(memory_figure(arch, bits, limit), path)


def memory_figure(arch: Architecture, bits: int = 8, limit: int | None = None) -> Figure:
    """The memory that every row of `arch` takes, in KB, activations of `bits` each, batch 1; the
    `limit` (bytes) is a line, or words where it is far beyond the bars."""
    arch = arch.canonical()
    costs, each = row_costs(arch), bits // 8
    rows = [each * cost.memory for cost in costs]
    tight = [each * cost.memory_in_place for cost in costs]
    with style():
        figure = sheet(WIDTH, EDGE + ROW * len(rows))
        axes = figure.subplots()
        figure.set_layout_engine("constrained")
        places = range(len(rows))
        for values, colour, label in (
            (rows, SKY, "nothing in place"),
            (tight, BLUE, "in place where kernels can"),
        ):
            axes.barh(places, [value / KB for value in values], 0.7, color=colour, label=label)
        _number(axes, rows, PAPER, INK)
        if max(tight) < max(rows):
            _number(axes, tight, BLUE, PAPER)
        axes.set_yticks(places, list(arch.row_names))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        far = _limit(axes, max(rows), limit)
        kind = "int8" if bits == 8 else "float32"
        axes.set_xlabel(f"{kind} activations while the row runs (KB){far}")
        axes.set_title(
            f"{plain(arch.name)} at {arch.resolution} x {arch.resolution}: "
            f"peak {in_kb(max(rows))}, in place {in_kb(max(tight))}",
            loc="left",
            fontsize=10,
        )
        figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _number(axes: Axes, values: list[int], paper: str, ink: str) -> None:
    """The size of the longest bar, behind its end, or within it where the paper is the bar's."""
    peak = values.index(max(values))
    inside = paper == BLUE
    axes.annotate(
        in_kb(values[peak]),
        (values[peak] / KB, peak),
        (-3 if inside else 3, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=7.5,
        color=ink,
        bbox={"facecolor": paper, "edgecolor": "none", "pad": 0.6},
    )


def _limit(axes: Axes, peak: int, limit: int | None) -> str:
    """Draw the limit where it is near enough; else what the axis is to say of it."""
    axes.set_xlim(0, 1.13 * peak / KB)
    if limit is None:
        return ""
    if limit > (1 + NEAR) * peak:
        return f"; the limit, {in_kb(limit)}, is further right"
    axes.axvline(limit / KB, color=RED, linestyle="--", label=f"limit {in_kb(limit)}")
    axes.set_xlim(0, 1.13 * max(peak, limit) / KB)
    return ""
