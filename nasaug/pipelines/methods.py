"""The tables of `nasaug methods`: from `nasaug.netaug.methods`, for the screen and for the docs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nasaug.console import emit_json, emit_table
from nasaug.netaug import METHODS, PARTS, REFUSED, refusal

Rows = list[list[str]]
METHOD_COLUMNS = ("method", "what it does", "source", "stands for")
PART_COLUMNS = ("part", "what it does", "switched on by", "needs")
REFUSED_COLUMNS = ("not together", "reason")


def show_methods(markdown: bool, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "methods": {name: dict(method.sections) for name, method in METHODS.items()},
                "parts": {name: dict(part.settings) for name, part in PARTS.items()},
                "refused": [
                    {"parts": list(pair), "reason": why} for pair, why in refused_pairs().items()
                ],
            }
        )
    elif markdown:
        print(as_markdown(), end="")
    else:
        emit_table(
            "Methods (--method)", METHOD_COLUMNS[:2], [row[:2] for row in method_rows()], left=2
        )
        emit_table("Parts", PART_COLUMNS, part_rows(), left=4)
        emit_table(legal_line(), REFUSED_COLUMNS, refused_rows(), left=2)


def as_markdown() -> str:
    tables = (
        (METHOD_COLUMNS, method_rows()),
        (PART_COLUMNS, part_rows()),
        (REFUSED_COLUMNS, refused_rows()),
    )
    first, second, third = (_markdown(columns, rows) for columns, rows in tables)
    return f"{first}\n{second}\n{legal_line()}\n\n{third}"


def method_rows() -> Rows:
    return [
        [name, method.summary, method.source, _keys(_flat(method.sections)) or "nothing"]
        for name, method in METHODS.items()
    ]


def part_rows() -> Rows:
    return [
        [name, part.summary, _keys(part.settings), part.needs or ""] for name, part in PARTS.items()
    ]


def legal_pairs() -> list[tuple[str, str]]:
    """All pairs of parts that go together."""
    return [pair for pair in itertools.combinations(PARTS, 2) if refusal(pair[0], pair[1]) is None]


def refused_pairs() -> dict[tuple[str, str], str]:
    pairs = {pair: refusal(pair[0], pair[1]) for pair in itertools.combinations(PARTS, 2)}
    return {pair: why for pair, why in pairs.items() if why is not None}


def refused_rows() -> Rows:
    """A row a part and reason, its partners together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for (first, second), why in REFUSED.items():
        rows.setdefault((first, why), []).append(second)
    return [[f"{part}: {', '.join(others)}", why] for (part, why), others in rows.items()]


def legal_line() -> str:
    legal, refused = len(legal_pairs()), len(refused_pairs())
    return (
        f"Of {legal + refused} pairs of parts {legal} go together. These {refused} do not, what "
        "needs one of the two included:"
    )


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for section, values in sections.items():
        keys |= {f"{section}.{key}": value for key, value in values.items()} or {section: {}}
    return keys


def _keys(settings: Mapping[str, Any]) -> str:
    return " ".join(
        key if value == {} else f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )


def _markdown(columns: Sequence[str], rows: Rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
