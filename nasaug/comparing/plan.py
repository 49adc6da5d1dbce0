"""What a study still has to run, derived from what it has run.

Order: what others build on; the tuning runs; the final runs by seed, so that a study that is cut
short has every method equally often. The final runs of an arm that is tuned do not wait for others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nasaug.comparing.cells import Arm, Cell, Cells
from nasaug.comparing.costs import Cost, Costs
from nasaug.comparing.store import Store
from nasaug.comparing.tuning import Tuned, mean_score, tuned
from nasaug.study_config import Kind, Study


@dataclass(frozen=True)
class Match:
    """Two arms at equal epochs, MACs or time. `reference` is None while its length is not known,
    and `unknown` says why where it never will be."""

    arm: Arm
    kind: Kind
    reference: Arm | None
    unknown: str = ""


@dataclass(frozen=True)
class Later:
    """Runs that are sure to come, about which not all is known yet; costs as `arm`'s."""

    arm: Arm
    runs: int
    epochs: float


@dataclass(frozen=True)
class Plan:
    """`cells` are in the order in which they are to run, each once; `seeds` are the final ones of
    each arm. The arms of `tuning` and of all others are the study's, then the references that are
    of a length of their own."""

    cells: tuple[Cell, ...]
    later: tuple[Later, ...]
    tuning: dict[Arm, Tuned]
    matches: tuple[Match, ...]
    seeds: dict[Arm, tuple[int, ...]]
    finals: dict[Arm, dict[int, Cell]]


