"""Evolution as a sampler: it finds better than chance, and breeds from what is known."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial

from nasaug.search import EvolutionSampler, search
from nasaug.search.evolution import POPULATION
from nasaug.supernet import ChoicePath, Limits, SearchSpace

MakeSurface = Callable[..., Any]


def _best(space: SearchSpace, judge: Any, sampler: str, trials: int, seed: int) -> float:
    budget = (space.source.cheapest + space.source.dearest) // 2
    study = search(space, judge, budget, InMemoryStorage(), sampler, trials, seed)
    return study.best_value


def test_evolution_finds_better_than_random_search(
    space: SearchSpace, surface: MakeSurface
) -> None:
    """On additive surfaces, 150 trials, means over five seeds of both search and surface."""
    found = {
        sampler: mean(_best(space, surface(space, s), sampler, 150, s) for s in range(5))
        for sampler in ("evolution", "random")
    }
    assert found["evolution"] > found["random"] + 0.01


def test_search_is_random_until_the_first_population_is_full(
    space: SearchSpace, surface: MakeSurface
) -> None:
    budget = 2 * space.source.cheapest
    evolved, drawn = (
        search(space, surface(space), budget, InMemoryStorage(), sampler, 50).trials
        for sampler in ("evolution", "random")
    )
    same = [a.params == b.params for a, b in zip(evolved, drawn, strict=True)]
    assert same == [True] * POPULATION + [False] * (50 - POPULATION)


def _shared(space: SearchSpace, child: Any, parents: list[Any]) -> float:
    """The largest share of rows in which the child's choice is that of one parent."""
    own = space.path_of(child)
    return max(
        mean(a == b for a, b in zip(own, space.path_of(parent), strict=True)) for parent in parents
    )


def test_children_resemble_the_good_of_the_living(space: SearchSpace, surface: MakeSurface) -> None:
    """Nearer to one of the last population than random draws are, and of a better mean."""
    judge, budget = surface(space), space.source.dearest
    trials = search(space, judge, budget, InMemoryStorage(), trials=100).trials
    drawn = search(space, judge, budget, InMemoryStorage(), "random", trials=100).trials
    resembling = {
        name: mean(
            _shared(space, some[n].params, [t.params for t in some[n - POPULATION : n]])
            for n in range(POPULATION, 100)
        )
        for name, some in (("evolution", trials), ("random", drawn))
    }
    assert resembling["evolution"] > resembling["random"] + 0.1
    first, last = trials[:POPULATION], trials[-POPULATION:]
    assert mean(t.value or 0 for t in last) > mean(t.value or 0 for t in first)


def _children(
    space: SearchSpace, ancestors: list[tuple[ChoicePath, float]], count: int = 60
) -> list[ChoicePath]:
    """What is bred from trials that have finished, in their order: members and their values."""
    sampler = EvolutionSampler(space, space.within(Limits()), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    options: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices) for name, choices in space.decisions.items()
    }
    for path, value in ancestors:
        values = space.parameters(path)
        study.add_trial(create_trial(params=values, distributions=options, value=value))
    children = []
    for _ in range(count):
        trial = study.ask()
        for name, choices in space.decisions.items():
            trial.suggest_categorical(name, choices)
        children.append(space.path_of(trial.params))
    return children


def _likeness(space: SearchSpace, child: ChoicePath, parent: ChoicePath) -> float:
    """The share of equal choices among the rows that have several."""
    pairs = zip(space.rows, child, parent, strict=True)
    return mean(a == b for row, a, b in pairs if len(row.choices) > 1)


@pytest.fixture
def small(space: SearchSpace) -> ChoicePath:
    return space.path(space.target)


@pytest.fixture
def large(space: SearchSpace) -> ChoicePath:
    return space.path(space.largest)


def test_child_of_one_parent_is_a_mutant_of_it(space: SearchSpace, small: ChoicePath) -> None:
    """Every choice is drawn anew with a probability of 0.1."""
    children = _children(space, [(small, 0.5)] * POPULATION)
    assert small not in children
    assert 0.8 < mean(_likeness(space, child, small) for child in children) < 0.97


def test_the_old_die_however_good(space: SearchSpace, small: ChoicePath, large: ChoicePath) -> None:
    children = _children(space, [(large, 1.0)] * POPULATION + [(small, 0.0)] * POPULATION)
    assert mean(_likeness(space, child, small) for child in children) > 0.8


def test_the_better_of_the_living_win_tournaments(
    space: SearchSpace, small: ChoicePath, large: ChoicePath
) -> None:
    half = POPULATION // 2
    children = _children(space, [(small, 0.5), (large, 0.6)] * half)
    nearer = [_likeness(space, c, large) > _likeness(space, c, small) for c in children]
    assert mean(nearer) > 0.8


def test_some_children_have_two_parents(
    space: SearchSpace, small: ChoicePath, large: ChoicePath
) -> None:
    """A quarter are crossed; half of those have two different parents where all are as good."""
    children = _children(space, [(small, 0.5), (large, 0.5)] * (POPULATION // 2), count=200)
    crossed = [
        min(_likeness(space, child, small), _likeness(space, child, large)) > 0.3
        for child in children
    ]
    assert 0.03 < mean(crossed) < 0.3


def test_sampler_refuses_what_is_no_decision(space: SearchSpace) -> None:
    sampler = EvolutionSampler(space, space.within(Limits()), seed=0)
    with pytest.raises(AssertionError, match="lr is not a decision"):
        sampler.sample_independent(None, None, "lr", None)  # type: ignore[arg-type]
