"""What a study found so far, as plain numbers: the content of summary.json, and of every table.

Accuracies are fractions. Judged by runs are finished final runs only; `planned` says how many there
are to be. An arm or a comparison is `final` when all of its runs are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Arm, Cell
from nasaug.comparing.costs import Quantity
from nasaug.comparing.maps import difference_maps
from nasaug.comparing.plan import Match, Plan, Planner
from nasaug.comparing.statistics import corrected, first_reaching, mean_curve, mean_of, paired
from nasaug.comparing.store import Store
from nasaug.study_config import Kind

POOLED = "all"
SCORES = {"test": "top1", "validation": "validation_top1", "train": "train_top1"}
Results = dict[int, dict[str, Any]]


def summarise(planner: Planner, plan: Plan, name: str) -> dict[str, Any]:
    """Everything that the study's outputs show."""
    study, store = planner.study, planner.store
    results = {arm: _results(store, plan, arm) for arm in plan.tuning}
    comparisons = [
        *corrected(
            [
                *_pooled(planner, plan, results),
                *(_compared(planner, match, results) for match in plan.matches),
            ]
        )
    ]
    single = [one for one in comparisons if one["target"] != POOLED]
    arms = [_arm(planner, plan, arm, results) for arm in _in_order(planner, plan)]
    return {
        "study": name,
        "question": study.question,
        "answer": study.answer,
        "targets": [_stem(target) for target in study.targets],
        "baseline": study.baseline,
        "lengths": list(planner.cells.lengths),
        "warmup_epochs": planner.cells.warmup,
        "time": planner.costs.quantity("time"),
        "data": study.base.get("data", {}).get("name", "fashion-mnist-mini"),
        **store.code_of(cell.identity for cell in plan.cells),
        "final": all(arm["final"] for arm in arms) and not plan.later,
        "arms": arms,
        "comparisons": comparisons,
        "maps": difference_maps(arms, single, study.baseline),
        "tuning": [_tuning(planner, plan, arm) for arm in _in_order(planner, plan)],
        "failed": [*failures(store, plan.cells)],
    }


def _stem(target: str) -> str:
    return Path(target).stem


def _in_order(planner: Planner, plan: Plan) -> list[Arm]:
    """The study's arms, then the references of other lengths, which came with their matches."""
    return sorted(
        plan.tuning,
        key=lambda arm: (planner.study.targets.index(arm.target), arm not in planner.arms),
    )


def _results(store: Store, plan: Plan, arm: Arm) -> Results:
    """By seed."""
    found = {seed: store.result(cell.identity) for seed, cell in plan.finals[arm].items()}
    return {seed: result for seed, result in found.items() if result is not None}


def _arm(planner: Planner, plan: Plan, arm: Arm, results: Mapping[Arm, Results]) -> dict[str, Any]:
    runs = list(results[arm].values())
    choice, planned = plan.tuning[arm], len(plan.seeds[arm])
    curves = _curves(planner.store, plan, arm, results[arm])
    verdicts = [str(run.get("diagnosis", "")).partition(":")[0] for run in runs]
    return {
        "target": _stem(arm.target),
        "method": arm.method,
        "epochs": arm.epochs,
        "longer": arm not in planner.arms,
        "lr": choice.rate,
        "said": choice.said,
        "n": len(runs),
        "planned": planned,
        "final": len(runs) == planned,
        "seeds": sorted(results[arm]),
        "cells": [plan.finals[arm][seed].identity for seed in sorted(results[arm])],
        **{key: mean_of(_numbers(runs, field)).to_dict() for key, field in SCORES.items()},
        "train_macs": _spent(planner, arm, runs, "macs"),
        "train_seconds": _spent(planner, arm, runs, "seconds"),
        "train_cpu_seconds": _spent(planner, arm, runs, "cpu_seconds"),
        **{key: runs[0].get(key) if runs else None for key in ("macs", "params")},
        "diagnosis": {verdict: verdicts.count(verdict) for verdict in sorted({*verdicts} - {""})},
        "reaches": _reaches(planner, plan, arm, results, curves["validation"]),
        "curves": {part: _listed(curve) for part, curve in curves.items()},
    }


def _spent(
    planner: Planner, arm: Arm, runs: Iterable[Mapping[str, Any]], quantity: Quantity
) -> float | None:
    """Mean cost of a run, with what counts as part of it."""
    own = mean_of(_numbers(runs, f"train_{quantity}")).mean
    counted = planner.costs.counted(arm, quantity)
    return own + counted if own is not None and isinstance(counted, float) else None


