"""Choosing the learning rate of an arm: the same grid for every method, judged on validation data.

Summed losses double the step on shared weights, so an untuned baseline makes any method that adds a
loss look good. The grid is therefore widened until the best rate lies inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.store import Store
from nasaug.study_config import Tuning

HIGHEST = 100.0
# Mean validation accuracy at a rate; None while it is not known, -inf where training diverged.
Score = Callable[[float], float | None]


@dataclass(frozen=True)
class Tuned:
    """`tried` are the rates looked at, with their scores. `rate` is None until it is chosen;
    `wanted` are the rates whose scores are needed next. `inside`: no edge of the grid is the best.
    """

    rate: float | None
    tried: dict[float, float | None]
    wanted: tuple[float, ...] = ()
    inside: bool = True

    @property
    def said(self) -> str:
        """What is to be known about the choice, in a few words."""
        if self.rate is None:
            return "not tuned yet" if self.wanted else "no rate trains it"
        return "" if self.inside else f"the best of its grid, {self.rate:g}, is at the edge"

    def to_dict(self) -> dict[str, Any]:
        """As a summary has it."""
        rates = [
            {
                "lr": rate,
                "validation": None if score in (None, -math.inf) else score,
                "diverged": score == -math.inf,
            }
            for rate, score in self.tried.items()
        ]
        return {
            "rates": rates,
            "chosen": self.rate,
            "inside": self.inside,
            "said": self.said,
        }


def mean_score(store: Store, cells: Iterable[Cell], key: str) -> float | None:
    """Mean of what results have under `key`; one run that diverged is enough to rule a rate out.
    None while a run is missing."""
    scores: list[float] = []
    for cell in cells:
        result = store.result(cell.identity)
        if result is not None:
            scores.append(float(result[key]))
            continue
        failure = store.failure(cell.identity)
        if failure is None or not failure.diverged:
            return None
        scores.append(-math.inf)
    return sum(scores) / len(scores)


def tuned(options: Tuning, score: Score) -> Tuned:
    """The best rate, the lowest of equals, as far as scores are known."""
    if options.off:
        return Tuned(options.grid[0], {})
    down, up = options.grid[0], options.grid[-1]
    rates = list(options.grid)
    left, right = options.limit, options.limit
    while True:
        tried = {rate: score(rate) for rate in rates}
        unknown = tuple(rate for rate in rates if tried[rate] is None)
        if unknown:
            return Tuned(None, tried, unknown)
        known = {rate: value for rate, value in tried.items() if value is not None}
        best = max(known, key=lambda rate: (known[rate], -rate))
        if options.extend and best == down and left > 0:
            down, left = down / 2, left - 1
            rates.insert(0, down)
        elif options.extend and best == up and right > 0 and 2 * up <= HIGHEST:
            up, right = 2 * up, right - 1
            rates.append(up)
        else:
            chosen = None if known[best] == -math.inf else best
            return Tuned(chosen, tried, inside=best not in (down, up))
