"""Which augmented networks a step trains."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from nasaug.supernet import Architecture, SearchSpace


def independent(space: SearchSpace, rng: random.Random) -> Architecture:
    """Every decision by itself, as the NetAug authors sample."""
    return space.sample(rng)


def tied(space: SearchSpace, rng: random.Random) -> Architecture:
    """One draw a stage for its widths, one for its expand ratios, its kernels and its depth: how
    many of the rows that the target lacks there are, the first of them."""
    named = [(name, *_place(name)) for name in space.decisions]
    extra = Counter(stage for _, stage, decision in named if decision == "present")
    drawn: dict[tuple[str, str], float] = {}
    there: Counter[str] = Counter()
    values: dict[str, bool | int | float] = {}
    for name, stage, decision in named:
        draw = drawn.setdefault((stage, decision), rng.random())
        options = space.decisions[name]
        if decision == "present":
            there[stage] += 1
            values[name] = there[stage] <= int(draw * (extra[stage] + 1))
        else:
            values[name] = options[int(draw * len(options))]
    return space.architecture(space.path_of(values))


def _place(name: str) -> tuple[str, str]:
    """Stage and kind of a decision such as `stage2.block1.expand`."""
    row, _, decision = name.rpartition(".")
    return row.partition(".")[0], decision


def largest(space: SearchSpace, rng: random.Random) -> Architecture:
    """The largest network, every step: the one teacher of NetDistiller."""
    return space.largest


SAMPLING: dict[str, Callable[[SearchSpace, random.Random], Architecture]] = {
    "independent": independent,
    "tied": tied,
    "largest": largest,
}
