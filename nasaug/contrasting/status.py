"""How far a contrast is, from what its folders hold: nothing is written, nobody is disturbed."""

from __future__ import annotations

from nasaug.comparing.cells import Cell
from nasaug.comparing.status import Status
from nasaug.comparing.store import Failure, Store
from nasaug.contrasting.plan import Plan
from nasaug.training import RunFolder


def status(store: Store, plan: Plan, workers: int) -> Status:
    """`workers` is how many cells run side by side. The time left is that of the MACs left."""
    counts = dict.fromkeys(("done", "running", "diverged", "failed", "waiting"), 0)
    counts["waiting"] = len(plan.later)
    running: dict[str, float] = {}
    failed: dict[str, Failure] = {}
    ahead, spent, took = sum(plan.later), 0.0, 0.0
    for cell in plan.cells:
        state = store.state(cell.identity)
        counts[state] += 1
        macs, seconds = _so_far(store, cell)
        spent, took = spent + macs, took + seconds
        expected = plan.expected[cell.identity]
        if state == "running":
            running[cell.name] = min(1.0, macs / expected)
        failure = store.failure(cell.identity) if state == "failed" else None
        if failure is not None:
            failed[cell.name] = failure
        if state in ("running", "waiting", "failed"):
            ahead += max(0.0, expected - macs)
    left = ahead * took / spent / workers if spent else None
    return Status(counts, running, failed, left, workers)


def _so_far(store: Store, cell: Cell) -> tuple[float, float]:
    """MACs x images and seconds of the epochs that are done."""
    folder = store.folder(cell.identity)
    # The stages of shrinking have metrics of their own until they are put together.
    places = (
        [folder]
        if cell.command == "train"
        else [folder / "supernet"]
        if (folder / "supernet/metrics.jsonl").exists()
        else sorted((folder / "supernet/stages").glob("*"))
    )
    rows = [row for place in places for row in RunFolder(place, writes=False).metrics()]
    known = [row for row in rows if "macs" in row and "seconds" in row]
    return sum(float(row["macs"]) for row in known), sum(float(row["seconds"]) for row in known)