def _numbers(runs: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [float(run[key]) for run in runs if run.get(key) is not None]


def _curves(store: Store, plan: Plan, arm: Arm, results: Results) -> dict[str, dict[int, float]]:
    """Mean accuracies over the epochs of the finished runs."""
    rows = [store.rows(plan.finals[arm][seed].identity) for seed in results]
    keys = {"validation": "top1", "train": "train_top1"}
    return {
        part: mean_curve(
            [{int(r["epoch"]): float(r[key]) for r in run if key in r} for run in rows]
        )
        for part, key in keys.items()
    }


def _listed(curve: Mapping[int, float]) -> dict[str, list[float]]:
    return {"epochs": list(curve), "top1": list(curve.values())}


def _reaches(
    planner: Planner,
    plan: Plan,
    arm: Arm,
    results: Mapping[Arm, Results],
    curve: Mapping[int, float],
) -> int | None:
    """The epoch, warm-up included, at which the mean validation accuracy is that with which the
    baseline of the same length ends; None if it never is. A longer baseline's is that of the arm
    that it is the reference of, the first of them."""
    against, epochs = planner.study.against(arm.method) or arm.method, arm.epochs
    if arm not in planner.arms:
        against = arm.method
        epochs = next(match.arm.epochs for match in plan.matches if match.reference == arm)
    end = results.get(Arm(arm.target, against, epochs), {})
    level = mean_of(_numbers(end.values(), "validation_top1")).mean
    if level is None:
        return None
    return first_reaching(list(curve), list(curve.values()), level)


def _compared(planner: Planner, match: Match, results: Mapping[Arm, Results]) -> dict[str, Any]:
    return {
        "target": _stem(match.arm.target),
        **_difference(planner, [match], results),
        "against_epochs": None if match.reference is None else match.reference.epochs,
    }


def _pooled(
    planner: Planner, plan: Plan, results: Mapping[Arm, Results]
) -> Iterable[dict[str, Any]]:
    """The comparisons of methods that are tried on several targets, over all of these, length by
    length."""
    families: dict[tuple[str, int, Kind], list[Match]] = {}
    for match in plan.matches:
        key = match.arm.method, match.arm.epochs, match.kind
        families.setdefault(key, []).append(match)
    for own in families.values():
        if len(own) > 1:
            found = _difference(planner, own, results)
            yield {"target": POOLED, **found, "against_epochs": None}


def _difference(
    planner: Planner, matches: Sequence[Match], results: Mapping[Arm, Results]
) -> dict[str, Any]:
    """Of a method at one length, at equal one thing, over the pairs of all `matches`."""
    arm = matches[0].arm
    pairs = [pair for match in matches for pair in _pairs(planner, match, results)]
    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    planned = len(matches) * len(planner.study.seeds_of(arm.method))
    return {
        "method": arm.method,
        "epochs": arm.epochs,
        "against": planner.study.against(arm.method),
        "equal": matches[0].kind,
        "planned": planned,
        "final": found.n == planned,
        "unknown": next((match.unknown for match in matches if match.unknown), ""),
        **found.to_dict(),
    }


def _pairs(
    planner: Planner, match: Match, results: Mapping[Arm, Results]
) -> list[tuple[float, float]]:
    """Test accuracies of the two, of the method's seeds that both have finished."""
    if match.reference is None:
        return []
    ours, theirs = results[match.arm], results[match.reference]
    seeds = planner.study.seeds_of(match.arm.method)
    return [(ours[s]["top1"], theirs[s]["top1"]) for s in seeds if s in ours and s in theirs]


def _tuning(planner: Planner, plan: Plan, arm: Arm) -> dict[str, Any]:
    choice = plan.tuning[arm]
    return {
        "target": _stem(arm.target),
        "method": arm.method,
        "epochs": planner.cells.tuning_epochs(arm),
        "final_epochs": arm.epochs,
        **choice.to_dict(),
    }


def failures(store: Store, cells: Iterable[Cell]) -> Iterable[dict[str, Any]]:
    """Cells that did not end well. Diverged tuning runs are a result, not a failure."""
    for cell in cells:
        done = store.result(cell.identity) is not None
        failure = None if done else store.failure(cell.identity)
        if failure is not None and not (failure.diverged and cell.tuning):
            yield {
                "cell": cell.name,
                "folder": cell.identity,
                "code": failure.code,
                "said": failure.text,
                "lines": list(failure.lines),
            }
