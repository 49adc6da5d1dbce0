"""The picture of a search space: its graph from top to bottom, and one path drawn through it.

A node is the width of the features after a row, a line the choices for the next row (the more of
them, the thicker), a path from top to bottom one architecture. Beside each row stand its choices.
"""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from nasaug.pictures.canvas import (
    GREEN,
    GREY,
    INK,
    KINDS,
    PAPER,
    RED,
    STRIPE,
    plain,
    save_picture,
    sheet,
    style,
)
from nasaug.search import format_macs
from nasaug.supernet import Architecture, ChoicePath, Edge, SearchSpace, Skip

NodeKey = tuple[int, int, bool]
Places = dict[NodeKey, tuple[float, float]]

# Inches. Columns: row names, the graph, what each row may be.
ROW, NAMES, COLUMN, OPTIONS, TOP, BOTTOM = 0.42, 2.0, 1.05, 4.2, 1.15, 0.5
FEWEST_COLUMNS, MOST_COLUMNS, MOST_OPTIONS = 3, 6, 6
KERNEL, EXPAND, INNER = 0.3, 1.25, 3.15
BOX = (0.56, 0.24)
TWIN = 0.24  # of a column: how far nodes of one width lie from its middle


def draw_space(
    space: SearchSpace, path: Path, best: ChoicePath | Architecture | None = None
) -> None:
    """Write the picture of `space` to `path` (.svg or .png), with `best` drawn through it.

    Raises: ValueError if `best` is not in the space, or for another ending; OSError.
    """
    save_picture(space_figure(space, best), path)


def space_figure(space: SearchSpace, best: ChoicePath | Architecture | None = None) -> Figure:
    """The picture of `space`. Raises: ValueError if `best` is not in the space."""
    chosen = space.path(best) if isinstance(best, Architecture) else best
    edges = None if chosen is None else space.edges_of(chosen)
    graph = space.graph()
    layers: dict[int, list[NodeKey]] = {}
    for key in sorted(graph.nodes):
        layers.setdefault(key[0], []).append(key)
    columns = max(len({key[1] for key in layer}) for layer in layers.values())
    wide = COLUMN * min(max(columns, FEWEST_COLUMNS), MOST_COLUMNS)
    rows = len(space.rows)
    with style():
        figure = sheet(NAMES + wide + OPTIONS, TOP + ROW * rows + BOTTOM)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, NAMES + wide + OPTIONS)
        axes.set_ylim(ROW * rows + BOTTOM, -TOP)
        step = wide / columns
        places: Places = {}
        for layer in layers.values():
            places |= _placed(layer, NAMES + wide / 2, step)
        path_nodes = _nodes_on(space, edges)
        _stripes(axes, rows, NAMES + wide + OPTIONS)
        _lines(axes, Counter((tail, head) for tail, head, _ in graph.edges), places)
        _path(axes, path_nodes, places)
        _boxes(axes, places, set(path_nodes), step)
        _texts(axes, space, edges, NAMES + wide)
        _head(axes, space, chosen)
        _foot(axes, ROW * rows + BOTTOM - 0.2, any(not is_open for _, _, is_open in places))
    return figure


def _placed(layer: list[NodeKey], middle: float, step: float) -> Places:
    """A column for every width, narrow ones left; nodes of one width share their column."""
    widths = sorted({width for _, width, _ in layer})
    twins = len(layer) > len(widths)
    places: Places = {}
    for key in layer:
        row, width, is_open = key
        x = middle + (widths.index(width) - (len(widths) - 1) / 2) * step
        places[key] = (x + (TWIN if is_open else -TWIN) * step * twins, ROW * row)
    return places


def _nodes_on(space: SearchSpace, edges: list[Edge] | None) -> list[NodeKey]:
    return [] if edges is None else [space.source.key, *(edge.head.key for edge in edges)]


def _stripes(axes: Axes, rows: int, width: float) -> None:
    for row in range(0, rows, 2):
        axes.axhspan(ROW * row, ROW * (row + 1), 0.1 / width, 1 - 0.1 / width, color=STRIPE)


def _lines(axes: Axes, choices: Counter[tuple[NodeKey, NodeKey]], places: Places) -> None:
    """A line between two nodes, the thicker the more choices lead from one to the other."""
    for (tail, head), count in choices.items():
        (x0, y0), (x1, y1) = places[tail], places[head]
        weight = 0.6 + 0.9 * math.log2(count)
        axes.plot((x0, x1), (y0, y1), color="#B8C4CE", linewidth=weight, zorder=1)


def _path(axes: Axes, nodes: list[NodeKey], places: Places) -> None:
    if nodes:
        xs, ys = zip(*(places[key] for key in nodes), strict=True)
        axes.plot(xs, ys, color=RED, linewidth=4.0, solid_joinstyle="round", zorder=2)


