"""The rounds of a measurement, with a backend whose times are known."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nasaug.devices import (
    RowKey,
    Samples,
    disturbed,
    draw_networks,
    empty_run,
    measure_networks,
    measure_rows,
    rows_of,
)
from nasaug.supernet import SearchSpace


@pytest.mark.parametrize("noise", [0, 3, 8])
def test_rows_are_measured_through_noise(space: SearchSpace, known: Any, noise: int) -> None:
    backend, samples = known(noise), Samples()
    found = measure_rows(backend, space, rows_of(space), samples, random.Random(0))
    assert found.keys() == rows_of(space)
    for key, timing in found.items():
        assert timing.median == timing.q1 == timing.q3 == known.of_row(key)
        assert timing.repeats is not None and timing.repeats >= 30
    assert empty_run(samples) == known.EMPTY
    assert disturbed(samples, rows_of(space)) == 0


def test_a_hopeless_machine_ends_and_is_told(space: SearchSpace, known: Any) -> None:
    rows, samples = rows_of(space), Samples()
    measure_rows(known(9), space, rows, samples, random.Random(0))
    assert disturbed(samples, rows) == len(rows)


def test_every_burst_is_noted_and_what_was_noted_is_not_measured_again(
    space: SearchSpace, known: Any
) -> None:
    rows = rows_of(space)
    noted = Samples()

    def note(key: RowKey | None, burst: Any) -> None:
        noted.setdefault(key, []).append(list(burst))

    samples = Samples()
    first = measure_rows(known(), space, rows, samples, random.Random(0), note=note)
    assert noted == samples
    backend = known()
    assert measure_rows(backend, space, rows, noted, random.Random(0)) == first
    assert backend.swept == []
    one = next(iter(rows))
    del noted[one]
    assert measure_rows(backend, space, rows, noted, random.Random(0)) == first
    assert backend.swept and all(wanted == {one} for wanted in backend.swept)


def test_only_rows_that_lack_repeats_are_swept_again(space: SearchSpace, known: Any) -> None:
    rows, samples = rows_of(space), Samples()
    shy = next(iter(rows))

    class Shy(known):  # type: ignore[misc]
        def sweep(self, space: Any, wanted: Any, rng: Any) -> Any:
            for bursts in super().sweep(space, wanted, rng):
                if shy in bursts:
                    bursts = {shy: [bursts[shy][0], *(10 * t for t in bursts[shy][1:])]}
                yield bursts

    backend = Shy()
    found = measure_rows(backend, space, rows, samples, random.Random(0))
    assert backend.swept[0] == set(rows)
    assert backend.swept[-1] == {shy}
    assert found[shy].median == known.of_row(shy)


def test_progress_goes_up_to_the_whole(space: SearchSpace, known: Any) -> None:
    seen: list[tuple[int, int]] = []
    watch = lambda done, total: seen.append((done, total))  # noqa: E731
    rows = rows_of(space)
    measure_rows(known(), space, rows, {}, random.Random(0), 20, watch=watch)
    assert {total for _, total in seen} == {20 * (len(rows) + 1)}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_networks_are_measured_in_the_order_given(space: SearchSpace, known: Any) -> None:
    networks = draw_networks(space, 7, random.Random(0))
    seen: list[tuple[int, int]] = []
    watch = lambda done, total: seen.append((done, total))  # noqa: E731
    found = measure_networks(known(4), networks, random.Random(1), watch=watch)
    assert [timing.median for timing in found] == [known.of_network(arch) for arch in networks]
    assert seen[-1] == (210, 210)


@pytest.mark.parametrize("repeats", [2, 10_001])
def test_repeats_have_bounds(space: SearchSpace, known: Any, repeats: int) -> None:
    said = f"repeats must be from 3 to 10,000, but got {repeats}"
    with pytest.raises(ValueError, match=said):
        measure_rows(known(), space, [], {}, random.Random(0), repeats)
    with pytest.raises(ValueError, match=said):
        measure_networks(known(), [], random.Random(0), repeats)
