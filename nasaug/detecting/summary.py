"""What a detection study found so far, as plain numbers: the content of summary.json, and of every
table and figure.

mAP are fractions, MACs those of the detector (batch 1), compute is a training's MACs x images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import mean
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.statistics import Paired, holm, mean_of, paired
from nasaug.comparing.store import Store
from nasaug.comparing.summary import failures
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.plan import ANY, Curve, Plan, Planner
from nasaug.detection import DetectorCurve, EqualMap, macs_at_equal_map
from nasaug.train_config import TrainConfig

KIND = "detection"
# In place of a size: of every seed the mean over all sizes.
ALL = "all"
# Of the detector, and of its parts.
MACS = ("macs", "macs_backbone", "macs_extra", "macs_heads")
Results = Mapping[int, Mapping[str, Any]]
Maps = Mapping[Curve, Mapping[int, float]]


def summarise(planner: Planner, plan: Plan, name: str) -> dict[str, Any]:
    """Everything that the outputs show."""
    study, store = planner.study, planner.store
    results = {curve: _results(store, cells) for curve, cells in plan.finals.items()}
    maps = {
        curve: {seed: float(result["map"]) for seed, result in found.items()}
        for curve, found in results.items()
    }
    rows = [_row(planner, plan, curve, found) for curve, found in results.items()]
    others = [method for method in study.methods if method != study.baseline]
    return {
        "kind": KIND,
        "study": name,
        "question": study.question,
        "answer": study.answer,
        "target": study.target,
        "sizes": list(study.sizes),
        "methods": list(study.methods),
        "baseline": study.baseline,
        "data": _data(study),
        **store.code_of(cell.identity for cell in plan.cells),
        "final": not plan.later and all(row["final"] for row in rows),
        "once": _once(store, plan),
        "rows": rows,
        "starts": [_start(planner, plan, method) for method in study.methods],
        "comparisons": list(_comparisons(study, maps, others)),
        "equal": [_equal(study, rows, maps, method) for method in others],
        "tuning": list(_tuning(plan)),
        "failed": list(failures(store, plan.cells)),
    }


def _results(store: Store, cells: Mapping[int, Cell]) -> dict[int, Mapping[str, Any]]:
    """Of the runs that are finished, by seed."""
    found = {seed: store.result(cell.identity) for seed, cell in cells.items()}
    return {seed: result for seed, result in found.items() if result is not None}


def _row(planner: Planner, plan: Plan, curve: Curve, found: Results) -> dict[str, Any]:
    """A method at a size, over its seeds."""
    method, size = curve
    planned = len(planner.study.seeds)
    first = next(iter(found.values()), {})
    recipe = planner.runs.detecting(method, size, *ANY, None).config.train
    return {
        "method": method,
        "size": size,
        "n": len(found),
        "planned": planned,
        "final": len(found) == planned,
        "seeds": sorted(found),
        "lr": plan.rates[curve].rate,
        "epochs": recipe.epochs,
        "warmup_epochs": recipe.warmup_epochs,
        "style": first.get("style"),
        "map": mean_of(_numbers(found, "map")).to_dict(),
        "validation": mean_of(_numbers(found, "validation_map")).to_dict(),
        **{key: first.get(key) for key in (*MACS, "params")},
        **{key: _mean(_numbers(found, key)) for key in ("train_macs", "train_seconds")},
        "cells": {str(seed): cell.identity for seed, cell in plan.finals[curve].items()},
    }


def _start(planner: Planner, plan: Plan, method: str) -> dict[str, Any]:
    """How a method's backbone was pre-trained; None and zeros for fresh weights."""
    cells = plan.starts.get(method, {})
    found, known = _results(planner.store, cells), method in plan.starts
    config = planner.runs.pretraining(method, *ANY).config if known else None
    assert config is None or isinstance(config, TrainConfig)
    return {
        "method": method,
        "by": None if config is None else config.method,
        "n": len(found),
        "planned": len(planner.study.seeds) if known else 0,
        "data": None if config is None else config.data.name,
        "lr": plan.start_rates[method].rate if known else None,
        "epochs": 0 if config is None else config.train.epochs,
        "warmup_epochs": 0 if config is None else config.train.warmup_epochs,
        "test": mean_of(_numbers(found, "top1")).to_dict(),
        "validation": mean_of(_numbers(found, "validation_top1")).to_dict(),
        **{key: _mean(_numbers(found, key)) for key in ("train_macs", "train_seconds")},
        "cells": {str(seed): cell.identity for seed, cell in cells.items()},
    }


def _numbers(found: Results, key: str) -> list[float]:
    return [float(result[key]) for result in found.values()]


