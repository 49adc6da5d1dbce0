"""The rows of a space, against those of its members one by one."""

from __future__ import annotations

import random

import pytest

from nasaug.devices import RowKey, networks_covering, rows_of
from nasaug.supernet import Architecture, Linear, SearchSpace, load_target


def keys_of(arch: Architecture) -> set[RowKey]:
    whole = arch.canonical()
    return {RowKey(*k) for k in zip(whole.rows, whole.widths_in, whole.sizes_in, strict=True)}


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return SearchSpace.around(
        load_target("micro_10k", 10), (1, 2), (1, 2), kernel_growth=(0,), extra_depth=(0, 1)
    )


def test_rows_are_those_of_all_members(small: SearchSpace) -> None:
    """Every member by brute force: each choice of each row that makes a path."""
    partial: list[tuple[int, ...]] = [()]
    for row in small.rows:
        partial = [(*path, choice) for path in partial for choice in range(len(row.choices))]
        partial = [path for path in partial if _is_path(small, path)]
    assert len(partial) >= small.count() > 100
    found = set().union(*(keys_of(small.architecture(path)) for path in partial))
    assert rows_of(small) == found


def _is_path(space: SearchSpace, start: tuple[int, ...]) -> bool:
    node = space.source
    for choice in start:
        edge = node.table[choice]
        if edge is None:
            return False
        node = edge.head
    return True


def test_rows_of_a_default_space_hold_those_of_random_members(space: SearchSpace) -> None:
    rng, rows = random.Random(0), rows_of(space)
    for _ in range(50):
        assert keys_of(space.sample(rng)) <= rows


@pytest.mark.parametrize("seed", range(3))
def test_few_members_cover_all_rows(space: SearchSpace, seed: int) -> None:
    rows = rows_of(space)
    networks = list(networks_covering(space, rows, random.Random(seed)))
    assert set().union(*map(keys_of, networks)) == rows
    for arch in networks:
        space.path(arch)
    assert len(networks) <= 60 < len(rows)


def test_only_wanted_rows_are_covered_and_seeds_differ(space: SearchSpace) -> None:
    wanted = set(random.Random(1).sample(sorted(rows_of(space), key=str), 5))
    one, other, same = (list(networks_covering(space, wanted, random.Random(s))) for s in (1, 2, 1))
    assert set().union(*map(keys_of, one)) >= wanted
    assert len(one) <= 5
    assert one == same != other
    assert list(networks_covering(space, [], random.Random(0))) == []


def test_a_row_that_no_member_has(space: SearchSpace) -> None:
    stranger = RowKey(Linear(11), 5, 1)
    said = r"no member of the space has linear \(out 11\) reading 5 channels at 1 x 1"
    with pytest.raises(ValueError, match=said):
        list(networks_covering(space, [stranger], random.Random(0)))
