"""The rows of a space that is tied to no target: a table of choices, checked.

Once-for-All (Cai et al., ICLR 2020, Section 3.1) begins with a large network and everything that is
nested in it: elastic kernel, depth, expand ratio and width. All of a table's members share the
first channels and the kernels' centres, so its smallest member lies in every other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nasaug.supernet.architecture import (
    BLOCKS,
    Architecture,
    check_classes,
    check_input,
    name_rows,
)
from nasaug.supernet.choices import DEPTHWISE, RowChoices, inner_width
from nasaug.supernet.notation import Line, read_lines, read_table
from nasaug.supernet.rows import Bottleneck, Conv, DepthwiseSeparable, Linear, Row

KEYS = ("name", "resolution", "in_channels", "divisor", "rows")
MOST_EDGES = 20_000
"""Of one row, so that a typing mistake ends in words and not in hours of counting."""


@dataclass(frozen=True)
class Table:
    """What a table says: its name, its smallest member and the choices of every row."""

    name: str
    smallest: Architecture
    rows: tuple[RowChoices, ...]


def make_table(
    table: Mapping[str, Any] | str | Path,
    num_classes: int = 1000,
    resolution: int | None = None,
    in_channels: int | None = None,
) -> Table:
    """From plain data or a YAML file's path; see `SearchSpace.table`."""
    check_classes(num_classes)
    given = {"resolution": resolution, "in_channels": in_channels}
    given = {key: value for key, value in given.items() if value is not None}
    check_input(given.get("resolution", 1), given.get("in_channels", 1))
    if isinstance(table, str | Path):
        return read_table(Path(table), "space", lambda data: _table(data, num_classes, given))
    return _table(table, num_classes, given)


def _table(data: Any, num_classes: int, given: Mapping[str, Any]) -> Table:
    if not isinstance(data, Mapping) or not isinstance(data.get("rows"), list):
        raise ValueError("a space must be a table with a list of rows")
    unknown = {*data} - {*KEYS}
    if unknown:
        raise ValueError(f"a space has no key {min(map(str, unknown))!r}; it has {', '.join(KEYS)}")
    if "resolution" not in {**data, **given}:
        raise ValueError("a space needs a resolution")
    resolution, in_channels, divisor = (
        {"in_channels": 3, "divisor": 8, **data, **given}[key]
        for key in ("resolution", "in_channels", "divisor")
    )
    check_input(resolution, in_channels)
    if type(divisor) is not int or not 1 <= divisor <= 1024:
        raise ValueError(f"divisor must be an integer from 1 to 1024, but got {divisor!r}")
    name = str(data.get("name", "table"))
    lines = read_lines(data["rows"])
    least, most = (_end(lines, in_channels, divisor, pick) for pick in (0, -1))
    # Stages are told by the largest member: in a smaller one two neighbours may have one width.
    names = tuple(name_rows(most, in_channels))
    rows = _choices(lines, least, names, in_channels, divisor)
    present = tuple(row for row, line in zip(least, lines, strict=True) if not line.optional)
    smallest = Architecture(present, resolution, in_channels, f"{name}-smallest")
    if all(len(row.choices) == 1 for row in rows):
        raise ValueError(
            "a space needs a choice, but no row has one; make a value a list, such as "
            "kernel: [3, 5], or use the table as a target"
        )
    last = rows[-1]
    rows[-1] = RowChoices(last.name, Linear(num_classes))
    return Table(name, smallest.with_classes(num_classes), tuple(rows))


def _end(lines: list[Line], in_channels: int, divisor: int, pick: int) -> tuple[Row, ...]:
    """All rows with their first (`pick` 0) or last (-1) choices."""
    rows: list[Row] = []
    for line in lines:
        try:
            rows.append(line.row(in_channels, divisor, pick))
        except ValueError as error:
            raise ValueError(f"row {line.place}: {error}") from None
        in_channels = rows[-1].out_channels(in_channels)
    return tuple(rows)


