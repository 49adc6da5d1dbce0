"""Members within several limits at once, proven against brute force over a small space."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasaug.supernet import (
    Architecture,
    ChoicePath,
    Conv,
    Edge,
    GlobalAvgPool,
    Infeasible,
    InvertedResidual,
    Limits,
    Linear,
    Row,
    SearchSpace,
    counting,
    flash_size,
    load_target,
    macs,
    params,
    peak_memory,
)

TARGET = Architecture(
    (
        Conv(3, 2, 8, "relu6"),
        InvertedResidual(3, 1, 16, 8, "relu6", True),
        InvertedResidual(3, 2, 24, 12, "relu6", False),
        Conv(1, 1, 32, "relu6"),
        GlobalAvgPool(),
        Linear(4),
    ),
    resolution=32,
    name="tiny",
)
Costs = dict[str, int]


def _price(row: Row, in_channels: int, size: int) -> int:
    """Nanoseconds that fall where MACs rise now and then, as measured ones do."""
    return 1000 + (hash_of(row) * 7919 + in_channels * 31 + size) % 5000


def hash_of(row: Row) -> int:
    return sum(ord(letter) * place for place, letter in enumerate(repr(row), 1))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    around = SearchSpace.around(
        TARGET, width=(1, 2), expand=(1, 2), kernel_growth=(0, 2), extra_depth=(0, 1)
    )
    return around.priced(_price)


@pytest.fixture(scope="module")
def members(space: SearchSpace) -> dict[ChoicePath, Costs]:
    """All costs of all members, each from its architecture."""
    paths: list[tuple[ChoicePath, object]] = [((), space.source)]
    for _ in space.rows:
        paths = [((*p, e.choice), e.head) for p, node in paths for e in node.edges]  # type: ignore[attr-defined]
    found = {}
    for path, _ in paths:
        arch = space.architecture(path)
        sizes = zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True)
        found[path] = {
            "macs": macs(arch),
            "params": params(arch),
            "memory": peak_memory(arch),
            "flash": flash_size(arch),
            "latency": sum(_price(*each) for each in sizes),
        }
    assert len(found) == space.count() > 1000
    return found


def _feasible(members: dict[ChoicePath, Costs], limits: Limits) -> set[ChoicePath]:
    return {
        path
        for path, costs in members.items()
        if all(costs[n] <= limit for n, limit in limits.given.items() if n != "least_macs")
        and costs["macs"] >= (limits.least_macs or 0)
    }


def _quantile(members: dict[ChoicePath, Costs], cost: str, share: float) -> int:
    return sorted(costs[cost] for costs in members.values())[int(share * (len(members) - 1))]


def _limits(members: dict[ChoicePath, Costs], **shares: float) -> Limits:
    return Limits(
        **{
            name: _quantile(members, name.removeprefix("least_"), share)
            for name, share in shares.items()
        }
    )


CASES: list[dict[str, float]] = [
    {"macs": 0.02},
    {"macs": 0.5, "least_macs": 0.45},
    {"params": 0.1},
    {"memory": 0.3},
    {"latency": 0.05},
    {"flash": 0.1},
    {"macs": 0.3, "flash": 0.3, "memory": 0.6},
    {"macs": 0.3, "params": 0.3},
    {"macs": 0.4, "latency": 0.2},
    {"macs": 0.6, "least_macs": 0.5, "params": 0.5},
    {"macs": 0.3, "params": 0.3, "latency": 0.3},
    {"macs": 0.6, "least_macs": 0.3, "params": 0.5, "memory": 0.6, "latency": 0.5},
    {"macs": 0.6, "params": 0.4, "flash": 0.4, "latency": 0.5},
]


@pytest.mark.parametrize("shares", CASES)
@pytest.mark.parametrize("coarse", [False, True])
def test_members_within_limits_are_drawn_uniformly_and_counted(
    space: SearchSpace,
    members: dict[ChoicePath, Costs],
    shares: dict[str, float],
    coarse: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "EXACT_WORK", 10**8)
    if coarse:
        monkeypatch.setattr(counting, "CELLS", {0: 1, 1: 40, 2: 20, 3: 12, 4: 8})
    limits = _limits(members, **shares)
    feasible = _feasible(members, limits)
    assert 3 <= len(feasible) < len(members)
    region = space.priced(_price).within(limits) if coarse else space.within(limits)
    count = region.count()
    assert 0.98 * count.low <= len(feasible) <= 1.02 * count.high
    assert not count.exact or count.value == len(feasible)
    assert count.exact or len(shares) > 1
    rng = random.Random(0)
    drawn = Counter(region.sample_path(rng) for _ in range(max(2000, 8 * len(feasible))))
    assert drawn.keys() <= feasible
    assert chisquare([drawn[path] for path in feasible]).pvalue > 1e-4
    assert region.acceptance <= 1
    assert {path for path in members if region.contains(path)} == feasible


@settings(max_examples=30, deadline=None)
@given(
    ends=st.tuples(st.floats(0, 1), st.floats(0, 0.05)), off=st.tuples(*[st.integers(0, 40)] * 2)
)
def test_bands_whose_ends_are_nobodys_costs_are_counted_exactly(
    space: SearchSpace,
    members: dict[ChoicePath, Costs],
    ends: tuple[float, float],
    off: tuple[int, int],
) -> None:
    """Costs come in steps, and a band may begin and end between two of them, or lie there whole."""
    low, width = ends
    least = _quantile(members, "macs", low) + off[0]
    most = _quantile(members, "macs", min(1, low + width)) + off[0] + off[1]
    limits = Limits(macs=most, least_macs=least)
    feasible = _feasible(members, limits)
    if not feasible:
        with pytest.raises(Infeasible):
            space.within(limits)
        return
    region = space.within(limits)
    count = region.count()
    assert count.exact
    assert count.value == len(feasible)
    assert region.sample_path(random.Random(0)) in feasible


def test_band_inside_one_step_of_the_costs_is_empty() -> None:
    around = SearchSpace.around(load_target("micro_10k", 10))
    least = around.source.cheapest
    with pytest.raises(Infeasible):
        around.within(Limits(macs=least + 1, least_macs=least + 1))


def test_count_that_is_too_large_to_be_exact_is_estimated_with_an_interval(
    space: SearchSpace, members: dict[ChoicePath, Costs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "CELLS", {0: 1, 1: 40, 2: 20, 3: 12, 4: 8})
    monkeypatch.setattr(counting, "EXACT_WORK", 1)
    limits = _limits(members, macs=0.3, params=0.3)
    count = space.priced(_price).within(limits).count()
    assert not count.exact
    assert count.low < count.value < count.high < 1.2 * count.low
    assert count.low <= len(_feasible(members, limits)) <= count.high


def test_counts_beyond_64_bits_are_exact() -> None:
    """All but the one dearest path, and exactly so."""
    around = SearchSpace.around(
        load_target("micro_10k", 10, 16),
        width=(1, 1.5, 2),
        expand=(1, 1.25, 1.5, 1.75, 2),
        extra_depth=range(9),
    )
    assert around.count() > 2**66
    count = around.within(Limits(macs=around.source.dearest - 1)).count()
    assert count.exact
    assert count.value == around.count() - 1


@settings(max_examples=20, deadline=None)
@given(data=st.data(), shares=st.sampled_from(CASES))
def test_every_walk_ends_within_all_limits(
    space: SearchSpace,
    members: dict[ChoicePath, Costs],
    data: st.DataObject,
    shares: dict[str, float],
) -> None:
    limits = _limits(members, **shares)

    def pick(index: int, edges: list[Edge]) -> Edge:
        return edges[data.draw(st.integers(0, len(edges) - 1))]

    path = space.within(limits).walk(random.Random(0), pick)
    assert path in _feasible(members, limits)


def test_walk_that_always_ends_outside_gives_way_to_a_draw(
    space: SearchSpace, members: dict[ChoicePath, Costs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "CELLS", {0: 1, 1: 4, 2: 4, 3: 4, 4: 4})
    limits = _limits(members, macs=0.3, params=0.02)
    region = space.priced(_price).within(limits)
    path = region.walk(random.Random(0), lambda _, edges: max(edges, key=lambda e: e.params))
    assert path in _feasible(members, limits)


@pytest.mark.parametrize(
    ("cost", "option", "unit"),
    [
        ("macs", "budget", "MACs"),
        ("params", "max-params", "parameters"),
        ("memory", "max-memory", "bytes"),
        ("flash", "max-flash", "bytes of flash"),
        ("latency", "max-latency", "ns"),
    ],
)
def test_limit_that_no_member_meets_is_said_with_the_least(
    space: SearchSpace, members: dict[ChoicePath, Costs], cost: str, option: str, unit: str
) -> None:
    least = min(costs[cost] for costs in members.values())
    with pytest.raises(Infeasible, match=rf"^{option} must be at least .*{least:,} {unit}"):
        space.within(Limits(**{cost: least - 1}))
    assert space.within(Limits(**{cost: least})).count().value >= 1


def test_lower_end_above_every_member_is_said_with_the_most(space: SearchSpace) -> None:
    most = space.source.dearest
    with pytest.raises(Infeasible, match=f"lower end must be at most {most:,} MACs"):
        space.within(Limits(least_macs=most + 1))
    assert space.within(Limits(least_macs=most)).count().value == 1


def test_limits_that_exclude_each_other_are_an_error_of_their_own(
    space: SearchSpace, members: dict[ChoicePath, Costs]
) -> None:
    least_macs = _quantile(members, "macs", 0.9)
    rest = [costs["params"] for costs in members.values() if costs["macs"] >= least_macs]
    limits = Limits(least_macs=least_macs, params=min(rest))
    space.within(limits)
    with pytest.raises(Infeasible) as caught:
        space.within(replace(limits, params=min(rest) - 1))
    text = str(caught.value)
    assert "each limit can be met alone, but no member meets all of them" in text
    said = f"with at least {least_macs:,} MACs the least is {min(rest):,} parameters"
    assert said in text


def test_memory_that_excludes_another_limit_is_said(
    space: SearchSpace, members: dict[ChoicePath, Costs]
) -> None:
    memory = min(costs["memory"] for costs in members.values())
    most = max(costs["macs"] for costs in members.values() if costs["memory"] <= memory)
    with pytest.raises(Infeasible, match=rf"memory, members have [\d,]+ to {most:,} MACs"):
        space.within(Limits(memory=memory, least_macs=most + 1))


def test_band_between_two_neighbours_is_empty(
    space: SearchSpace, members: dict[ChoicePath, Costs]
) -> None:
    values = sorted({costs["macs"] for costs in members.values()})
    low, high = max(itertools.pairwise(values), key=lambda pair: pair[1] - pair[0])
    with pytest.raises(Infeasible, match=r"at least .* MACs, at most"):
        space.within(Limits(macs=high - 1, least_macs=low + 1))


def test_latency_limit_needs_a_price() -> None:
    space = SearchSpace.around(TARGET)
    with pytest.raises(ValueError, match="needs a latency table"):
        space.within(Limits(latency=10**9))
    with pytest.raises(ValueError, match="no latency"):
        space.latency(space.path(space.target))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"macs": 0}, "macs must be at least 1, but got 0"),
        ({"memory": -5}, "memory must be at least 1, but got -5"),
        ({"macs": 5, "least_macs": 6}, r"from the lower to the higher limit, but got 6\.\.5"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limits(**limits)


def test_limits_read_as_a_sentence() -> None:
    assert str(Limits()) == "no limit"
    limits = Limits(macs=300_000_000, least_macs=200_000_000, memory=262_144)
    text = "at least 200,000,000 MACs, at most 300,000,000 MACs, at most 262,144 bytes of memory"
    assert str(limits) == text
