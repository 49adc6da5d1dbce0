"""What a contrast still has to run, derived from what it has run.

Order: the tuning searches; the tuning trainings, on what these found; the final runs seed by seed,
so that a contrast that is cut short has every contestant equally often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nasaug.comparing.cells import Cell, tuning_seeds
from nasaug.comparing.identity import identity
from nasaug.comparing.store import Store
from nasaug.comparing.tuning import Tuned, tuned
from nasaug.config import RunConfig, SearchConfig
from nasaug.contrast_config import Contrast
from nasaug.contrasting.contestants import CONTESTANTS, Kind
from nasaug.contrasting.runs import Runs, Searched
from nasaug.train_config import TrainConfig

Score = float | None


@dataclass(frozen=True)
class Entry:
    """A contestant with one seed: its search and its training, None where it has none or where it
    is not known yet what to train."""

    search: Cell | None
    training: Cell | None

    @property
    def last(self) -> Cell | None:
        return self.training or self.search


@dataclass(frozen=True)
class Plan:
    """`cells` are in the order in which they are to run, each once. `expected` are the MACs x
    images of each, and `later` those of runs that are sure to come, about which not all is known
    yet. `rates`: of the kinds of searches and of the contestants that train. `impossible`:
    trainings that cannot be, as in a largest network that is the target itself, and why."""

    cells: tuple[Cell, ...]
    expected: dict[str, float]
    later: tuple[float, ...]
    rates: dict[str, Tuned]
    entries: dict[str, dict[int, Entry]]
    impossible: dict[str, str]


class Planner:
    """Makes plans from what the store holds."""

    def __init__(self, contrast: Contrast, store: Store) -> None:
        self.contrast, self.store = contrast, store
        self.runs = Runs(contrast, store.root)
        self.tuning_seeds = tuning_seeds(contrast.seeds, contrast.tune.seeds)
        self._cells: dict[object, Cell] = {}

    @property
    def threads(self) -> int:
        return self.contrast.threads

    def plan(self) -> Plan:
        return _Draft(self).finished()

    def searched(self, cell: Cell) -> Searched | None:
        """A finished search; None while it is not."""
        if self.store.result(cell.identity) is None:
            return None
        cost = self.store.cost(cell.identity)["macs"]
        assert cost is not None, f"{cell.identity} does not say its MACs"
        return Searched(self.store.folder(cell.identity), round(cost))

    def score(self, cells: Iterable[Cell]) -> Score:
        """Mean validation accuracy; one run that diverged is enough to rule a rate out."""
        scores = []
        for cell in cells:
            result = self.store.result(cell.identity)
            if result is not None:
                search = cell.command == "search"
                scores.append(
                    float(result["best"]["accuracy"] if search else result["validation_top1"])
                )
                continue
            failure = self.store.failure(cell.identity)
            if failure is None or not failure.diverged:
                return None
            scores.append(-math.inf)
        return sum(scores) / len(scores)

    def search_cell(self, kind: Kind, rate: float, seed: int, tunes: bool) -> Cell:
        key = kind, rate, seed, tunes
        if key not in self._cells:
            config = self.runs.search(kind, rate, seed)
            self._cells[key] = self._cell(f"search-{kind}", config, rate, seed, tunes)
        return self._cells[key]

    def training_cell(
        self, name: str, rate: float, seed: int, search: Cell | None, tunes: bool
    ) -> Cell:
        key = name, rate, seed, search, tunes
        if key not in self._cells:
            searched = None if search is None else self.searched(search)
            share = self.contrast.tune.share if tunes else 1.0
            config = self.runs.training(name, rate, seed, searched, share)
            self._cells[key] = self._cell(name, config, rate, seed, tunes, search)
        return self._cells[key]

    def _cell(
        self,
        name: str,
        config: RunConfig,
        rate: float,
        seed: int,
        tunes: bool,
        search: Cell | None = None,
    ) -> Cell:
        assert isinstance(config, TrainConfig | SearchConfig)
        return Cell(
            f"{'tune-' if tunes else ''}{name}-lr{rate!r}-s{seed}",
            identity(config, self.store.root),
            "train" if isinstance(config, TrainConfig) else "search",
            config,
            lr=rate,
            seed=seed,
            tuning=tunes,
            needs=() if search is None else (search.identity,),
        )


def _tuned_as(kind: Kind) -> Kind:
    """A search with all of the compute takes the rate of one with a share of it."""
    return "up" if kind == "up" else "down"


class _Draft:
    """A plan while it is being made."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.contrast = planner, planner.contrast
        self.cells: dict[str, Cell] = {}
        self.expected: dict[str, float] = {}
        self.later: list[float] = []
        self.rates: dict[str, Tuned] = {}
        self.impossible: dict[str, str] = {}

    def finished(self) -> Plan:
        for kind in dict.fromkeys(map(_tuned_as, self.contrast.needs)):
            self._tune_search(kind)
        for name in self.contrast.contestants:
            if CONTESTANTS[name].keys is not None:
                self._tune_training(name)
        entries: dict[str, dict[int, Entry]] = {name: {} for name in self.contrast.contestants}
        for seed in self.contrast.seeds:
            for name in entries:
                entries[name][seed] = self._entry(name, seed)
        cells = tuple(self.cells.values())
        later = tuple(self.later)
        return Plan(cells, self.expected, later, self.rates, entries, self.impossible)

    def _add(self, cell: Cell, macs: float) -> Cell:
        """Two contestants' runs may be one: then the first name stands."""
        self.expected.setdefault(cell.identity, macs)
        return self.cells.setdefault(cell.identity, cell)

    def _tune_search(self, kind: Kind) -> None:
        planner = self.planner

        def cells(rate: float) -> list[Cell]:
            return [planner.search_cell(kind, rate, s, True) for s in planner.tuning_seeds]

        self.rates[kind] = tuned(self.contrast.tune, lambda rate: planner.score(cells(rate)))
        for rate in self.rates[kind].tried:
            for cell in cells(rate):
                self._add(cell, self._of_search(kind))

    def _tune_training(self, name: str) -> None:
        """On what the tuning searches found, at the rate that they came to."""
        planner, tune, one = self.planner, self.contrast.tune, CONTESTANTS[name]
        cost = tune.share * self._of_training(name)
        searches: list[Cell | None] = [None for _ in planner.tuning_seeds]
        if tune.off:
            self.rates[name] = tuned(tune, lambda rate: None)
            return
        if one.search is not None:
            rate = self.rates[one.search].rate
            if rate is None:
                waits = Tuned(None, {}, tune.grid if self.rates[one.search].wanted else ())
                self.rates[name] = waits
                self.later += [cost] * len(tune.grid) * tune.seeds * bool(waits.wanted)
                return
            searches = [
                planner.search_cell(one.search, rate, seed, True) for seed in planner.tuning_seeds
            ]

        def cells(rate: float) -> list[Cell]:
            pairs = zip(planner.tuning_seeds, searches, strict=True)
            return [planner.training_cell(name, rate, seed, s, True) for seed, s in pairs]

        try:
            self.rates[name] = tuned(tune, lambda rate: planner.score(cells(rate)))
        except ValueError as error:
            # One search's unlucky find must not take the other contestants down.
            self.rates[name] = Tuned(None, {})
            self.impossible[f"tune-{name}"] = str(error)
        for rate in self.rates[name].tried:
            for cell in cells(rate):
                self._add(cell, cost)

    def _entry(self, name: str, seed: int) -> Entry:
        planner, one = self.planner, CONTESTANTS[name]
        search = training = None
        known = True
        if one.search is not None:
            choice = self.rates[_tuned_as(one.search)]
            rate = choice.rate
            if rate is None:
                if choice.wanted:
                    self.later.append(self._of_search(one.search))
                known = False
            else:
                search = self._add(
                    planner.search_cell(one.search, rate, seed, False),
                    self._of_search(one.search),
                )
                known = planner.searched(search) is not None
        if one.keys is None:
            return Entry(search, None)
        rate = self.rates[name].rate
        cost = self._of_training(name)
        if rate is None or not known:
            if rate is not None or self.rates[name].wanted:
                self.later.append(cost)
            return Entry(search, None)
        try:
            training = planner.training_cell(name, rate, seed, search, False)
        except ValueError as error:
            self.impossible[f"{name}-s{seed}"] = str(error)
            return Entry(search, None)
        return Entry(search, self._add(training, cost))

    def _of_search(self, kind: Kind) -> float:
        return self.planner.runs.search_macs(kind)

    def _of_training(self, name: str) -> float:
        kind = CONTESTANTS[name].search
        return self.planner.runs.compute - (0 if kind is None else self._of_search(kind))
