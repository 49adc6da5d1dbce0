"""What a table of choices says, row by row, before it is known to be a network.

The notation is that of a target's table (`targets.py`), and a list is a choice:

    - {kind: conv, kernel: 3, stride: 2, out: [8, 16], act: relu6}
    - {kind: inverted_residual, kernel: [3, 5], stride: 2, expand: [3, 6], out: 24, act: relu6,
       depth: [2, 3, 4]}

`expand` is the inner width as a ratio of the width that the row reads (of a bottleneck: that it
makes), in place of `mid`. A block without `out` keeps the width that it reads and has a skip.
`depth` makes a stage of a block: as written, then residual ones like it, of which the last may be
absent (a prefix, as in Once-for-All). Where a stage's rows differ, they are written out:
`{depth: [1, 2], rows: [...]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nasaug.supernet.channels import squeeze_width
from nasaug.supernet.choices import inner_width
from nasaug.supernet.names import did_you_mean
from nasaug.supernet.rows import ROW_KINDS, Bottleneck, Linear, Row, check_value, row_from_dict

VARYING = {
    "conv": ("kernel", "out"),
    "depthwise_separable": ("kernel", "out"),
    "inverted_residual": ("kernel", "expand", "out"),
    "bottleneck": ("kernel", "expand", "out"),
}
"""The keys whose value may be a list, by the kind of row."""
BLOCK_KINDS = ("depthwise_separable", "inverted_residual", "bottleneck")
KINDS = tuple(kind for kind in ROW_KINDS if kind != "skip")
NOT_FOR_SPACES = ("boost", "slope")
"""What a row has only while a target is trained (`boosting.py`)."""
MOST_ROWS = 64
MOST_EXPAND = 64

Made = TypeVar("Made")


@dataclass(frozen=True)
class Line:
    """One row of the largest member, as the table's entry number `place` gives it.

    values: what is fixed; choices: kernel, expand, out, each ascending (one value where fixed).
    """

    place: int
    kind: str
    values: Mapping[str, Any]
    choices: Mapping[str, tuple[Any, ...]]
    optional: bool

    def row(self, in_channels: int, divisor: int, pick: int) -> Row:
        """The row with every first (`pick` 0) or last (-1) choice. Raises: ValueError."""
        data = {"kind": self.kind, **self.values}
        data |= {key: options[pick] for key, options in self.choices.items()}
        expand, squeeze = data.pop("expand", None), data.get("squeeze")
        if self.kind in BLOCK_KINDS:
            data.setdefault("out", in_channels)
        if expand is not None:
            outer = data["out"] if self.kind == Bottleneck.kind else in_channels
            data["mid"] = inner_width(outer, expand, divisor)
        if isinstance(squeeze, bool):
            data["squeeze"] = squeeze_width(data.get("mid", in_channels)) if squeeze else None
        return row_from_dict(data)


def read_lines(entries: list[Any]) -> list[Line]:
    """All rows of a table's `rows`, stages written out.

    Raises: ValueError naming the entry and what is wrong with it.
    """
    lines = []
    for place, entry in enumerate(entries):
        try:
            lines += [_line(place, row, optional) for row, optional in _written_out(entry)]
        except ValueError as error:
            raise ValueError(f"row {place}: {error}") from None
    return lines


def read_table(path: Path, what: str, make: Callable[[Any], Made]) -> Made:
    """What `make` makes of a YAML file, which names its content where that has no name.

    Raises: ValueError naming the file, which is not a `what`'s table; OSError.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(data, dict):
            data.setdefault("name", path.stem)
        return make(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not a {what}'s table: {error}") from None


def _written_out(entry: object) -> list[tuple[dict[str, Any], bool]]:
    """The rows of an entry, and whether each may be absent."""
    if not isinstance(entry, dict):
        raise ValueError(f"a row must be a table with a kind, but got {entry!r}")
    if "rows" in entry:
        rows, depths = _stage(entry)
    elif "depth" in entry:
        rows, depths = _repeated(entry)
    else:
        return [(entry, False)]
    return [(row, index >= depths[0]) for index, row in enumerate(rows)]


def _stage(entry: dict[str, Any]) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """The rows of `{depth: ..., rows: [...]}` and the depths."""
    rows, unknown = entry["rows"], {*entry} - {"depth", "rows"}
    if unknown:
        raise ValueError(f"a stage has no key {min(map(str, unknown))!r}; it has depth, rows")
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"a stage's rows must be a list of rows, but got {rows!r}")
    if "depth" not in entry:
        raise ValueError("a stage needs depth; write its rows by themselves if none may be absent")
    for row in rows:
        if not isinstance(row, dict) or {"depth", "rows"} & {*row}:
            raise ValueError(f"a stage's rows are plain rows without depth, but got {row!r}")
    depths = _depths(entry["depth"])
    if depths[-1] > len(rows):
        raise ValueError(f"depth {depths[-1]} exceeds the stage's {len(rows)} rows; add rows")
    if depths[-1] < len(rows):
        raise ValueError(
            f"depth goes up to {depths[-1]}, but the stage has {len(rows)} rows, of which the last "
            "would never be present; raise the depth or drop rows"
        )
    return rows, depths


