"""What arms cost, so that others may train as long as costs the same: MACs or seconds.

Costs are measured, by an arm's tuning runs; what they are derived from never changes once it is
there. Text in place of a number says why a cost will never be known, None that it is not yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from nasaug.comparing.cells import Arm, Cell, Cells
from nasaug.comparing.store import Store
from nasaug.study_config import Kind

# A length whose cost is this near to the one that is asked for is taken as it is.
TOLERANCE = 0.05
QUANTITY = {"macs": "macs", "time": "seconds"}
WORDS = {"macs": "MACs", "time": "seconds"}


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
        epoch, counted = self._an_epoch(kind, runs), self.counted(arm, kind)
        for cost in (epoch, counted):
            if isinstance(cost, str):
                return f"{arm.method}: {cost}"
        if epoch is None or counted is None:
            return None
        assert isinstance(epoch, float) and isinstance(counted, float)
        return Cost(epoch, counted, self.cells.warmup)

    def _an_epoch(self, kind: Kind, runs: Sequence[Cell]) -> float | str | None:
        """The median over runs of any length."""
        results = [(cell, self.store.result(cell.identity)) for cell in runs]
        done = [(cell, result) for cell, result in results if result is not None]
        if not done:
            return None
        key = f"train_{QUANTITY[kind]}"
        costs = [float(result[key]) / cell.epochs for cell, result in done if result.get(key)]
        return median(costs) if costs else f"its runs do not say their {WORDS[kind]}"

    def counted(self, arm: Arm, kind: Kind) -> float | str | None:
        """The cost of the runs before that count as part of a method."""
        study, total = self.cells.study, 0.0
        for name in study.section(arm.method).counts:
            cell = self.cells.before(name, arm.target).identity
            if self.store.result(cell) is None:
                return None
            cost = self.store.cost(cell)[QUANTITY[kind]]
            if cost is None:
                return f"{name} does not say its {WORDS[kind]}"
            total += cost
        return total