def _choices(
    lines: list[Line],
    least: tuple[Row, ...],
    names: tuple[str, ...],
    in_channels: int,
    divisor: int,
) -> list[RowChoices]:
    """Raises: ValueError naming the first row that is not possible with all its choices."""
    widths: tuple[int, ...] = (in_channels,)
    rows: list[RowChoices] = []
    before: Line | None = None
    for line, row, name in zip(lines, least, names, strict=True):
        reason = _why_impossible(line, row, widths, before, divisor)
        edges = math.prod(map(len, line.choices.values())) * len(widths)
        if reason is None and edges > MOST_EDGES:
            reason = (
                f"a row may have at most {MOST_EDGES:,} choices, counted for every width that it "
                f"may read, but has {edges:,}; shorten its lists"
            )
        if reason is not None:
            raise ValueError(f"row {line.place} ({name}): {reason}")
        rows.append(_row_choices(line, row, name, divisor))
        if not row.keeps_shape:
            widths = line.choices.get("out", tuple(sorted({row.out_channels(w) for w in widths})))
        before = line
    return rows


def _row_choices(line: Line, row: Row, name: str, divisor: int) -> RowChoices:
    kernels = line.choices.get("kernel", ())
    has_width = isinstance(row, Conv | BLOCKS) and not row.keeps_shape
    return RowChoices(
        name=name,
        template=row,
        ratio=Fraction("expand" in line.choices),
        kernels=kernels if isinstance(row, DEPTHWISE) or len(kernels) > 1 else (),
        expands=line.choices.get("expand", ()),
        widths=line.choices["out"] if has_width else (),
        optional=line.optional,
        divisor=divisor,
    )


def _why_impossible(
    line: Line, row: Row, widths: tuple[int, ...], before: Line | None, divisor: int
) -> str | None:
    """Why no network has this row for some of its choices; None where all have."""
    even = [kernel for kernel in line.choices.get("kernel", ()) if kernel % 2 == 0]
    if even or getattr(row, "kernel", 1) % 2 == 0:
        return f"kernel must be odd, but got {(even or [getattr(row, 'kernel', 1)])[0]}"
    if row.downsampling not in (1, 2):
        return f"stride must be 1 or 2, but got {row.downsampling}"
    if row.keeps_shape:
        reason = _why_not_residual(line, row, widths)
        if reason is not None:
            return reason
        if before is not None and before.optional and before.place != line.place:
            return (
                "a stage may lose rows at its end only, but this residual row goes on with the "
                f"stage of row {before.place}, of which rows may be absent; write it into that "
                "stage's rows"
            )
    elif line.optional:
        return (
            "it may be absent, but only a residual row that keeps the shape can be; raise the "
            "stage's least depth, or give it stride: 1 and a skip, and no out"
        )
    return _why_not_squeezed(line, row, widths, divisor)


def _why_not_squeezed(line: Line, row: Row, widths: tuple[int, ...], divisor: int) -> str | None:
    squeeze, expands = getattr(row, "squeeze", None), line.choices.get("expand", ())
    if isinstance(row, DepthwiseSeparable) and line.values.get("squeeze") is True:
        if len(widths) > 1:
            return (
                "squeeze must be a number where the width that a depthwise_separable row reads "
                "varies, but got true"
            )
        return None
    inner = {inner_width(width, expand, divisor) for width in widths for expand in expands}
    if squeeze and line.values["squeeze"] is not True and len(inner) > 1:
        return (
            "squeeze must be true (a quarter of the inner width) where the inner width varies, "
            f"but got {squeeze}"
        )
    return None


def _why_not_residual(line: Line, row: Row, widths: tuple[int, ...]) -> str | None:
    outs = line.choices.get("out", ())
    change = "projection: true" if isinstance(row, Bottleneck) else "skip: false"
    if row.downsampling != 1:
        return f"skip must keep the shape, but stride is {row.downsampling}; set {change} and out"
    if len(outs) > 1:
        return (
            "a residual row keeps the width that it reads, so that out cannot be a choice, but got "
            f"{[*outs]}; leave out out, or set {change}"
        )
    if outs and outs != widths:
        read = " or ".join(map(str, widths))
        return (
            f"skip must keep the shape, but {read} channels become {outs[0]}; leave out out, or "
            f"set {change}"
        )
    return None
