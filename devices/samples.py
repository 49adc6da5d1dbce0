"""Repeats of a measurement: which of them count, and what they come to.

Whatever else runs on a machine only ever makes a repeat slower. A repeat is calm when it took at
most `CALM` times the fastest one; the others were disturbed and do not count. On a quiet machine
nearly all are calm, and the median of the calm ones is the median.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

from nasaug.devices.entries import RowKey, Timing

CALM = 1.15
# A burst is a row's share of one round; the rounds spread its repeats over the whole measurement.
BURST, LEAST_BURST, LONGEST_BURST = 6, 3, 60_000_000
LEAST_BURSTS = 5
# So many times the bursts that a quiet machine needs are tried.
PATIENCE = 4
# Calm repeats that last this long together are enough, be they ever so few.
LONG_ENOUGH = 300_000_000
WARM_UP = 3

Bursts = list[list[int]]
# None stands for an empty run: what calling the backend costs when there is nothing to do.
Samples = dict[RowKey | None, Bursts]


def calm(bursts: Iterable[Sequence[int]]) -> list[int]:
    """The repeats (ns) that nothing disturbed, of all bursts together."""
    repeats = [repeat for burst in bursts for repeat in burst]
    limit = CALM * min(repeats, default=0)
    return [repeat for repeat in repeats if repeat <= limit]


def enough(bursts: Sequence[Sequence[int]], repeats: int) -> bool:
    """Whether there are `repeats` calm ones, or some that together last long enough."""
    found = calm(bursts)
    return len(found) >= repeats or sum(found) >= LONG_ENOUGH


def missing(bursts: Sequence[Sequence[int]], repeats: int) -> int:
    """How many calm repeats are still to be had; 0 too when nearly all attempts were disturbed."""
    needed = max(LEAST_BURSTS, math.ceil(repeats / BURST))
    if len(bursts) >= PATIENCE * needed:
        return 0
    if len(bursts) >= LEAST_BURSTS and enough(bursts, repeats):
        return 0
    return max(1, repeats - len(calm(bursts)))


def timing_of(bursts: Iterable[Sequence[int]], empty: int = 0) -> Timing:
    """Median and quartiles of the calm repeats, less what an `empty` run costs (ns)."""
    found = [max(0, repeat - empty) for repeat in calm(bursts)]
    if len(found) < 2:
        return Timing(found[0], repeats=1)
    q1, median, q3 = statistics.quantiles(found, n=4, method="inclusive")
    return Timing(round(median), round(q1), round(q3), len(found))


def timed_burst(run: Callable[[], object]) -> list[int]:
    """Nanoseconds of up to `BURST` runs after some to warm up; fewer of a slow one."""
    for _ in range(WARM_UP):
        run()
    repeats: list[int] = []
    while len(repeats) < BURST and (len(repeats) < LEAST_BURST or sum(repeats) < LONGEST_BURST):
        start = time.perf_counter_ns()
        run()
        repeats.append(time.perf_counter_ns() - start)
    return repeats
