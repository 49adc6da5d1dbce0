"""Where a method helps: a map of targets x lengths, the difference to what it is compared with.

Beside every difference stands how the baseline fits: the papers' claim is that what under-fits is
helped. Made from parts of the study's summary and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
SHOWN = ("difference", "low", "high", "p", "n", "planned", "final", "unknown", "against_epochs")


def difference_maps(
    arms: Sequence[Row], comparisons: Iterable[Row], baseline: str
) -> list[dict[str, Any]]:
    """One map for every method and kind of equality; rows are targets, by their parameters.

    `comparisons` are of single targets. None where there is one target and one length: the table of
    differences says it all.
    """
    compared = list(comparisons)
    targets = dict.fromkeys(one["target"] for one in compared)
    lengths = sorted({one["epochs"] for one in compared})
    if len(targets) < 2 and len(lengths) < 2:
        return []
    sizes = {target: _params(arms, target) for target in targets}
    ordered = sorted(targets, key=lambda target: (sizes[target] is None, sizes[target] or 0))
    pairs = dict.fromkeys((one["method"], one["against"], one["equal"]) for one in compared)
    return [
        {
            "method": method,
            "against": against,
            "equal": equal,
            "lengths": lengths,
            "rows": [
                {"target": target, "params": sizes[target], "cells": cells}
                for target in ordered
                if (cells := _cells(arms, compared, baseline, (target, method, equal)))
            ],
        }
        for method, against, equal in pairs
    ]


def _params(arms: Iterable[Row], target: str) -> int | None:
    """Of the first arm that knows: all are exported as the target, pruned ones perhaps smaller."""
    known = [arm["params"] for arm in arms if arm["target"] == target and arm["params"]]
    return known[0] if known else None


def _cells(
    arms: Iterable[Row], compared: Iterable[Row], baseline: str, wanted: tuple[str, str, str]
) -> list[dict[str, Any]]:
    """One for every length at which there is, or will be, something to say."""
    fits = {
        arm["epochs"]: arm["diagnosis"]
        for arm in arms
        if (arm["target"], arm["method"]) == (wanted[0], baseline)
    }
    return [
        {
            "epochs": one["epochs"],
            **{key: one[key] for key in SHOWN},
            "baseline_fits": fits.get(one["epochs"], {}),
        }
        for one in compared
        if (one["target"], one["method"], one["equal"]) == wanted
    ]
