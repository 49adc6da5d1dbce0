"""A latency table as a file: comma-separated values, one line an entry, to be read and written by
people as well. `docs/latency.md` describes it with an example.

Lines `# key: value` say under which conditions it was measured. The columns of a row are those of
its table entry; a column that a kind does not have, or whose value is the default, stays empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from nasaug.devices.duration import LONGEST
from nasaug.devices.entries import RowKey, Timing
from nasaug.devices.table import LatencyTable
from nasaug.supernet import did_you_mean
from nasaug.supernet.rows import row_from_dict, row_to_dict

TEXTS = ("kind", "act")
FLAGS = ("skip", "norm", "bias", "projection")
NUMBERS = ("kernel", "stride", "mid", "out", "squeeze")
ROW_COLUMNS = (
    *("kind", "kernel", "stride", "mid", "out", "act"),
    *("skip", "squeeze", "norm", "bias", "projection"),
)
PLACE_COLUMNS = {"in_channels": 65_536, "size": 8_192}
TIME_COLUMNS = ("median_us", "q1_us", "q3_us")
COLUMNS = (*ROW_COLUMNS, *PLACE_COLUMNS, *TIME_COLUMNS, "repeats")
NEEDED = ("kind", "in_channels", "size", "median_us")
TITLE = "# nasaug latency table"


def load_latency_table(path: str | Path) -> LatencyTable:
    """A table from a file, measured here or written elsewhere.

    Raises: ValueError naming the line and the column that is wrong; OSError.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error})") from None
    return read_csv(text, str(path))


def read_csv(text: str, name: str = "the table") -> LatencyTable:
    """The table that `text` holds; `name` is what messages call it. Raises: ValueError."""
    facts: dict[str, str] = {}
    columns: list[str] | None = None
    timings: dict[RowKey, Timing] = {}
    lines: dict[RowKey, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}, line {number}"
        if not line.strip(" ,\t"):
            continue
        if line.startswith("#"):
            key, colon, value = line.lstrip("# ").partition(":")
            if colon and key.strip().isidentifier():
                facts[key.strip()] = value.strip()
            continue
        cells = [cell.strip() for cell in _split(line, where)]
        if columns is None:
            columns = _checked_columns(cells, where)
            continue
        row, timing = _entry(dict(zip(columns, cells, strict=False)), cells, columns, where)
        if row in lines:
            raise ValueError(f"{where}: the same row stands in line {lines[row]}; delete one")
        timings[row], lines[row] = timing, number
    if columns is None:
        raise ValueError(f"{name} has no line with the columns' names, such as {','.join(NEEDED)}")
    return _table(timings, facts, name)


def write_csv(table: LatencyTable) -> str:
    """The inverse of `read_csv`; lines are sorted by size, so that a network reads downward."""
    out = io.StringIO()
    fitted = {"scale": repr(table.scale), "overhead_us": _microseconds(table.overhead)}
    facts = {**table.facts, **fitted}
    out.writelines(f"{line}\n" for line in (TITLE, *(f"# {k}: {v}" for k, v in facts.items())))
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for key in sorted(table.timings, key=lambda key: (-key.size, key.in_channels, str(key))):
        timing = table.timings[key]
        values: dict[str, Any] = {
            **row_to_dict(key.row),
            "in_channels": key.in_channels,
            "size": key.size,
            "median_us": _microseconds(timing.median),
            "q1_us": _microseconds(timing.q1),
            "q3_us": _microseconds(timing.q3),
            "repeats": timing.repeats,
        }
        writer.writerow({column: _cell(value) for column, value in values.items()})
    return out.getvalue()


def _table(timings: dict[RowKey, Timing], facts: dict[str, str], name: str) -> LatencyTable:
    scale, overhead = 1.0, 0
    if (text := facts.pop("scale", None)) is not None:
        try:
            scale = float(text)
        except ValueError:
            raise ValueError(f"{name}: scale must be a number, but got {text!r}") from None
    if (text := facts.pop("overhead_us", None)) is not None:
        overhead = _nanoseconds(text, f"{name}: overhead_us")
    try:
        return LatencyTable(timings, scale, overhead, facts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _checked_columns(cells: list[str], where: str) -> list[str]:
    for cell in cells:
        if cell not in COLUMNS:
            raise ValueError(f"{where}: unknown column {cell!r}: {did_you_mean(cell, COLUMNS)}")
        if cells.count(cell) > 1:
            raise ValueError(f"{where}: column {cell} stands there twice")
    lacking = [column for column in NEEDED if column not in cells]
    if lacking:
        raise ValueError(f"{where}: column {lacking[0]} is missing; needed are {', '.join(NEEDED)}")
    return cells


def _entry(
    values: dict[str, str], cells: list[str], columns: list[str], where: str
) -> tuple[RowKey, Timing]:
    if len(cells) != len(columns):
        raise ValueError(f"{where}: {len(columns)} columns are named, but it has {len(cells)}")
    row: dict[str, Any] = {}
    for column in ROW_COLUMNS:
        if text := values.get(column, ""):
            row[column] = _row_value(column, text, f"{where}, column {column}")
    try:
        made = row_from_dict(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    place = [
        _whole(values[column], f"{where}, column {column}", most)
        for column, most in PLACE_COLUMNS.items()
    ]
    times = {
        column.removesuffix("_us"): _nanoseconds(text, f"{where}, column {column}")
        for column in TIME_COLUMNS
        if (text := values.get(column, "")) or column in NEEDED
    }
    repeats = values.get("repeats", "")
    count = _whole(repeats, f"{where}, column repeats", 10**9) if repeats else None
    try:
        return RowKey(made, *place), Timing(**times, repeats=count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _row_value(column: str, text: str, where: str) -> str | bool | int:
    if column in FLAGS:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where}: must be true or false, but got {text!r}")
        return text.lower() == "true"
    return _whole(text, where, 65_536) if column in NUMBERS else text


def _whole(text: str, where: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= most):
        raise ValueError(f"{where}: must be a whole number from 1 to {most:,}, but got {text!r}")
    return int(text)


def _nanoseconds(text: str, where: str) -> int:
    """Microseconds as text -> nanoseconds; a finer fraction is rounded."""
    try:
        value = Decimal(text) * 1000
    except InvalidOperation:
        value = Decimal(-1)
    if not (value.is_finite() and 0 <= value <= LONGEST):
        raise ValueError(
            f"{where}: must be a number of microseconds from 0 to {LONGEST // 1000:,}, "
            f"but got {text!r}"
        )
    return round(value)


def _microseconds(nanoseconds: int | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _split(line: str, where: str) -> Iterable[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"{where}: {error}; cells are separated by commas") from None
