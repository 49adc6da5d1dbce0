"""Several objectives, several limits, and races, with every sampler."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nasaug.search import SAMPLERS, pareto_front, ranking, search
from nasaug.search.samplers import follow
from nasaug.supernet import Architecture, Limits, SearchSpace

MakeSurface = Callable[..., Any]
TRIALS = 40


@pytest.fixture(params=sorted(SAMPLERS))
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _limits(space: SearchSpace) -> Limits:
    """Binding ones of every kind."""
    members = [space.sample_path(random.Random(seed)) for seed in range(200)]
    middle = [sorted(map(cost, members))[100] for cost in (space.params, space.memory)]
    low, high = space.source.cheapest, space.source.dearest
    return Limits((low + high) // 2, low + (high - low) // 10, *middle)


def test_every_candidate_meets_all_limits_and_is_stored_as_judged(
    space: SearchSpace, surface: MakeSurface, sampler: str
) -> None:
    limits, judge = _limits(space), surface(space)
    study = search(space, judge, limits, InMemoryStorage(), sampler, TRIALS)
    region = space.within(limits)
    assert len(study.trials) == TRIALS
    for trial in study.trials:
        path = space.path_of(trial.params)
        assert region.contains(path)
        assert trial.params == space.parameters(path), "irrelevant decisions are normalised"
        assert trial.value == judge.worth(path)
        assert trial.user_attrs["macs"] == space.macs(path)
        assert trial.user_attrs["params"] == space.params(path)
        assert trial.user_attrs["memory"] == space.memory(path)
        assert trial.user_attrs["flash"] == space.flash(path)
        assert trial.user_attrs["feasible"] is True
        assert all(value <= 0 for value in trial.constraints.values())
        assert set(trial.constraints) == {"macs", "least_macs", "params", "memory"}
    assert len({*judge.asked}) == len(judge.asked) == TRIALS


def test_interrupted_search_with_any_sampler_proposes_what_a_whole_one_would(
    space: SearchSpace, surface: MakeSurface, sampler: str
) -> None:
    limits, storage = _limits(space), InMemoryStorage()
    whole = search(space, surface(space), limits, InMemoryStorage(), sampler, TRIALS, seed=3)
    for trials in (10, 25, TRIALS):
        parts = search(
            space, surface(space), limits, storage, sampler, trials, seed=3, resume=trials > 10
        )
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]


def test_samplers_that_learn_beat_random_draws(space: SearchSpace, surface: MakeSurface) -> None:
    """On the mean of three surfaces, 100 trials each."""
    best = {name: 0.0 for name in ("evolution", "tpe", "nsga2", "random")}
    limits = Limits(macs=space.source.dearest // 2)
    for seed in range(3):
        for name in best:
            judge = surface(space, seed)
            best[name] += search(space, judge, limits, InMemoryStorage(), name, 100).best_value / 3
    assert min(best["evolution"], best["tpe"], best["nsga2"]) > best["random"], best


def test_front_holds_what_no_other_dominates_and_no_duplicate(
    space: SearchSpace, surface: MakeSurface, sampler: str
) -> None:
    judge = surface(space)
    study = search(
        space,
        judge,
        space.source.dearest,
        InMemoryStorage(),
        sampler,
        TRIALS,
        objectives=("accuracy", "macs"),
    )
    points = {path: (judge.worth(path), space.macs(path)) for path in judge.asked}
    expected = {
        path
        for path, (worth, macs) in points.items()
        if not any(
            (w >= worth and m <= macs) and (w, m) != (worth, macs) for w, m in points.values()
        )
    }
    front = pareto_front(study, space)
    assert {path for path, _ in front} == expected
    assert len(front) == len(expected) > 1
    assert [trial.values[0] for _, trial in front] == sorted(
        (trial.values[0] for _, trial in front), reverse=True
    )
    assert all(trial.values == [judge.worth(p), space.macs(p)] for p, trial in front)


def test_duplicate_costs_nothing_and_appears_once(
    tiny_space: SearchSpace, surface: MakeSurface, sampler: str
) -> None:
    judge = surface(tiny_space)
    study = search(
        tiny_space,
        judge,
        tiny_space.source.dearest,
        InMemoryStorage(),
        sampler,
        30,
        objectives=("accuracy", "macs"),
    )
    assert len(study.trials) == 30
    assert len(judge.asked) == len({*judge.asked}) <= 16
    front = pareto_front(study, tiny_space)
    assert len({path for path, _ in front}) == len(front)


def test_search_for_a_front_finds_more_of_it_than_random_draws(
    space: SearchSpace, surface: MakeSurface
) -> None:
    """By the area that the front dominates, over three surfaces."""
    areas = {"evolution": 0.0, "nsga2": 0.0, "random": 0.0}
    most = space.source.dearest
    for seed in range(3):
        for name in areas:
            study = search(
                space,
                surface(space, seed),
                most,
                InMemoryStorage(),
                name,
                120,
                seed,
                objectives=("accuracy", "macs"),
            )
            points = sorted((t.values[1], t.values[0]) for _, t in pareto_front(study, space))
            ends = [*[macs for macs, _ in points[1:]], most]
            for (macs, worth), end in zip(points, ends, strict=True):
                areas[name] += worth * (end - macs) / most
    assert areas["evolution"] > areas["random"]
    assert areas["nsga2"] > areas["random"]


def test_two_judged_objectives_are_both_stored(space: SearchSpace, surface: MakeSurface) -> None:
    one, two = surface(space, 0), surface(space, 1)
    study = search(
        space,
        lambda arch: (one(arch), two(arch)),
        space.source.dearest,
        InMemoryStorage(),
        trials=5,
        objectives=("accuracy", "help", "params"),
    )
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        path = space.path_of(trial.params)
        assert trial.values == [one.worth(path), two.worth(path), space.params(path)]


@pytest.mark.parametrize(
    "objectives", [(), ("macs",), ("macs", "accuracy"), ("accuracy", "accuracy")]
)
def test_objectives_that_make_no_sense_are_refused(
    space: SearchSpace, objectives: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="objectives must be distinct and begin with a judged"):
        search(space, lambda _: 0.5, 10**9, InMemoryStorage(), objectives=objectives)


@pytest.mark.parametrize("given", [(0.5,), 0.5, (0.5, math.nan), (0.1, 0.2, 0.3)])
def test_judgement_must_have_a_number_for_every_objective(space: SearchSpace, given: Any) -> None:
    with pytest.raises(ValueError, match="which is not 2 numbers"):
        search(
            space,
            lambda _: given,
            10**9,
            InMemoryStorage(),
            trials=1,
            objectives=("accuracy", "help"),
        )


def test_candidate_out_of_reach_is_pruned_and_not_judged(
    space: SearchSpace, surface: MakeSurface
) -> None:
    judge, raced = surface(space), []

    def race(candidate: Architecture, incumbents: list[Architecture]) -> float | None:
        worths = [judge.worth(space.path(one)) for one in incumbents]
        assert worths == sorted(worths, reverse=True)
        mine = judge.worth(space.path(candidate))
        raced.append(mine)
        return mine / 2 if mine < worths[0] else None

    study = search(space, judge, 10**9, InMemoryStorage(), trials=TRIALS, race=race)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    judged = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(pruned) + len(judged) == TRIALS
    assert len(raced) == TRIALS - 1, "the first has nobody to race"
    assert [trial.value for trial in judged] == sorted(trial.value for trial in judged)
    assert len(judge.asked) == len(judged)
    for trial in pruned:
        assert trial.intermediate_values == {0: judge.worth(space.path_of(trial.params)) / 2}
    assert {trial.number for _, trial in ranking(study, space)} == {t.number for t in judged}


def test_races_are_for_one_objective(space: SearchSpace) -> None:
    with pytest.raises(ValueError, match="racing is for a single objective"):
        search(
            space,
            lambda _: 0.5,
            10**9,
            InMemoryStorage(),
            objectives=("accuracy", "macs"),
            race=lambda *_: None,
        )


def test_proposal_is_followed_where_it_is_feasible(space: SearchSpace) -> None:
    region, rng = space.within(Limits(macs=space.source.dearest // 3)), random.Random(0)
    for _ in range(50):
        path = region.sample_path(rng)
        assert follow(space, region, space.parameters(path), rng) == path


def test_proposal_over_the_limits_or_incomplete_is_completed_to_a_member(
    space: SearchSpace,
) -> None:
    region, rng = space.within(Limits(macs=space.source.dearest // 3)), random.Random(0)
    largest = space.parameters(space.path(space.largest))
    first = dict(list(largest.items())[:3])
    for proposal in (largest, first, {}):
        path = follow(space, region, proposal, rng)
        assert region.contains(path)
    followed = space.parameters(follow(space, region, first, rng))
    assert {name: followed[name] for name in first} == first


def test_omitted_presence_of_a_row_is_drawn(space: SearchSpace) -> None:
    """NSGA-II leaves out what it mutates."""
    region = space.within(Limits())
    proposal = space.parameters(space.path(space.largest))
    (name, *_) = [name for name in proposal if name.endswith(".present")]
    del proposal[name]
    drawn = {
        space.parameters(follow(space, region, proposal, random.Random(seed)))[name]
        for seed in range(20)
    }
    assert drawn == {True, False}


def test_trials_of_optunas_samplers_store_no_other_proposal(
    space: SearchSpace, surface: MakeSurface
) -> None:
    """TPE's constant liar would keep its own, infeasible one beside that which was judged."""
    study: optuna.Study = search(
        space, surface(space), space.source.dearest // 3, InMemoryStorage(), "tpe", 30
    )
    assert not any("relative_params" in key for t in study.trials for key in t.system_attrs)
