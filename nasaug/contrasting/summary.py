"""What a contrast found so far, as plain numbers: the content of summary.json, and of every table.

Accuracies are fractions, compute is MACs x images. An entry counts when its last run is finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

import numpy as np

from nasaug.comparing.statistics import holm, mean_of, paired
from nasaug.comparing.summary import failures
from nasaug.contrasting.contestants import CONTESTANTS
from nasaug.contrasting.plan import Entry, Plan, Planner
from nasaug.contrasting.spending import Bookkeeper, Spent
from nasaug.supernet import macs, params, peak_memory

KIND = "contrast"
POINTS = 60


def summarise(planner: Planner, plan: Plan, name: str) -> dict[str, Any]:
    """Everything that the outputs show."""
    contrast, runs = planner.contrast, planner.runs
    books = Bookkeeper(runs, planner.store)
    done = {
        one: {seed: entry for seed, entry in entries.items() if _is_done(planner, one, entry)}
        for one, entries in plan.entries.items()
    }
    tests = {
        one: {seed: books.test_top1(entry) for seed, entry in entries.items()}
        for one, entries in done.items()
    }
    rows = [_row(planner, plan, books, one, done[one], tests[one]) for one in done]
    return {
        "kind": KIND,
        "study": name,
        "question": contrast.question,
        "answer": contrast.answer,
        "target": contrast.target,
        "target_macs": macs(runs.target),
        "space": contrast.space,
        "budget_macs": contrast.budget,
        "compute": runs.compute,
        "search_share": contrast.search_share,
        "data": runs.setting.data.name,
        **planner.store.code_of(cell.identity for cell in plan.cells),
        "final": not plan.later and all(row["final"] for row in rows),
        "once": _once(planner, done.values()),
        "rows": rows,
        "comparisons": list(_comparisons(planner, tests)),
        "tuning": [{"of": name, **choice.to_dict()} for name, choice in plan.rates.items()],
        "failed": list(_failures(planner, plan)),
    }


def _is_done(planner: Planner, name: str, entry: Entry) -> bool:
    if CONTESTANTS[name].keys is not None and entry.training is None:
        return False
    cells = [cell for cell in (entry.search, entry.training) if cell is not None]
    return bool(cells) and all(planner.store.result(cell.identity) for cell in cells)


def _once(planner: Planner, done: Iterable[Mapping[int, Entry]]) -> dict[str, float]:
    """What all finished runs took, each counted once however many contestants build on it."""
    cells = {
        cell.identity
        for entries in done
        for entry in entries.values()
        for cell in (entry.search, entry.training)
        if cell is not None
    }
    costs = [planner.store.cost(cell) for cell in sorted(cells)]
    return {what: sum(cost[what] or 0 for cost in costs) for what in ("macs", "seconds")}


def _row(
    planner: Planner,
    plan: Plan,
    books: Bookkeeper,
    name: str,
    entries: Mapping[int, Entry],
    tests: Mapping[int, float],
) -> dict[str, Any]:
    """A contestant's means over its seeds. The networks that are found differ from seed to seed."""
    networks = [books.network(entry) for entry in entries.values()]
    spent = [books.spent(entry).to_dict() for entry in entries.values()]
    planned = len(planner.contrast.seeds)
    rate = plan.rates.get(name)
    return {
        "contestant": name,
        "says": CONTESTANTS[name].says,
        "n": len(entries),
        "planned": planned,
        "final": len(entries) == planned,
        "seeds": sorted(entries),
        "lr": None if rate is None else rate.rate,
        "epochs": _mean(_epochs(entry) for entry in entries.values()),
        "test": mean_of(list(tests.values())).to_dict(),
        "validation": mean_of([books.validation_top1(e) for e in entries.values()]).to_dict(),
        "macs": [macs(network) for network in networks],
        "params": [params(network) for network in networks],
        "memory": [peak_memory(network) for network in networks],
        "spent": {key: _mean(one[key] for one in spent) for key in Spent().to_dict()},
        "seconds": _mean(books.seconds(entry) for entry in entries.values()),
        "course": _mean_course([books.course(entry) for entry in entries.values()]),
    }


def _epochs(entry: Entry) -> float:
    return 0.0 if entry.training is None else float(entry.training.config.train.epochs)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return mean(listed) if listed else None


def _mean_course(courses: list[list[tuple[float, float]]]) -> dict[str, list[float]]:
    """The mean over seeds, whose trainings are of unequal lengths: each at the same shares of its
    own course."""
    if not courses:
        return {"macs": [], "top1": []}
    shares = np.linspace(0, 1, POINTS)
    resampled = []
    for course in courses:
        places = np.linspace(0, 1, len(course))
        resampled.append([np.interp(shares, places, part) for part in zip(*course, strict=True)])
    spent, top1 = np.mean(np.array(resampled), axis=0)
    if max(map(len, courses)) == 1:
        spent, top1 = spent[:1], top1[:1]
    return {"macs": [float(value) for value in spent], "top1": [float(value) for value in top1]}


def _comparisons(
    planner: Planner, tests: Mapping[str, Mapping[int, float]]
) -> Iterable[dict[str, Any]]:
    """Paired by seed; Holm corrects over all of them."""
    pairs = [(one, other) for one in tests for other in CONTESTANTS[one].against if other in tests]
    found = []
    for one, other in pairs:
        seeds = [
            seed for seed in planner.contrast.seeds if {seed} <= {*tests[one]} & {*tests[other]}
        ]
        found.append(paired([tests[one][s] for s in seeds], [tests[other][s] for s in seeds]))
    corrected = holm([one.p for one in found])
    planned = len(planner.contrast.seeds)
    for (one, other), difference, p in zip(pairs, found, corrected, strict=True):
        yield {
            "contestant": one,
            "against": other,
            "planned": planned,
            "final": difference.n == planned,
            **difference.to_dict(),
            "holm": p,
        }


def _failures(planner: Planner, plan: Plan) -> Iterable[dict[str, Any]]:
    """Cells that did not end well, and trainings that cannot be."""
    yield from failures(planner.store, plan.cells)
    for name, why in plan.impossible.items():
        yield {"cell": name, "folder": "", "said": why}
