"""Which paths a supernet's step trains, where it is not one drawn uniformly.

Rows have different numbers of choices, what a row reads depends on the widths before it, and an
extra row may be present only where the one before it is (the prefix rule). So a choice is dealt
out by its index among the row's `choices`: what it comes to is settled when the path is walked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from nasaug.supernet import ChoicePath, SearchSpace

Card = TypeVar("Card")
Number = TypeVar("Number", int, float)


def fair_passes(space: SearchSpace, over: str = "choices") -> int:
    """m: the passes after which the row with the most choices has used each of them once."""
    if over == "choices":
        return max(len(row.choices) for row in space.rows)
    return max((len(values) for values in space.decisions.values()), default=1)


def fair_paths(
    space: SearchSpace, rng: random.Random, step: int, over: str = "choices"
) -> list[ChoicePath]:
    """m = `fair_passes` paths that together use every choice of every row equally often.

    A row's choices are dealt out like cards, round and round, shuffled over the passes: a row with
    n choices uses each floor(m / n) or ceil(m / n) times, exactly once where n = m. The dealing
    goes on where step - 1 stopped, so that over any number of steps a row's counts differ by at
    most one. Where the prefix rule forces a row to be absent nothing is dealt, and the counts are
    equal (up to one) over the passes in which the row is free.

    over: "choices", as above; or "decisions": the same for every decision (presence, kernel, expand
    ratio, width) by itself, the last three over the passes in which the row is present.
    """
    deal = _choices_dealt if over == "choices" else _decisions_dealt
    return deal(space, rng, step, fair_passes(space, over))


def dropout_path(space: SearchSpace, rng: random.Random, rate: float) -> ChoicePath:
    """The join of the edges that survive: of every row the least choice that contains them.

    One uniformly drawn path always survives; each of the other k - 1 choices of a row is dropped
    with probability rate^(1 / (k - 1)), so that `rate` is the probability that a row is left with
    the drawn choice alone, however many it has (Bender et al. scale by the number of incoming edges
    alike). Where they sum parallel edges, nested weights have no sum: the join is the one row whose
    weights hold those of all survivors. rate 0 is the whole supernet, 1 the single path.
    """
    drawn = space.sample_path(rng)
    path: list[int] = []
    present = True
    for row, kept in zip(space.rows, drawn, strict=True):
        if row.optional and not present:
            path.append(0)
            continue
        others = len(row.choices) - 1
        dropped = rate ** (1 / others) if others else 1.0
        alive = [
            choice
            for index, choice in enumerate(row.choices)
            if index == kept or rng.random() >= dropped
        ]
        alive = [choice for choice in alive if choice.present] or alive
        join = alive[0]._replace(
            kernel=_greatest(choice.kernel for choice in alive),
            expand=_greatest(choice.expand for choice in alive),
            width=_greatest(choice.width for choice in alive),
        )
        path.append(row.choices.index(join))
        present = join.present
    return tuple(path)


def _choices_dealt(
    space: SearchSpace, rng: random.Random, step: int, passes: int
) -> list[ChoicePath]:
    columns: list[list[int]] = []
    present = [True] * passes
    for row in space.rows:
        free = [index for index in range(passes) if present[index] or not row.optional]
        column = [0] * passes
        dealt = _dealt(range(len(row.choices)), len(free), passes, step, rng)
        for index, choice in zip(free, dealt, strict=True):
            column[index] = choice
        present = [row.choices[choice].present for choice in column]
        columns.append(column)
    return list(zip(*columns, strict=True))


def _decisions_dealt(
    space: SearchSpace, rng: random.Random, step: int, passes: int
) -> list[ChoicePath]:
    decided: list[dict[str, bool | int | float]] = [{} for _ in range(passes)]
    present = [True] * passes
    for row in space.rows:
        present = [there or not row.optional for there in present]
        for name, values in row.decisions.items():
            free = [index for index in range(passes) if present[index]]
            for one in decided:
                one[name] = values[0]
            dealt = _dealt(values, len(free), passes, step, rng)
            for index, value in zip(free, dealt, strict=True):
                decided[index][name] = value
            # A row's first decision is whether it is there; the others are for where it is.
            if name.endswith(".present"):
                present = [bool(one[name]) for one in decided]
    return [space.path_of(one) for one in decided]


def _dealt(
    cards: Sequence[Card], count: int, passes: int, step: int, rng: random.Random
) -> list[Card]:
    """`count` cards, round and round, shuffled. Where that is fewer than the passes the number may
    differ between steps, and the first card is drawn."""
    start = step * count if count == passes else rng.randrange(len(cards))
    dealt = [cards[(start + index) % len(cards)] for index in range(count)]
    rng.shuffle(dealt)
    return dealt


def _greatest(values: Iterable[Number | None]) -> Number | None:
    """None where the row has no such decision."""
    return max((value for value in values if value is not None), default=None)