def _mean(values: list[float]) -> float | None:
    return mean(values) if values else None


def _data(study: DetectStudy) -> str:
    """In words."""
    made = study.scenes
    if made is None:
        return str(study.data)
    low, high = made.size
    sides = str(low) if low == high else f"{low} to {high}"
    return (
        f"scenes of {made.items} ({made.train:,} training, {made.val:,} validation, "
        f"{made.test:,} test scenes, {sides} pixels a side, seed {made.seed})"
    )


def _once(store: Store, plan: Plan) -> dict[str, float]:
    """What all finished final runs and their pre-trainings took, each counted once."""
    all_cells = (*plan.starts.values(), *plan.finals.values())
    names = {cell.identity for cells in all_cells for cell in cells.values()}
    costs = [store.cost(name) for name in sorted(names) if store.result(name) is not None]
    return {what: sum(cost[what] or 0 for cost in costs) for what in ("macs", "seconds")}


def _comparisons(study: DetectStudy, maps: Maps, others: list[str]) -> Iterable[dict[str, Any]]:
    """Paired by seed, at each size and of the means over all sizes. Holm corrects over the sizes'
    and all methods' comparisons, and by itself over those of the means."""
    for sizes in ([(size,) for size in study.sizes], [study.sizes]):
        pairs = [(method, one) for method in others for one in sizes]
        found = [_paired(study, maps, method, one) for method, one in pairs]
        corrected = holm([one.p for one in found])
        for (method, one), difference, p in zip(pairs, found, corrected, strict=True):
            yield {
                "method": method,
                "against": study.baseline,
                "size": one[0] if len(one) == 1 else ALL,
                "planned": len(study.seeds),
                "final": difference.n == len(study.seeds),
                **difference.to_dict(),
                "holm": p,
            }


def _paired(study: DetectStudy, maps: Maps, method: str, sizes: tuple[int, ...]) -> Paired:
    seeds = _seeds(study, maps, method, sizes)
    ours, theirs = (
        [mean(maps[one, size][seed] for size in sizes) for seed in seeds]
        for one in (method, study.baseline)
    )
    return paired(ours, theirs)


def _seeds(study: DetectStudy, maps: Maps, method: str, sizes: tuple[int, ...]) -> list[int]:
    """Those that the method and the baseline have finished at all of these sizes."""
    both = [maps[one, size] for one in (method, study.baseline) for size in sizes]
    return [seed for seed in study.seeds if all(seed in found for found in both)]


def _equal(
    study: DetectStudy, rows: list[dict[str, Any]], maps: Maps, method: str
) -> dict[str, Any]:
    """MACs at equal mAP, by the seeds that both have at every size; `unknown` says why there is
    none."""
    seeds = _seeds(study, maps, method, study.sizes)
    curves, unknown, found = [], "no seed is finished at all sizes", None
    if seeds:
        macs = {(row["method"], row["size"]): int(row["macs"]) for row in rows if row["n"]}
        curves = [
            DetectorCurve(
                one,
                study.sizes,
                tuple(macs[one, size] for size in study.sizes),
                tuple(seeds),
                tuple(tuple(maps[one, size][seed] for seed in seeds) for size in study.sizes),
            )
            for one in (study.baseline, method)
        ]
        try:
            found, unknown = _told(macs_at_equal_map(curves[0], curves[1])), ""
        except ValueError as error:
            unknown = str(error)
    return {
        "method": method,
        "against": study.baseline,
        "n": len(seeds),
        "planned": len(study.seeds),
        "final": len(seeds) == len(study.seeds),
        "unknown": unknown,
        "found": found,
        "curves": [
            {
                "name": curve.name,
                "sizes": list(curve.resolutions),
                "macs": list(curve.macs),
                "means": list(curve.means),
                "errors": list(curve.standard_errors),
            }
            for curve in curves
        ],
    }


def _told(found: EqualMap) -> dict[str, Any]:
    """As plain data, per cents in words beside them."""
    savings = [
        {**asdict(one), "fewer": {**asdict(one.fewer), "said": str(one.fewer)}}
        for one in found.savings
    ]
    return {
        **found.to_dict(),
        "overlap": list(found.overlap),
        "mean": {**asdict(found.mean), "said": str(found.mean)},
        "savings": savings,
        "notes": list(found.notes),
    }


def _tuning(plan: Plan) -> Iterable[dict[str, Any]]:
    """What was tuned: the pre-trainings, then the detectors."""
    for method, choice in plan.start_rates.items():
        yield {"method": method, "size": None, **choice.to_dict()}
    for (method, size), choice in plan.rates.items():
        yield {"method": method, "size": size, **choice.to_dict()}
