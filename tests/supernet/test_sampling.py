"""Random members are uniform over what the budget allows, proven against brute force."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nasaug.supernet import (
    Architecture,
    ChoicePath,
    Conv,
    DepthwiseSeparable,
    Edge,
    GlobalAvgPool,
    Infeasible,
    InvertedResidual,
    Limits,
    Linear,
    SearchSpace,
    counting,
    load_target,
    macs,
)

SpaceOf = Callable[[str], SearchSpace]
TINY = Architecture(
    (
        Conv(3, 2, 8, "relu6"),
        DepthwiseSeparable(3, 1, 8, "relu6"),
        InvertedResidual(3, 2, 24, 12, "relu6", False),
        Conv(1, 1, 32, "relu6"),
        GlobalAvgPool(),
        Linear(4),
    ),
    resolution=48,
    name="tiny",
)


def _tiny_space() -> SearchSpace:
    """4 widths of 2, an expansion of 2, and a prefix of at most 2 extra rows: 1 + 2 + 4."""
    return SearchSpace.around(
        TINY, width=(1, 2), expand=(1, 2), kernel_growth=(0,), extra_depth=(0, 1, 2)
    )


@pytest.fixture(scope="module")
def cost_of() -> dict[ChoicePath, int]:
    """MACs of every member of the tiny space."""
    space = _tiny_space()
    paths: list[ChoicePath] = [()]
    for _ in space.rows:
        paths = [(*path, edge.choice) for path in paths for edge in _offers(space, path)]
    assert len(paths) == 2**4 * 2 * 7
    return {path: macs(space.architecture(path)) for path in paths}


def _offers(space: SearchSpace, path: ChoicePath) -> list[Edge]:
    node = space.source
    for choice in path:
        node = next(edge.head for edge in node.edges if edge.choice == choice)
    return node.edges


def _quantile(cost_of: dict[ChoicePath, int], share: float) -> int:
    return sorted(cost_of.values())[int(share * (len(cost_of) - 1))]


@pytest.mark.parametrize("share", [None, 1.0, 0.95, 0.5, 0.1])
def test_sampling_is_uniform_over_the_feasible_members(
    cost_of: dict[ChoicePath, int], share: float | None
) -> None:
    space, rng = _tiny_space(), random.Random(0)
    budget = None if share is None else _quantile(cost_of, share)
    feasible = {path for path, cost in cost_of.items() if budget is None or cost <= budget}
    drawn = Counter(space.sample_path(rng, budget) for _ in range(40 * len(feasible)))
    assert drawn.keys() <= feasible
    assert chisquare([drawn[path] for path in feasible]).pvalue > 1e-4


def test_member_one_mac_over_the_budget_is_drawn_and_rejected(
    cost_of: dict[ChoicePath, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excess costs are counted in quanta, rounded down, so the exact cost has the last word."""
    monkeypatch.setitem(counting.CELLS, 1, 16)
    space, rng = _tiny_space(), random.Random(0)
    rejected = 0
    for share in (0.1, 0.2, 0.4, 0.6):
        budget = _quantile(cost_of, share) - 1
        region = space.within(Limits(macs=budget))
        feasible = {path for path, cost in cost_of.items() if cost <= budget}
        drawn = Counter(region.sample_path(rng) for _ in range(40 * len(feasible)))
        assert drawn.keys() <= feasible
        assert chisquare([drawn[path] for path in feasible]).pvalue > 1e-4
        rejected += region.drawn - region.accepted
    assert rejected > 0, "the budgets must be ones that quanta cannot tell"


def test_least_feasible_budget_leaves_the_target_alone(cost_of: dict[ChoicePath, int]) -> None:
    space, rng = _tiny_space(), random.Random(0)
    least = min(cost_of.values())
    assert least == macs(TINY)
    assert all(space.sample(rng, least) == TINY for _ in range(20))


def test_infeasible_budget_is_an_error_that_says_the_least() -> None:
    space, least = _tiny_space(), macs(TINY)
    words = f"budget must be at least tiny's own {least:,} MACs, but got {least - 1:,}"
    calls: list[Callable[[int], object]] = [
        lambda budget: space.sample(random.Random(0), budget),
        lambda budget: space.sample_path(random.Random(0), budget),
        lambda budget: space.within(Limits(macs=budget)),
    ]
    for call in calls:
        with pytest.raises(Infeasible, match=words) as caught:
            call(least - 1)
        assert isinstance(caught.value, ValueError)
        call(least)


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0, 1.2),
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["mbv2_tiny", "mcunet", "micro_10k", "micro_down", "mbv3_ofa"]),
)
def test_no_sample_is_over_its_budget(
    space_of: SpaceOf, share: float, seed: int, name: str
) -> None:
    space = space_of(name)
    low, high = space.source.cheapest, space.source.dearest
    budget = int(low + share * (high - low))
    rng = random.Random(seed)
    assert all(macs(space.sample(rng, budget)) <= budget for _ in range(5))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.7])
def test_most_draws_are_accepted(space_name: str, space_of: SpaceOf, share: float) -> None:
    space, rng = space_of(space_name), random.Random(0)
    low, high = space.source.cheapest, space.source.dearest
    region = space.within(Limits(macs=int(low + share * (high - low))))
    for _ in range(50):
        region.sample_path(rng)
    assert region.accepted >= 50
    assert region.acceptance > 0.8


def test_region_reports_its_draws() -> None:
    space = _tiny_space()
    region = space.within(Limits(macs=(space.source.cheapest + space.source.dearest) // 2))
    assert (region.drawn, region.accepted, region.acceptance) == (0, 0, 1.0)
    rng = random.Random(0)
    for _ in range(100):
        region.sample_path(rng)
    assert region.accepted == 100
    assert region.acceptance == 100 / region.drawn


@pytest.mark.parametrize("share", [None, 0.3])
def test_same_seed_draws_the_same_members(published: str, share: float | None) -> None:
    def draws(seed: int) -> list[Architecture]:
        space = SearchSpace.around(load_target(published, 10))
        low, high = space.source.cheapest, space.source.dearest
        budget = None if share is None else int(low + share * (high - low))
        rng = random.Random(seed)
        return [space.sample(rng, budget) for _ in range(5)]

    state = random.getstate()
    assert draws(1) == draws(1) != draws(2)
    assert random.getstate() == state, "the default generator must not be drawn from"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), data=st.data())
def test_every_walk_ends_within_its_budget(
    space_of: SpaceOf, share: float, data: st.DataObject
) -> None:
    space = space_of("micro_10k")
    low, high = space.source.cheapest, space.source.dearest
    budget = int(low + share * (high - low))
    region = space.within(Limits(macs=budget))
    path = region.walk(random.Random(0), lambda _, edges: data.draw(st.sampled_from(edges)))
    assert low <= space.macs(path) <= budget


def test_walk_offers_every_feasible_choice_and_no_other(cost_of: dict[ChoicePath, int]) -> None:
    space, budget = _tiny_space(), _quantile(cost_of, 0.3)
    feasible = {path for path, cost in cost_of.items() if cost <= budget}
    for goal in feasible:

        def pick(index: int, edges: list[Edge], goal: ChoicePath = goal) -> Edge:
            expected = {path[index] for path in feasible if path[:index] == goal[:index]}
            assert {edge.choice for edge in edges} == expected
            return next(edge for edge in edges if edge.choice == goal[index])

        assert space.within(Limits(macs=budget)).walk(random.Random(0), pick) == goal