def _repeated(entry: dict[str, Any]) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """The block with a `depth` and the residual ones like it, and the depths."""
    depths = _depths(entry["depth"])
    first = {key: value for key, value in entry.items() if key != "depth"}
    if first.get("kind") not in BLOCK_KINDS:
        raise ValueError(
            f"depth is for blocks ({', '.join(BLOCK_KINDS)}), but the kind is {first.get('kind')!r}"
        )
    later = {key: value for key, value in first.items() if key not in ("out", "skip", "projection")}
    return [first, *[{**later, "stride": 1}] * (depths[-1] - 1)], depths


def _depths(value: object) -> tuple[int, ...]:
    depths = _options("depth", value)
    if not all(type(depth) is int and 0 <= depth <= MOST_ROWS for depth in depths):
        raise ValueError(f"depth must be integers from 0 to {MOST_ROWS}, but got {value!r}")
    if depths[-1] == 0:
        raise ValueError("a stage of depth 0 alone has no row; leave it out")
    if depths[-1] - depths[0] >= len(depths):
        raise ValueError(
            f"depths must follow one another, since a stage loses its rows one by one from its "
            f"end, but got {value!r}"
        )
    return depths


def _options(key: str, value: object) -> tuple[Any, ...]:
    """The choices that `value` stands for, ascending."""
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError(f"{key} has an empty list of choices; name at least one value")
    if not all(type(option) in (int, float) for option in given):
        raise ValueError(f"{key} must be numbers, but got {value!r}")
    if len({*given}) < len(given):
        raise ValueError(f"{key} must name every choice once, but got {value!r}")
    return tuple(sorted(given))


def _line(place: int, data: dict[str, Any], optional: bool) -> Line:
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"row kind must be one of {', '.join(KINDS)}, but got {kind!r}")
    varying = VARYING.get(kind, ())
    own = (field.name for field in fields(ROW_KINDS[kind]) if field.name not in NOT_FOR_SPACES)
    known = list(dict.fromkeys([*own, *varying]))
    values, choices = {}, {}
    for key, value in data.items():
        if key == "kind":
            continue
        if key not in known:
            raise ValueError(f"{kind} has no key {key!r}: {did_you_mean(str(key), known)}")
        if key in varying:
            choices[key] = _options(key, value)
            for option in choices[key]:
                _check_option(kind, key, option)
        elif isinstance(value, list):
            able = f"only {', '.join(varying)} can" if varying else "nothing of such a row can"
            raise ValueError(f"{kind}: {key} cannot be a choice, but got {value!r}; {able}")
        else:
            values[key] = value
    if kind == Linear.kind:
        values.setdefault("out", 1000)
    if kind in BLOCK_KINDS:
        _settle_block(kind, values, choices)
    return Line(place, kind, values, choices, optional)


def _check_option(kind: str, key: str, option: object) -> None:
    if key != "expand":
        check_value(kind, key, option)
    elif not 0 < option <= MOST_EXPAND:  # type: ignore[operator]
        raise ValueError(
            f"{kind}: expand must be above 0 and at most {MOST_EXPAND}, but got {option!r}"
        )


def _settle_block(kind: str, values: dict[str, Any], choices: Mapping[str, Any]) -> None:
    """Give `values` the skip that a block has or has not by its `out`."""
    if kind != "depthwise_separable" and ("mid" in values) == ("expand" in choices):
        raise ValueError(f"{kind} needs either expand (ratios) or mid (one inner width)")
    keeps = "out" not in choices
    if kind == Bottleneck.kind:
        if keeps and values.get("projection") is True:
            raise ValueError(f"{kind} with a projection needs out")
        return
    if values.setdefault("skip", keeps) is False and keeps:
        raise ValueError(f"{kind} without a skip needs out")
