"""The search itself; every sampler has to pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from nasaug.search import SAMPLERS, ranking, search
from nasaug.supernet import Architecture, Infeasible, SearchSpace, macs, params

MakeSurface = Callable[..., Any]
TRIALS = 60  # far more than evolution's first population


@pytest.fixture(params=sorted(SAMPLERS))
def sampler(request: pytest.FixtureRequest) -> str:
    """Each sampler in turn."""
    return str(request.param)


def _search(
    space: SearchSpace, judge: Callable[[Architecture], float], budget: int, **options: Any
) -> list[FrozenTrial]:
    options.setdefault("storage", InMemoryStorage())
    return search(space, judge, budget, **options).trials


def _budget(space: SearchSpace, share: float) -> int:
    """So far from the cheapest member to the dearest, in MACs."""
    return space.source.cheapest + int(share * (space.source.dearest - space.source.cheapest))


@pytest.mark.parametrize("percent", [1, 5, 50, 2000])
def test_nothing_over_budget_is_evaluated(sampler: str, percent: int, space: SearchSpace) -> None:
    """Budgets from one that only the target fits up to about the largest's cost."""
    budget = space.source.cheapest * (100 + percent) // 100
    judged: list[Architecture] = []

    def judge(arch: Architecture) -> float:
        judged.append(arch)
        return float(macs(arch))

    trials = _search(space, judge, budget, sampler=sampler, trials=TRIALS)
    assert len(trials) == TRIALS
    assert space.target in judged if percent == 1 else len(judged) > 2
    assert all(macs(arch) <= budget for arch in judged)
    assert all(space.embed(arch) for arch in judged)


def test_what_is_stored_is_what_was_evaluated(
    sampler: str, space: SearchSpace, surface: MakeSurface
) -> None:
    judge = surface(space)
    trials = _search(space, judge, _budget(space, 0.3), sampler=sampler, trials=TRIALS)
    paths = [space.path_of(trial.params) for trial in trials]
    assert list(dict.fromkeys(paths)) == judge.asked
    for path, trial in zip(paths, trials, strict=True):
        arch = space.architecture(path)
        assert trial.params.keys() == space.decisions.keys()
        assert trial.value == pytest.approx(judge.worth(path))
        assert trial.user_attrs["macs"] == macs(arch)
        assert trial.user_attrs["params"] == params(arch)


def test_absent_rows_have_their_first_values(
    sampler: str, space: SearchSpace, surface: MakeSurface
) -> None:
    trials = _search(space, surface(space), _budget(space, 0.5), sampler=sampler, trials=TRIALS)
    absent = 0
    for trial in trials:
        for row in space.rows:
            if row.optional and not trial.params[f"{row.name}.present"]:
                absent += 1
                for name, values in row.decisions.items():
                    assert trial.params[name] == values[0]
    assert absent > 5


def test_no_architecture_is_evaluated_twice(
    sampler: str, tiny_space: SearchSpace, surface: MakeSurface
) -> None:
    """16 members in 60 trials: the search ends, and all are found. Resumed, it remembers them."""
    judge, storage = surface(tiny_space), InMemoryStorage()
    options: dict[str, Any] = {"sampler": sampler, "storage": storage, "resume": True}
    for count in (20, TRIALS):
        trials = _search(tiny_space, judge, tiny_space.source.dearest, trials=count, **options)
        assert len(trials) == count
    assert max(Counter(judge.asked).values()) == 1
    assert len(judge.asked) == tiny_space.count() == 16


def test_only_the_target_fits_its_own_budget(
    sampler: str, space: SearchSpace, surface: MakeSurface
) -> None:
    judge = surface(space)
    _search(space, judge, space.source.cheapest, sampler=sampler, trials=5)
    assert [space.architecture(path) for path in judge.asked] == [space.target]


def test_same_seed_gives_the_same_search_and_another_another(
    sampler: str, space: SearchSpace, surface: MakeSurface
) -> None:
    budget = _budget(space, 0.3)
    first, second, third = (
        [
            trial.params
            for trial in _search(
                space, surface(space), budget, sampler=sampler, trials=TRIALS, seed=seed
            )
        ]
        for seed in (1, 1, 2)
    )
    assert first == second
    assert not any(params in first for params in third)