class Planner:
    """Makes plans from what the store holds. `arms` are the methods on their targets, at their
    lengths."""

    def __init__(self, study: Study, store: Store) -> None:
        self.study, self.store = study, store
        self.cells = Cells(study, store.root)
        self.costs = Costs(self.cells, store)
        # A dict for its order and for its quick look-up.
        self.arms = dict.fromkeys(
            Arm(target, method, epochs)
            for target in study.targets
            for epochs in self.cells.lengths
            for method in study.methods
            if target in study.of(method) and epochs in self.cells.lengths_of(method)
        )

    @property
    def threads(self) -> int:
        return self.study.threads

    def plan(self) -> Plan:
        tuning = {arm: self._tuned(arm) for arm in self.arms}
        matches = [self._match(arm, kind, tuning) for arm in self.arms for kind in self._kinds(arm)]
        for match in matches:
            if match.reference is not None and match.reference not in tuning:
                tuning[match.reference] = self._tuned_longer(match.reference, tuning)
        seeds = self._seeds(tuning, matches)
        finals = {arm: self._finals(arm, tuning[arm], seeds[arm]) for arm in tuning}
        cells = [cell for arm in self.arms for cell in self.cells.needed(arm.method, arm.target)]
        cells += [cell for arm in tuning for cell in self._trials(arm, tuning[arm])]
        cells += [
            finals[arm][seeds[arm][index]]
            for index in range(max(map(len, seeds.values())))
            for arm in tuning
            if index < len(seeds[arm]) and finals[arm]
        ]
        # Two methods, or two arms' tuning runs, may come to the same: then the first name stands.
        once: dict[str, Cell] = {}
        for cell in cells:
            once.setdefault(cell.identity, cell)
        return Plan(
            tuple(once.values()),
            tuple(self._later(tuning, seeds, matches)),
            tuning,
            tuple(matches),
            seeds,
            finals,
        )

    def _kinds(self, arm: Arm) -> tuple[Kind, ...]:
        return () if self.study.against(arm.method) is None else self.study.equals(arm.method)

    def _tuned(self, arm: Arm) -> Tuned:
        return tuned(self.study.tune, lambda rate: self._score(arm, rate))

    def _tuned_longer(self, arm: Arm, tuning: dict[Arm, Tuned]) -> Tuned:
        """Of a reference that is of a length of its own: anew, or as the nearest length."""
        if self.study.tune.longer:
            return self._tuned(arm)

        def apart(epochs: int) -> float:
            warmup = self.cells.warmup
            return abs(math.log((epochs + warmup) / (arm.epochs + warmup)))

        nearest = min(self.cells.lengths_of(arm.method), key=apart)
        return tuning[Arm(arm.target, arm.method, nearest)]

    def _score(self, arm: Arm, rate: float) -> float | None:
        return mean_score(self.store, self.cells.tuning(arm, rate), "validation_top1")

    def _trials(self, arm: Arm, choice: Tuned) -> list[Cell]:
        own = self.study.tune.longer or arm in self.arms
        rates = choice.tried if own else ()
        return [cell for rate in rates for cell in self.cells.tuning(arm, rate)]

    def _finals(self, arm: Arm, choice: Tuned, seeds: tuple[int, ...]) -> dict[int, Cell]:
        if choice.rate is None:
            return {}
        return {seed: self.cells.final(arm, choice.rate, seed) for seed in seeds}

    def _match(self, arm: Arm, kind: Kind, tuning: dict[Arm, Tuned]) -> Match:
        """The arm beside the one that it is compared with, which trains as long as costs the same:
        at a length of the study where that is near enough, else at one of its own."""
        against = self.study.against(arm.method)
        assert against is not None
        other = Arm(arm.target, against, arm.epochs)
        if kind == "epochs":
            return Match(arm, kind, other)
        mine, theirs = (self._cost(one, kind, tuning[one]) for one in (arm, other))
        for cost in (mine, theirs):
            if not isinstance(cost, Cost):
                return Match(arm, kind, None, cost or "")
        assert isinstance(mine, Cost) and isinstance(theirs, Cost)
        epochs = theirs.nearest(mine.of(arm.epochs), self.cells.lengths_of(against))
        return Match(arm, kind, Arm(arm.target, against, epochs))

    def _cost(self, arm: Arm, kind: Kind, choice: Tuned) -> Cost | str | None:
        """By the tuning runs, which are complete when a rate is chosen; by the first final one
        where nothing is tuned."""
        if choice.rate is None:
            return None if choice.wanted else f"{arm.method}: {choice.said}"
        first = self.study.seeds_of(arm.method)[0]
        runs = self._trials(arm, choice) or [self.cells.final(arm, choice.rate, first)]
        return self.costs.of(arm, kind, runs)

    def _seeds(self, tuning: Iterable[Arm], matches: Iterable[Match]) -> dict[Arm, tuple[int, ...]]:
        """A method's own seeds, and those of all that are compared with it."""
        wanted: dict[Arm, dict[int, None]] = {}
        for arm in tuning:
            own = arm in self.arms
            wanted[arm] = dict.fromkeys(self.study.seeds_of(arm.method) if own else ())
        for match in matches:
            if match.reference is not None:
                wanted[match.reference] |= dict.fromkeys(self.study.seeds_of(match.arm.method))
        return {arm: tuple(seeds) for arm, seeds in wanted.items()}

    def _later(
        self,
        tuning: dict[Arm, Tuned],
        seeds: dict[Arm, tuple[int, ...]],
        matches: Iterable[Match],
    ) -> list[Later]:
        """Final runs of arms that are not tuned yet, and all runs of references of unknown length,
        which by definition cost what the other side costs."""
        study, warmup = self.study, self.cells.warmup
        later = [
            Later(arm, len(seeds[arm]), arm.epochs + warmup)
            for arm, choice in tuning.items()
            if choice.rate is None and choice.wanted
        ]
        trials = len(study.tune.grid) * study.tune.seeds
        if study.tune.off or not study.tune.longer:
            trials = 0
        for match in matches:
            if match.reference is None and not match.unknown:
                arm = match.arm
                runs = len(study.seeds_of(arm.method))
                later.append(Later(arm, runs, arm.epochs + warmup))
                later.append(Later(arm, trials, self.cells.tuning_epochs(arm) + warmup))
        return [one for one in later if one.runs]
