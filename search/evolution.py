"""Regularised evolution (Real et al., AAAI 2019) as an Optuna sampler, feasible by construction.

The population is the last finished trials (the old die, however good); a parent wins a tournament;
a child is one parent mutated, or two crossed and mutated (both as Guo et al., 2020, do). Parent
choices are followed along the space's graph as long as some completion fits the budget, and
replaced at random where none does: nothing over budget is ever proposed.
"""

from __future__ import annotations

import random
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from nasaug.supernet import ChoicePath, Edge, SearchSpace

POPULATION = 16
TOURNAMENT = 4
CROSSOVER = 0.25
MUTATION = 0.1
ATTEMPTS = 100


class EvolutionSampler(BaseSampler):
    """Proposes members of `space` within `budget` MACs that were not proposed before, where it can.

    Trial n draws from a generator seeded by (seed, n), failed trials not counted, so that a search
    which was interrupted and resumed proposes what an uninterrupted one would have. With
    `population` as large as the number of trials it is a uniform random search.
    """

    def __init__(
        self, space: SearchSpace, budget: int, seed: int, population: int = POPULATION
    ) -> None:
        self._space, self._budget, self._seed = space, budget, seed
        self._population = population

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(values) for name, values in self._space.decisions.items()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        earlier = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number < trial.number and other.state != TrialState.FAIL
        ]
        rng = random.Random(f"{self._seed}/trial/{len(earlier)}")
        finished = [other for other in earlier if other.state == TrialState.COMPLETE]
        seen = {self._space.path_of(other.params) for other in earlier if other.params}
        for _ in range(ATTEMPTS):
            path = self._propose(finished, rng)
            if path not in seen:
                break
        return dict(self._space.parameters(path))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError(f"{param_name} is not a decision of the space")

    def _propose(self, finished: list[FrozenTrial], rng: random.Random) -> ChoicePath:
        if len(finished) < self._population:
            return self._space.sample_path(rng, self._budget)
        population = finished[-self._population :]
        parents = [self._winner(population, rng)]
        if rng.random() < CROSSOVER:
            parents.append(self._winner(population, rng))

        def pick(row: int, edges: list[Edge]) -> Edge:
            wanted = rng.choice(parents)[row]
            inherited = [edge for edge in edges if edge.choice == wanted]
            mutates = rng.random() < MUTATION
            return rng.choice(edges if mutates or not inherited else inherited)

        return self._space.walk(pick, self._budget)

    def _winner(self, population: list[FrozenTrial], rng: random.Random) -> ChoicePath:
        group = rng.sample(population, min(TOURNAMENT, len(population)))
        best = max(group, key=lambda trial: trial.value or 0.0)
        return self._space.path_of(best.params)
