"""Which repeats count, and when there are enough of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.devices import Timing
from nasaug.devices.samples import (
    BURST,
    LEAST_BURSTS,
    LONG_ENOUGH,
    PATIENCE,
    calm,
    enough,
    missing,
    timed_burst,
    timing_of,
)

QUIET = [1000] * 10


def test_slow_repeats_are_disturbed() -> None:
    assert calm([[1000, 1150, 1151, 5000], [1100]]) == [1000, 1150, 1100]


def test_a_disturbed_burst_counts_for_nothing_once_a_calm_one_is_there() -> None:
    assert timing_of([[2000] * 6]) == Timing(2000, 2000, 2000, 6)
    assert timing_of([[2000] * 6, [1000, 1100, 1050]]).median == 1050


@settings(deadline=None)
@given(st.lists(st.integers(1000, 1150), min_size=2, max_size=50))
def test_median_and_quartiles_on_a_quiet_machine_are_those_of_all(repeats: list[int]) -> None:
    timing = timing_of([repeats])
    kept = [repeat for repeat in repeats if repeat <= 1.15 * min(repeats)]
    q1, median, q3 = np.quantile(kept, [0.25, 0.5, 0.75])
    assert timing.repeats == len(kept)
    assert [timing.q1, timing.median, timing.q3] == [round(q1), round(median), round(q3)]


def test_an_empty_run_is_taken_off() -> None:
    assert timing_of([[1000, 1010, 1020]], empty=400) == Timing(610, 605, 615, 3)
    assert timing_of([[1000]], empty=1200) == Timing(0, repeats=1)


def test_enough_is_so_many_calm_repeats_or_so_long_a_time() -> None:
    assert enough([QUIET] * 3, 30)
    assert not enough([QUIET, QUIET, [1000] * 9 + [9000]], 30)
    assert enough([[LONG_ENOUGH // 2] * 2], 30)
    assert not enough([[LONG_ENOUGH // 2] * 1], 30)


def test_repeats_come_in_several_bursts_be_they_ever_so_many() -> None:
    assert missing([], 30) == 30
    assert missing([QUIET] * 2, 30) == 10
    assert missing([QUIET] * (LEAST_BURSTS - 1), 30) == 1
    assert missing([QUIET] * LEAST_BURSTS, 30) == 0


def test_patience_ends() -> None:
    hopeless = [[1000, 2000, 3000]]
    most = PATIENCE * max(LEAST_BURSTS, -(-60 // BURST))
    assert missing(hopeless * (most - 1), 60) == 60 - (most - 1)
    assert missing(hopeless * most, 60) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.045])
def test_a_burst_of_something_slow_is_shorter(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock[0])
    runs = []

    def run() -> None:
        runs.append(1)
        clock[0] += round(seconds * 1e9)

    repeats = timed_burst(run)
    assert repeats == [round(seconds * 1e9)] * (3 if seconds else BURST)
    assert len(runs) == len(repeats) + 3
