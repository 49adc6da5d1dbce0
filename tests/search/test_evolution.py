"""Evolution as a sampler: it finds better than chance, and breeds from what is known."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from nasaug.search import EvolutionSampler, search
from nasaug.search.evolution import POPULATION
from nasaug.supernet import Architecture, SearchSpace

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


def test_the_old_die_however_good(space: SearchSpace) -> None:
    """The first population is praised, all later ones are not: their traits are not kept."""
    asked: list[Architecture] = []

    def judge(arch: Architecture) -> float:
        asked.append(arch)
        return 1.0 if len(asked) <= POPULATION else 0.0

    trials = search(space, judge, space.source.dearest, InMemoryStorage(), trials=150).trials
    first = [trial.params for trial in trials[:POPULATION]]
    near = [_shared(space, trial.params, first) for trial in trials[POPULATION:]]
    assert mean(near[-20:]) < mean(near[:20]) - 0.05


def test_sampler_refuses_what_is_no_decision(space: SearchSpace) -> None:
    sampler = EvolutionSampler(space, space.source.dearest, seed=0)
    with pytest.raises(AssertionError, match="lr is not a decision"):
        sampler.sample_independent(None, None, "lr", None)  # type: ignore[arg-type]
