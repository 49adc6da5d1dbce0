"""How far a study is, from what its folders hold: nothing is written, nobody is disturbed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Protocol

from nasaug.comparing.cells import Arm, Cell
from nasaug.comparing.formats import duration
from nasaug.comparing.plan import Later
from nasaug.comparing.store import Failure, State, Store

# The time left follows at least so many: cells made on another machine say little of this one.
LAST_EPOCHS = 10


class Planner(Protocol):
    """What has a store: of a study, or of another comparison in epochs."""

    @property
    def store(self) -> Store: ...


class Plan(Protocol):
    """Its cells, and those that are sure to come."""

    @property
    def cells(self) -> tuple[Cell, ...]: ...
    @property
    def later(self) -> tuple[Later, ...]: ...


@dataclass(frozen=True)
class Status:
    """Counts of cells, those sure to come included in `waiting`; `left` are the seconds until the
    end with `workers` side by side, None where nothing was measured yet.

    `running` says of every running cell which share of its epochs is done.
    """

    counts: dict[str, int]
    running: dict[str, float]
    failed: dict[str, Failure]
    left: float | None
    workers: int

    @property
    def text(self) -> str:
        """One line."""
        shown = [f"{number} {state}" for state, number in self.counts.items() if number]
        total = sum(self.counts.values())
        if not self.left:
            ahead = "" if self.left is not None else "; nothing is measured yet"
        else:
            ahead = f"; about {duration(self.left)} left with {self.workers} side by side"
        # What is tuned next follows from what is done: until all is, more cells may come.
        all_known = self.counts["done"] == total
        return f"{', '.join(shown)} of {'' if all_known else 'at least '}{total} cells{ahead}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "running": self.running,
            "failed": {name: failure.text for name, failure in self.failed.items()},
            "seconds_left": self.left,
            "workers": self.workers,
        }


def status(planner: Planner, plan: Plan, workers: int) -> Status:
    """`workers` is how many cells run side by side."""
    store = planner.store
    counts = dict.fromkeys(("done", "running", "diverged", "failed", "waiting"), 0)
    states: dict[str, State] = {cell.name: store.state(cell.identity) for cell in plan.cells}
    for state in states.values():
        counts[state] += 1
    counts["waiting"] += sum(later.runs for later in plan.later)
    running = {
        cell.name: _share_done(store, cell) for cell in plan.cells if states[cell.name] == "running"
    }
    failures = {
        cell.name: failure
        for cell in plan.cells
        if states[cell.name] == "failed" and (failure := store.failure(cell.identity)) is not None
    }
    return Status(counts, running, failures, _left(store, plan, states, workers), workers)


def _share_done(store: Store, cell: Cell) -> float:
    return min(1.0, len(store.rows(cell.identity)) / cell.epochs) if cell.epochs else 0.0


def _left(store: Store, plan: Plan, states: dict[str, State], workers: int) -> float | None:
    """Seconds an epoch of a method on a target, where measured, else the mean of those that are."""
    speeds = _seconds_per_epoch(store, plan.cells, states)
    if not speeds:
        return None
    usual = mean(speeds.values())
    around = _seconds_around(store, [cell for cell in plan.cells if states[cell.name] == "done"])

    def speed(arm: Arm | None) -> float:
        return usual if arm is None else speeds.get((arm.target, arm.method), usual)

    left = sum(later.runs * (later.epochs * speed(later.arm) + around) for later in plan.later)
    for cell in plan.cells:
        if states[cell.name] in ("waiting", "failed", "running"):
            left += (1 - _share_done(store, cell)) * cell.epochs * speed(cell.arm) + around
    return left / workers


def _seconds_around(store: Store, done: Iterable[Cell]) -> float:
    """What a cell takes besides its epochs: starting, and judging at the end."""
    spent = []
    for cell in done:
        began = store.beside(cell.identity, "yaml").stat().st_mtime
        took = (store.folder(cell.identity) / "result.json").stat().st_mtime - began
        spent.append(took - sum(float(row.get("seconds", 0)) for row in store.rows(cell.identity)))
    # Negative where a cell was gone on with: then its epochs are not all of this time.
    return max(0.0, median(spent)) if spent else 0.0


def _seconds_per_epoch(
    store: Store, cells: Iterable[Cell], states: dict[str, State]
) -> dict[tuple[str, str], float]:
    """By target and method, of the last epochs that were trained."""
    shown = [
        cell for cell in cells
        if cell.arm is not None and states[cell.name] in ("done", "running", "waiting")
    ]  # fmt: skip
    seen: dict[tuple[str, str], list[float]] = {}
    for cell in sorted(shown, key=lambda cell: store.last_row_at(cell.identity), reverse=True):
        assert cell.arm is not None
        own = seen.setdefault((cell.arm.target, cell.arm.method), [])
        if len(own) < LAST_EPOCHS:
            own += [float(row["seconds"]) for row in store.rows(cell.identity) if "seconds" in row]
    return {key: mean(seconds) for key, seconds in seen.items() if seconds}
