"""Measuring in rounds: every row once a round, in a new order, until each has enough calm repeats.

The repeats of a row are spread over the whole measurement, so that a noisy moment costs every row a
few of its repeats instead of one row all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from functools import partial

from nasaug.devices.backends import Backend
from nasaug.devices.entries import RowKey, Timing
from nasaug.devices.samples import Bursts, Samples, enough, missing, timing_of
from nasaug.supernet import Architecture, SearchSpace

REPEATS = 30

Note = Callable[[RowKey | None, Sequence[int]], None]
# (calm repeats so far, calm repeats wanted)
Watch = Callable[[int, int], None]


def measure_rows(
    backend: Backend,
    space: SearchSpace,
    wanted: Collection[RowKey],
    samples: Samples,
    rng: random.Random,
    repeats: int = REPEATS,
    note: Note | None = None,
    watch: Watch | None = None,
) -> dict[RowKey, Timing]:
    """Timings of the `wanted` rows (ns, without the cost of an empty run).

    `samples` is what an earlier measurement kept, {} at first, and grows; `note` is told every
    burst. A row that stays disturbed is settled with what it has (see `missing`).

    Raises: ValueError for a number of repeats, or a row, that cannot be measured.
    """
    _check_repeats(repeats)
    left = {key: missing(samples.get(key, []), repeats) for key in (None, *wanted)}
    total = repeats * len(left)

    def add(key: RowKey | None, burst: list[int]) -> None:
        samples.setdefault(key, []).append(burst)
        if note is not None:
            note(key, burst)
        if key in left:
            left[key] = missing(samples[key], repeats)

    while any(left.values()):
        add(None, backend.empty())
        due = [key for key, count in left.items() if key is not None and count]
        for bursts in backend.sweep(space, due, rng):
            for key, burst in bursts.items():
                add(key, burst)
            if watch is not None:
                watch(total - sum(left.values()), total)
    empty = empty_run(samples)
    return {key: timing_of(samples[key], empty) for key in wanted}


def empty_run(samples: Samples) -> int:
    """What a run costs when there is nothing to do, in nanoseconds."""
    return timing_of(samples[None]).median


def measure_networks(
    backend: Backend,
    networks: Sequence[Architecture],
    rng: random.Random,
    repeats: int = REPEATS,
    watch: Watch | None = None,
) -> list[Timing]:
    """Timings (ns) of whole networks, in the order given."""
    measures = [partial(backend.network, arch) for arch in networks]
    return [timing_of(found) for found in measure_bursts(measures, rng, repeats, watch)]


def measure_bursts(
    measures: Sequence[Callable[[], list[int]]],
    rng: random.Random,
    repeats: int = REPEATS,
    watch: Watch | None = None,
) -> list[Bursts]:
    """Bursts of every one of `measures` (each gives one, see `timed_burst`), in the order given."""
    _check_repeats(repeats)
    bursts: list[Bursts] = [[] for _ in measures]
    left = {index: repeats for index in range(len(measures))}
    while due := [index for index, count in left.items() if count]:
        for index in rng.sample(due, len(due)):
            bursts[index].append(measures[index]())
            left[index] = missing(bursts[index], repeats)
            if watch is not None:
                watch(repeats * len(left) - sum(left.values()), repeats * len(left))
    return bursts


def disturbed(samples: Samples, keys: Collection[RowKey], repeats: int = REPEATS) -> int:
    """How many of `keys` have fewer calm repeats than were asked for."""
    return sum(not enough(samples[key], repeats) for key in keys)


def _check_repeats(repeats: int) -> None:
    if not 3 <= repeats <= 10_000:
        raise ValueError(f"repeats must be from 3 to 10,000, but got {repeats}")
