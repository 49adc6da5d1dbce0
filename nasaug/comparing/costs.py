"""What arms cost, so that others may train as long as costs the same: MACs or time.

Costs are measured, by an arm's tuning runs; what they are derived from never changes once it is
there. Text in place of a number says why a cost will never be known, None that it is not yet.

Time is CPU seconds where cells compute in one thread: these are what it takes, whatever else the
machine does. Other cells' time is what passes on the wall.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from nasaug.comparing.cells import Arm, Cell, Cells
from nasaug.comparing.store import Store
from nasaug.study_config import Kind

# A length whose cost is this near to the one that is asked for is taken as it is.
TOLERANCE = 0.05
Quantity = Literal["macs", "seconds", "cpu_seconds"]
WORDS: dict[Quantity, str] = {"macs": "MACs", "seconds": "seconds", "cpu_seconds": "CPU seconds"}


@dataclass(frozen=True)
class Cost:
    """Of training: `an_epoch`, warm-up or not, and `counted` once, before."""

    an_epoch: float
    counted: float
    warmup: float

    def of(self, epochs: float) -> float:
        """The cost of so many epochs after the warm-up."""
        return self.an_epoch * (epochs + self.warmup) + self.counted

    def length(self, cost: float) -> int:
        """The epochs after the warm-up that cost so much, at least one."""
        return max(1, round((cost - self.counted) / self.an_epoch - self.warmup))

    def nearest(self, cost: float, lengths: Sequence[int]) -> int:
        """The epochs that cost so much: the nearest of `lengths` where it is near enough."""
        best = min(lengths, key=lambda epochs: abs(cost / self.of(epochs) - 1))
        near = abs(cost / self.of(best) - 1) <= TOLERANCE
        return best if near else self.length(cost)


@dataclass(frozen=True)
class Costs:
    """Looks costs up in what the store holds."""

    cells: Cells
    store: Store

    def of(self, arm: Arm, kind: Kind, runs: Sequence[Cell]) -> Cost | str | None:
        """`runs` are those that measure it."""
        quantity = self.quantity(kind)
        epoch, counted = self._an_epoch(quantity, runs), self.counted(arm, quantity)
        for cost in (epoch, counted):
            if isinstance(cost, str):
                return f"{arm.method}: {cost}"
        if epoch is None or counted is None:
            return None
        assert isinstance(epoch, float) and isinstance(counted, float)
        return Cost(epoch, counted, self.cells.warmup)

    def quantity(self, kind: Kind) -> Quantity:
        """What is equal. Time is CPU seconds if each cell has one thread and all that are there of
        the first ones say theirs; those on a GPU, and of older code, do not."""
        if kind == "macs":
            return "macs"
        one_thread = self.cells.study.threads == 1
        return "cpu_seconds" if one_thread and all(map(self._timed, self._first())) else "seconds"

    def counted(self, arm: Arm, quantity: Quantity) -> float | str | None:
        """The cost of the runs before that count as part of a method."""
        study, total = self.cells.study, 0.0
        for name in study.section(arm.method).counts:
            cell = self.cells.before(name, arm.target).identity
            if self.store.result(cell) is None:
                return None
            cost = self.store.cost(cell)[quantity]
            if cost is None:
                return f"{name} does not say its {WORDS[quantity]}"
            total += cost
        return total

    def _an_epoch(self, quantity: Quantity, runs: Sequence[Cell]) -> float | str | None:
        """The median over runs of any length."""
        results = [(cell, self.store.result(cell.identity)) for cell in runs]
        done = [(cell, result) for cell, result in results if result is not None]
        if not done:
            return None
        key = f"train_{quantity}"
        costs = [float(result[key]) / cell.epochs for cell, result in done if result.get(key)]
        return median(costs) if costs else f"its runs do not say their {WORDS[quantity]}"

    def _first(self) -> Iterator[Cell]:
        """The runs by which costs are measured, as far as they are known beforehand: others depend
        on what these come to."""
        study = self.cells.study
        for method in study.methods:
            for target in study.of(method):
                for name in study.section(method).counts:
                    yield self.cells.before(name, target)
                for epochs in self.cells.lengths_of(method):
                    arm, rates = Arm(target, method, epochs), study.tune.grid
                    if study.tune.off:
                        yield self.cells.final(arm, rates[0], study.seeds_of(method)[0])
                        continue
                    for rate in rates:
                        yield from self.cells.tuning(arm, rate)

    def _timed(self, cell: Cell) -> bool:
        """Whether it says its CPU seconds, or may still do so."""
        if self.store.result(cell.identity) is None:
            return True
        return self.store.cost(cell.identity)["cpu_seconds"] is not None
