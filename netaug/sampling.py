"""Which augmented networks a step trains."""

from __future__ import annotations

import random
from collections.abc import Callable

from nasaug.supernet import Architecture, SearchSpace


def independent(space: SearchSpace, rng: random.Random) -> Architecture:
    """Every decision by itself, as the NetAug authors sample."""
    return space.sample(rng)


def tied(space: SearchSpace, rng: random.Random) -> Architecture:
    """One draw a stage for its widths, one for its expand ratios, its kernels and its depth."""
    drawn: dict[tuple[str, str], float] = {}
    values = {}
    for name, options in space.decisions.items():
        row, _, decision = name.rpartition(".")
        key = row.partition(".")[0], decision
        if key not in drawn:
            drawn[key] = rng.random()
        values[name] = options[int(drawn[key] * len(options))]
    return space.architecture(space.path_of(values))


def largest(space: SearchSpace, rng: random.Random) -> Architecture:
    """The largest network, every step: the one teacher of NetDistiller."""
    return space.largest


SAMPLING: dict[str, Callable[[SearchSpace, random.Random], Architecture]] = {
    "independent": independent,
    "tied": tied,
    "largest": largest,
}
