"""What a study still has to run, derived from what it has run.

Order: what others build on; the tuning runs; the final runs by seed, so that a study that is cut
short has every method equally often. The final runs of an arm that is tuned do not wait for others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from nasaug.comparing.cells import Arm, Cell, Cells
from nasaug.comparing.store import Store
from nasaug.comparing.tuning import Tuned, tuned
from nasaug.study_config import Kind, Study

# A method whose cost is this near to the other's is compared with it as it is.
TOLERANCE = 0.05
QUANTITY = {"macs": "macs", "time": "seconds"}
WORDS = {"macs": "MACs", "time": "seconds"}


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
    """`cells` are in the order in which they are to run; `seeds` are the final ones of each arm."""

    cells: tuple[Cell, ...]
    later: tuple[Later, ...]
    tuning: dict[Arm, Tuned]
    matches: tuple[Match, ...]
    seeds: dict[Arm, tuple[int, ...]]
    finals: dict[Arm, dict[int, Cell]]


class Planner:
    """Makes plans from what the store holds."""

    def __init__(self, study: Study, store: Store) -> None:
        self.study, self.store = study, store
        self.cells = Cells(study, store.folder)

    def arms(self) -> list[Arm]:
        """The methods on their targets, at the study's epochs."""
        study, epochs = self.study, self.cells.epochs
        return [
            Arm(target, method, epochs)
            for target in study.targets
            for method in study.methods
            if target in study.of(method)
        ]

    def plan(self) -> Plan:
        arms = self.arms()
        tuning = {arm: self._tuned(arm) for arm in arms}
        matches = [self._match(arm, kind, tuning) for arm in arms for kind in self._kinds(arm)]
        longer = dict.fromkeys(m.reference for m in matches if m.reference is not None)
        for arm in longer:
            if arm not in tuning:
                tuning[arm] = self._tuned_longer(arm, tuning)
        seeds = self._seeds(tuning, matches)
        before = dict.fromkeys(cell for arm in arms for cell in self._before(arm))
        trials = [cell for arm in tuning for cell in self._trials(arm, tuning[arm])]
        finals = {arm: self._finals(arm, tuning[arm], seeds[arm]) for arm in tuning}
        most = max(map(len, seeds.values()))
        by_seed = [
            finals[arm][seeds[arm][index]]
            for index in range(most)
            for arm in tuning
            if index < len(seeds[arm]) and finals[arm]
        ]
        return Plan(
            (*before, *dict.fromkeys(trials), *by_seed),
            tuple(self._later(tuning, seeds, matches)),
            tuning,
            tuple(matches),
            seeds,
            finals,
        )

    def _kinds(self, arm: Arm) -> tuple[Kind, ...]:
        return () if self.study.against(arm.method) is None else self.study.equals(arm.method)

    def _before(self, arm: Arm) -> list[Cell]:
        """The runs that an arm builds on."""
        wanted = self.cells.needed(arm.method, arm.target)
        made = [self.cells.before(name, arm.target) for name in self.study.before]
        return [cell for cell in made if cell.name in wanted]

    def _tuned(self, arm: Arm) -> Tuned:
        return tuned(self.study.tune, lambda rate: self._score(self.cells.tuning(arm, rate)))

    def _tuned_longer(self, arm: Arm, tuning: dict[Arm, Tuned]) -> Tuned:
        if self.study.tune.longer:
            return self._tuned(arm)
        return tuning[Arm(arm.target, arm.method, self.cells.epochs)]

    def _score(self, cells: Iterable[Cell]) -> float | None:
        """Mean validation accuracy; one run that diverged is enough to rule a rate out."""
        scores: list[float] = []
        for cell in cells:
            result = self.store.result(cell.name)
            if result is not None:
                scores.append(float(result["validation_top1"]))
                continue
            failure = self.store.failure(cell.name)
            if failure is None or not failure.diverged:
                return None
            scores.append(-math.inf)
        return sum(scores) / len(scores)

    def _trials(self, arm: Arm, choice: Tuned) -> list[Cell]:
        own = self.study.tune.longer or arm.epochs == self.cells.epochs
        rates = choice.tried if own else ()
        return [cell for rate in rates for cell in self.cells.tuning(arm, rate)]

    def _finals(self, arm: Arm, choice: Tuned, seeds: tuple[int, ...]) -> dict[int, Cell]:
        if choice.rate is None:
            return {}
        return {seed: self.cells.final(arm, choice.rate, seed) for seed in seeds}

    def _match(self, arm: Arm, kind: Kind, tuning: dict[Arm, Tuned]) -> Match:
        against = self.study.against(arm.method)
        assert against is not None
        other = Arm(arm.target, against, arm.epochs)
        if kind == "epochs":
            return Match(arm, kind, other)
        costs: list[float] = []
        for one in (arm, other):
            for cost in (self._cost_per_epoch(one, kind, tuning[one]), self.counted(one, kind)):
                if not isinstance(cost, float):
                    why = f"{one.method}: {cost}" if cost is not None else ""
                    return Match(arm, kind, None, why)
                costs.append(cost)
        mine, extra, theirs, their_extra = costs
        passes = arm.epochs + self.cells.warmup
        spent = mine * passes + extra
        if abs(spent / (theirs * passes + their_extra) - 1) <= TOLERANCE:
            return Match(arm, kind, other)
        epochs = max(1, round((spent - their_extra) / theirs - self.cells.warmup))
        return Match(arm, kind, Arm(arm.target, against, epochs))

    def _cost_per_epoch(self, arm: Arm, kind: Kind, choice: Tuned) -> float | str | None:
        """Median over the tuning runs (the first final one without any), which are then complete:
        what it is derived from never changes. Text says why it is unknown, None that it is yet."""
        if choice.rate is None:
            return None if choice.wanted else choice.said
        cells = self._trials(arm, choice)
        if not cells:
            cells = [self.cells.final(arm, choice.rate, self.study.seeds_of(arm.method)[0])]
        results = [(cell, self.store.result(cell.name)) for cell in cells]
        done = [(cell, result) for cell, result in results if result is not None]
        if not done:
            return None
        key = f"train_{QUANTITY[kind]}"
        costs = [float(result[key]) / cell.epochs for cell, result in done if result.get(key)]
        return median(costs) if costs else f"its runs do not say their {WORDS[kind]}"

    def counted(self, arm: Arm, kind: Kind) -> float | str | None:
        """The cost of the runs before that count as part of a method; text says why it is unknown,
        None that it is yet."""
        total = 0.0
        for name in self.study.section(arm.method).counts:
            cell = self.cells.before_name(name, arm.target)
            if self.store.result(cell) is None:
                return None
            cost = self.store.cost(cell)[QUANTITY[kind]]
            if cost is None:
                return f"{name} does not say its {WORDS[kind]}"
            total += cost
        return total

    def _seeds(self, tuning: Iterable[Arm], matches: Iterable[Match]) -> dict[Arm, tuple[int, ...]]:
        """A method's own seeds, and those of all that are compared with it."""
        wanted: dict[Arm, dict[int, None]] = {}
        for arm in tuning:
            own = arm.epochs == self.cells.epochs
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