def test_resumed_search_equals_an_uninterrupted_one(
    sampler: str, space: SearchSpace, surface: MakeSurface
) -> None:
    budget = _budget(space, 0.3)
    whole = _search(space, surface(space), budget, sampler=sampler, trials=TRIALS)
    storage, judge = InMemoryStorage(), surface(space)
    for trials in (1, 10, 40, TRIALS):
        parts = _search(
            space, judge, budget, storage=storage, sampler=sampler, trials=trials, resume=True
        )
        assert len(parts) == trials
    assert [t.params for t in parts] == [t.params for t in whole]
    assert [t.value for t in parts] == [t.value for t in whole]
    assert max(Counter(judge.asked).values()) == 1


@pytest.mark.parametrize(("name", "nearest"), [("evolutoin", "evolution"), ("Random", "random")])
def test_unknown_sampler_is_refused_with_the_nearest(
    name: str, nearest: str, space: SearchSpace, surface: MakeSurface
) -> None:
    with pytest.raises(ValueError, match=f"unknown sampler '{name}': did you mean '{nearest}'"):
        _search(space, surface(space), _budget(space, 0.3), sampler=name, trials=1)


def test_budget_below_the_least_member_is_refused(space: SearchSpace, surface: MakeSurface) -> None:
    least = space.source.cheapest
    with pytest.raises(Infeasible, match=f"at least micro_10k's own {least:,} MACs"):
        _search(space, surface(space), least - 1, trials=1)


def test_watch_is_told_the_best_so_far(space: SearchSpace, surface: MakeSurface) -> None:
    seen: list[tuple[int, int, float]] = []
    trials = _search(
        space,
        surface(space),
        _budget(space, 0.3),
        trials=5,
        watch=lambda *values: seen.append(values),
    )
    values = [trial.value or 0.0 for trial in trials]
    assert seen == [(n, 5, max(values[:n])) for n in range(1, 6)]


@pytest.mark.parametrize("seed", [0, 9])
def test_error_of_the_judge_is_passed_on_and_the_candidate_judged_on_resuming(
    seed: int, space: SearchSpace, surface: MakeSurface
) -> None:
    """Its candidate comes first, even if the search goes on by another seed."""
    storage, judge = InMemoryStorage(), surface(space)
    whole = _search(space, surface(space), _budget(space, 0.3), trials=6)

    def broken(arch: Architecture) -> float:
        if len(judge.asked) == 3:
            raise MemoryError("no")
        return float(judge(arch))

    options: dict[str, Any] = {"storage": storage, "trials": 6}
    with pytest.raises(MemoryError):
        _search(space, broken, _budget(space, 0.3), **options)
    _search(space, judge, _budget(space, 0.3), resume=True, seed=seed, **options)
    expected = [space.path_of(trial.params) for trial in whole]
    assert judge.asked[:4] == expected[:4]
    assert (judge.asked == expected) == (seed == 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_judge_that_gives_no_number_is_refused(value: float, space: SearchSpace) -> None:
    """At the third candidate; it must not be proposed for ever. Resumed, it is judged again."""
    storage, asked = InMemoryStorage(), list[Architecture]()

    def judge(arch: Architecture) -> float:
        asked.append(arch)
        return value if len(asked) == 3 else 0.5

    def stop(finished: int, *_: object) -> None:
        assert finished <= 3

    with pytest.raises(ValueError, match=f"was judged {value}, which is no number"):
        _search(space, judge, _budget(space, 0.3), storage=storage, trials=5, watch=stop)
    _search(space, judge, _budget(space, 0.3), storage=storage, trials=4, resume=True)
    assert asked[3] == asked[2]


def test_ranking_is_distinct_and_best_first(tiny_space: SearchSpace) -> None:
    """Accuracies of one digit, so that there are equals: fewer MACs first among them."""

    def judge(arch: Architecture) -> float:
        return (macs(arch) // 1000) % 3 / 10

    budget = tiny_space.source.dearest
    study = search(tiny_space, judge, budget, InMemoryStorage(), trials=50)
    ranked = ranking(study, tiny_space)
    paths = [path for path, _ in ranked]
    assert len(paths) == len(set(paths)) == 16
    keys = [(-(trial.value or 0.0), tiny_space.macs(path)) for path, trial in ranked]
    assert keys == sorted(keys)
    assert len({key[0] for key in keys}) > 1
    for path, trial in ranked:
        assert tiny_space.path_of(trial.params) == path
        assert trial.value == judge(tiny_space.architecture(path))


def test_ranking_leaves_out_what_did_not_finish(space: SearchSpace, surface: MakeSurface) -> None:
    study = search(space, surface(space), _budget(space, 0.3), InMemoryStorage(), trials=3)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.ask()
    assert len(ranking(study, space)) == 3
