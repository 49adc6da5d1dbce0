"""Samplers that propose feasible members only: the study stores what was evaluated.

Optuna's own TPE and NSGA-II know categorical decisions, not the graph: what they propose may be
over a limit, incomplete (NSGA-II omits mutated decisions) or nothing at all (their first trials).
Here every proposal is followed along the graph as long as some completion meets the limits; where
it leaves them, the choice that agrees with most of its decisions is taken instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nasaug.supernet import ChoicePath, Edge, Region, SearchSpace

JUDGED = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials whose candidate was judged: on everything, or until it lost a race."""

FIRST_TRIALS = 16
"""Uniform draws before TPE models anything, and the population of NSGA-II."""

MakeSampler = Callable[[int], BaseSampler]


class FeasibleSampler(BaseSampler):
    """Proposes members of `space` within `region` that were not proposed before, where it can.

    Trial n draws from a generator seeded by (seed, n), failed trials not counted, so that a search
    which was interrupted and resumed proposes what an uninterrupted one would have. This class
    draws uniformly; the others override `propose`.
    """

    attempts = 100

    def __init__(self, space: SearchSpace, region: Region, seed: int) -> None:
        self.space, self.region, self.seed = space, region, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(values) for name, values in self.space.decisions.items()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        earlier = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number < trial.number and other.state != TrialState.FAIL
        ]
        rng = random.Random(f"{self.seed}/trial/{len(earlier)}")
        # Another worker's trial may be half written.
        whole = [other for other in earlier if len(other.params) == len(search_space)]
        seen = {self.space.path_of(other.params) for other in whole}
        for _ in range(self.attempts):
            path = self.propose(study, trial, earlier, rng)
            if path not in seen:
                return dict(self.space.parameters(path))
        for _ in range(FeasibleSampler.attempts):
            path = self.region.sample_path(rng)
            if path not in seen:
                break
        return dict(self.space.parameters(path))

    def propose(
        self, study: Study, trial: FrozenTrial, earlier: list[FrozenTrial], rng: random.Random
    ) -> ChoicePath:
        """A member within the region, given the earlier trials that did not fail."""
        return self.region.sample_path(rng)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError(f"{param_name} is not a decision of the space")


class FollowingSampler(FeasibleSampler):
    """Follows the proposals of Optuna's own samplers, made anew by `make(seed)` for each trial."""

    attempts = 10

    def __init__(self, space: SearchSpace, region: Region, seed: int, make: MakeSampler) -> None:
        super().__init__(space, region, seed)
        self._make = make

    def propose(
        self, study: Study, trial: FrozenTrial, earlier: list[FrozenTrial], rng: random.Random
    ) -> ChoicePath:
        distributions = self.infer_relative_search_space(study, trial)
        inner = self._make(rng.getrandbits(31))
        proposal = inner.sample_relative(study, trial, distributions)
        if not proposal:
            return self.region.sample_path(rng)
        return follow(self.space, self.region, proposal, rng)


def follow(
    space: SearchSpace, region: Region, proposal: Mapping[str, Any], rng: random.Random
) -> ChoicePath:
    """The member of `region` that agrees with a proposal's decisions, row by row, as far as some
    completion meets the limits. Decisions that it lacks are drawn.
    """

    def agreement(index: int, edge: Edge) -> int:
        row = space.rows[index]
        choice = row.choices[edge.choice]._asdict()
        wanted = {name.rpartition(".")[2]: proposal.get(name) for name in row.decisions}
        same = sum(int(choice[key] == v) for key, v in wanted.items() if v is not None)
        # Absent and present rows differ more than two present ones: their other decisions vanish.
        return same + (len(wanted) if choice["present"] == wanted.get("present", True) else 0)

    def pick(index: int, edges: list[Edge]) -> Edge:
        row = space.rows[index]
        if row.optional and f"{row.name}.present" not in proposal:
            is_present = rng.choice(sorted({row.choices[edge.choice].present for edge in edges}))
            edges = [e for e in edges if row.choices[e.choice].present == is_present]
        scores = [agreement(index, edge) for edge in edges]
        best = max(scores)
        return rng.choice([e for e, score in zip(edges, scores, strict=True) if score == best])

    return region.walk(rng, pick)


def tpe(space: SearchSpace, region: Region, seed: int) -> FeasibleSampler:
    """Tree-structured Parzen estimator (Bergstra et al., 2011), multivariate."""

    def make(seed: int) -> BaseSampler:
        # The constant liar would store Optuna's own proposal beside the one that is evaluated.
        return TPESampler(n_startup_trials=FIRST_TRIALS, seed=seed, constant_liar=False)

    return FollowingSampler(space, region, seed, make)


def nsga2(space: SearchSpace, region: Region, seed: int) -> FeasibleSampler:
    """NSGA-II (Deb et al., 2002)."""

    def make(seed: int) -> BaseSampler:
        return NSGAIISampler(population_size=FIRST_TRIALS, seed=seed)

    return FollowingSampler(space, region, seed, make)
