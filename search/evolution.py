"""Regularised evolution (Real et al., AAAI 2019) as an Optuna sampler, feasible by construction.

The population is the last finished trials (the old die, however good); a parent wins a tournament;
a child is one parent mutated, or two crossed and mutated (both as Guo et al., 2020, do). Parent
choices are followed along the space's graph as long as some completion meets the limits, and
replaced at random where none does: nothing outside the limits is ever proposed. With several
objectives the population also holds the Pareto front, and a tournament is won by the member that
fewest others dominate.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nasaug.search.samplers import JUDGED, FeasibleSampler
from nasaug.supernet import ChoicePath, Edge, Region, SearchSpace

POPULATION = 16
TOURNAMENT = 4
CROSSOVER = 0.25
MUTATION = 0.1


class EvolutionSampler(FeasibleSampler):
    """Uniform draws until `population` trials have finished, then their offspring."""

    def __init__(
        self, space: SearchSpace, region: Region, seed: int, population: int = POPULATION
    ) -> None:
        super().__init__(space, region, seed)
        self._population = population

    def propose(
        self, study: Study, trial: FrozenTrial, earlier: list[FrozenTrial], rng: random.Random
    ) -> ChoicePath:
        # A candidate that lost a race has an interim accuracy, which will do for a tournament.
        finished = [other for other in earlier if other.state in JUDGED]
        if len(finished) < self._population:
            return self.region.sample_path(rng)
        population = finished[-self._population :]
        if len(study.directions) > 1:
            beaten = _dominated_by(finished, study.directions)
            front = [t for t, number in zip(finished, beaten, strict=True) if number == 0]
            population = list({t.number: t for t in [*front, *population]}.values())
            fitness = -_dominated_by(population, study.directions).astype(np.float64)
        else:
            fitness = _gains(population, study.directions)[:, 0]
        parents = [self._winner(population, fitness, rng)]
        if rng.random() < CROSSOVER:
            parents.append(self._winner(population, fitness, rng))

        def pick(row: int, edges: list[Edge]) -> Edge:
            wanted = rng.choice(parents)[row]
            inherited = [edge for edge in edges if edge.choice == wanted]
            mutates = rng.random() < MUTATION
            return rng.choice(edges if mutates or not inherited else inherited)

        return self.region.walk(rng, pick)

    def _winner(
        self, population: list[FrozenTrial], fitness: NDArray[Any], rng: random.Random
    ) -> ChoicePath:
        group = rng.sample(range(len(population)), min(TOURNAMENT, len(population)))
        best = max(group, key=lambda index: float(fitness[index]))
        return self.space.path_of(population[best].params)


def _gains(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> NDArray[np.float64]:
    """The trials' values (trials, objectives), each turned so that more is better."""
    signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
    values = [
        trial.values
        if trial.state == TrialState.COMPLETE
        else [*trial.intermediate_values.values()]
        for trial in trials
    ]
    return np.array(values) * signs


def _dominated_by(
    trials: list[FrozenTrial], directions: Sequence[StudyDirection]
) -> NDArray[np.int64]:
    """For each trial, how many others are as good in every objective and better in one."""
    gains = _gains(trials, directions)
    no_worse = (gains[:, None] >= gains[None]).all(-1)
    better = (gains[:, None] > gains[None]).any(-1)
    counts: NDArray[np.int64] = (no_worse & better).sum(0)
    return counts