def _boxes(axes: Axes, places: Places, on_path: set[NodeKey], step: float) -> None:
    twins = {(row, width) for row, width, is_open in places if not is_open}
    for key, (x, y) in places.items():
        chosen = key in on_path
        room = step / 2 if key[:2] in twins else step
        width = min(BOX[0], 0.85 * room)
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - BOX[1] / 2),
                width,
                BOX[1],
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=RED if chosen else PAPER,
                edgecolor=RED if chosen else GREY,
                linestyle="-" if key[2] else ":",
                linewidth=1.0,
                zorder=3,
            )
        )
        axes.text(
            x,
            y,
            f"{key[1]:,}",
            ha="center",
            va="center",
            color=PAPER if chosen else INK,
            weight="bold" if chosen else "normal",
            fontsize=min(9.0, 18 * room),
            zorder=4,
        )


def _texts(axes: Axes, space: SearchSpace, edges: list[Edge] | None, left: float) -> None:
    """Beside every row its name, its kind and its choices, the chosen ones in colour."""
    for index, row in enumerate(space.rows):
        y = ROW * (index + 0.5)
        kind = KINDS.get(row.template.kind, row.template.kind)
        axes.text(0.2, y - 0.075, row.name, va="center", color=GREEN if row.optional else INK)
        extra = "optional " if space.is_table else "extra "
        extra = extra if row.optional else ""
        axes.text(0.2, y + 0.085, extra + kind, va="center", color=GREY, fontsize=7)
        edge = edges[index] if edges is not None else None
        absent = edge is not None and isinstance(edge.row, Skip)
        picked = row.choices[edge.choice] if edge is not None and not absent else None
        _options(axes, left + KERNEL, y, row.kernels, picked and picked.kernel, EXPAND - KERNEL)
        _options(axes, left + EXPAND, y, row.expands, picked and picked.expand, INNER - EXPAND)
        if edge is not None:
            mid = getattr(edge.row, "mid", None)
            said = "left out" if absent else f"{mid:,}" if mid else ""
            axes.text(left + INNER, y, said, va="center", color=GREY if absent else RED)


def _options(
    axes: Axes, x: float, y: float, values: tuple[float, ...], chosen: float | None, room: float
) -> None:
    """The values of a decision from `x` on, `room` inches wide; of very many the chosen one."""
    texts = [f"{value:.3g}" for value in values]
    if len(values) > MOST_OPTIONS:
        picked = "" if chosen is None else f"{chosen:.3g}, "
        axes.text(x, y, f"{picked}one of {len(values)}", va="center", color=GREY, fontsize=8.5)
        return
    step = min(0.1 + 0.085 * max(map(len, texts), default=0), (room - 0.2) / max(1, len(texts)))
    for index, (value, text) in enumerate(zip(values, texts, strict=True)):
        axes.text(
            x + index * step + 0.1,
            y,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            color=RED if value == chosen else GREY,
            weight="bold" if value == chosen else "normal",
        )


def _head(axes: Axes, space: SearchSpace, chosen: ChoicePath | None) -> None:
    name = plain(space.name)
    title = f"Search space {name}" if space.is_table else f"Search space around {name}"
    axes.text(0.2, -0.9, title, fontsize=13, weight="bold", color=INK)
    members = space.count()
    # Decimal, since a count may be too large for a float.
    size = f"{members:,}" if members < 10**6 else f"{Decimal(members):.2e}"
    low, high = format_macs(space.source.cheapest), format_macs(space.source.dearest)
    text = f"{size} members, {low} to {high} MACs"
    axes.text(0.2, -0.68, text, color=GREY)
    if chosen is not None:
        cost = f"{format_macs(space.macs(chosen))} MACs, {space.params(chosen):,} parameters"
        axes.text(0.2, -0.48, f"Path drawn: {cost}", color=RED, weight="bold")
    left = axes.get_xlim()[1] - OPTIONS
    inner = ((INNER, "inner channels"),) if chosen is not None else ()
    expand = "expand" if space.is_table else "expand (times the target's)"
    for x, text in ((KERNEL, "kernel"), (EXPAND, expand), *inner):
        axes.text(left + x, -0.22, text, color=INK, fontsize=8)
    axes.text((NAMES + left) / 2, -0.22, "channels", color=INK, fontsize=8, ha="center")


def _foot(axes: Axes, y: float, closed: bool) -> None:
    text = "boxes: channels after a row; lines: choices for the next row, thicker where more"
    if closed:
        text += "; dotted: the stage has ended"
    axes.text(0.2, y, text, color=GREY, fontsize=7.5, va="center")
