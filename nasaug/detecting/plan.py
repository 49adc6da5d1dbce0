"""What a detection study still has to run, derived from what it has run.

Order: the pre-trainings by which their rates are chosen; the detectors by which theirs are, after
the pre-trainings that these begin with; the final runs seed by seed, so that a study that is cut
short has every method and size equally often.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasaug.comparing.cells import Cell, tuning_seeds
from nasaug.comparing.plan import Later
from nasaug.comparing.store import Store
from nasaug.comparing.tuning import Tuned, mean_score, tuned
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.runs import Runs

# A rate and a seed, for what a run is like whose own are not known yet.
ANY = 0.1, 0
# A method's detectors at one input size.
Curve = tuple[str, int]


@dataclass(frozen=True)
class Plan:
    """`cells` are in the order in which they are to run, each once; `later` are runs that are sure
    to come. Rates are those of the pre-trainings by method, and of the detectors by method and
    size; `starts` and `finals` are the runs with the study's seeds, as far as they are known."""

    cells: tuple[Cell, ...]
    later: tuple[Later, ...]
    start_rates: dict[str, Tuned]
    rates: dict[Curve, Tuned]
    starts: dict[str, dict[int, Cell]]
    finals: dict[Curve, dict[int, Cell]]


class Planner:
    """Makes plans from what the store holds."""

    def __init__(self, study: DetectStudy, store: Store) -> None:
        self.study, self.store = study, store
        self.runs = Runs(study, store.root)
        self.start_seeds = tuning_seeds(study.seeds, study.tune_pretrain.seeds)
        self.tuning_seeds = tuning_seeds(study.seeds, study.tune.seeds)

    @property
    def threads(self) -> int:
        return self.study.threads

    def plan(self) -> Plan:
        return _Draft(self).finished()

    def score(self, cell: Cell) -> float | None:
        """What a run is judged by: accuracy or mAP on validation pictures."""
        return self.mean_score([cell])

    def mean_score(self, cells: list[Cell]) -> float | None:
        key = "validation_map" if cells[0].command == "detect" else "validation_top1"
        return mean_score(self.store, cells, key)


class _Draft:
    """A plan while it is being made."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.study, self.runs = planner, planner.study, planner.runs
        self.cells: dict[str, Cell] = {}
        self.later: list[Later] = []
        self.start_rates: dict[str, Tuned] = {}
        self.rates: dict[Curve, Tuned] = {}

    def finished(self) -> Plan:
        study = self.study
        for method in study.methods:
            if self.runs.pretrains(method):
                self._tune_start(method)
        curves = [(method, size) for method in study.methods for size in study.sizes]
        for curve in curves:
            self._tune(*curve)
        starts: dict[str, dict[int, Cell]] = {method: {} for method in self.start_rates}
        finals: dict[Curve, dict[int, Cell]] = {curve: {} for curve in curves}
        for seed in study.seeds:
            for method in starts:
                if (start := self._start(method, seed)) is not None:
                    starts[method][seed] = self._add(start)
                elif self.start_rates[method].wanted:
                    self._expect(self.runs.pretraining(method, *ANY), 1)
            for method, size in curves:
                self._final(method, size, seed, starts, finals)
        cells = tuple(self.cells.values())
        return Plan(cells, tuple(self.later), self.start_rates, self.rates, starts, finals)

    def _add(self, cell: Cell) -> Cell:
        """Two methods' runs may be one: then the first name stands."""
        return self.cells.setdefault(cell.identity, cell)

    def _tune_start(self, method: str) -> None:
        def cells(rate: float) -> list[Cell]:
            seeds = self.planner.start_seeds
            return [self.runs.pretraining(method, rate, seed, True) for seed in seeds]

        choice = tuned(self.study.tune_pretrain, lambda rate: self.planner.mean_score(cells(rate)))
        self.start_rates[method] = choice
        for rate in choice.tried:
            for cell in cells(rate):
                self._add(cell)

    def _start(self, method: str, seed: int) -> Cell | None:
        """The pre-training with a seed; None while its rate is not known."""
        rate = self.start_rates[method].rate
        return None if rate is None else self.runs.pretraining(method, rate, seed)

    def _tune(self, method: str, size: int) -> None:
        """On pre-trainings with seeds of their own, at the rate that these came to."""
        tune, seeds = self.study.tune, self.planner.tuning_seeds
        if tune.off:
            self.rates[method, size] = tuned(tune, lambda rate: None)
            return
        starts: dict[int, Cell | None] = dict.fromkeys(seeds)
        if method in self.start_rates:
            starts = {seed: self._start(method, seed) for seed in seeds}
            if self.start_rates[method].rate is None:
                waits = tune.grid if self.start_rates[method].wanted else ()
                self.rates[method, size] = Tuned(None, {}, waits)
                like = self.runs.detecting(method, size, *ANY, None, True)
                self._expect(like, len(waits) * tune.seeds)
                return

        def cells(rate: float) -> list[Cell]:
            return [
                self.runs.detecting(method, size, rate, seed, start, True)
                for seed, start in starts.items()
            ]

        choice = tuned(tune, lambda rate: self.planner.mean_score(cells(rate)))
        self.rates[method, size] = choice
        for start in starts.values():
            if start is not None:
                self._add(start)
        for rate in choice.tried:
            for cell in cells(rate):
                self._add(cell)

    def _final(
        self,
        method: str,
        size: int,
        seed: int,
        starts: dict[str, dict[int, Cell]],
        finals: dict[Curve, dict[int, Cell]],
    ) -> None:
        choice = self.rates[method, size]
        start = starts[method].get(seed) if method in starts else None
        if choice.rate is not None and (start is not None or method not in starts):
            cell = self.runs.detecting(method, size, choice.rate, seed, start)
            finals[method, size][seed] = self._add(cell)
        elif choice.wanted or (choice.rate is not None and self.start_rates[method].wanted):
            self._expect(self.runs.detecting(method, size, *ANY, None), 1)

    def _expect(self, like: Cell, runs: int) -> None:
        """So many runs that are sure to come."""
        assert like.arm is not None
        if runs:
            self.later.append(Later(like.arm, runs, like.epochs))
