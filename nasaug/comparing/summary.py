"""What a study found so far, as plain numbers: the content of summary.json, and of every table.

Accuracies are fractions. Judged by runs are finished final runs only; `planned` says how many there
are to be. An arm or a comparison is `final` when all of its runs are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Arm
from nasaug.comparing.plan import QUANTITY, Match, Plan, Planner
from nasaug.comparing.statistics import first_reaching, holm, mean_curve, mean_of, paired
from nasaug.comparing.store import Store, versions_in
from nasaug.study_config import Kind

POOLED = "all"
SCORES = {"test": "top1", "validation": "validation_top1", "train": "train_top1"}
Results = dict[int, dict[str, Any]]


def summarise(planner: Planner, plan: Plan, name: str) -> dict[str, Any]:
    """Everything that the study's outputs show."""
    study, store = planner.study, planner.store
    results = {arm: _results(store, plan, arm) for arm in plan.tuning}
    matches = [_compared(planner, plan, match, results) for match in plan.matches]
    pools = [*_pooled(planner, plan, results)]
    arms = [_arm(planner, plan, arm, results) for arm in plan.tuning]
    versions = versions_in(store.out)
    return {
        "study": name,
        "question": study.question,
        "answer": study.answer,
        "targets": [_stem(target) for target in study.targets],
        "baseline": study.baseline,
        "epochs": planner.cells.epochs,
        "warmup_epochs": planner.cells.warmup,
        "data": study.base.get("data", {}).get("name", "fashion-mnist-mini"),
        "code": store.version,
        "mixed_code": store.mixed(),
        "other_code": {key: count for key, count in versions.items() if key != store.version},
        "final": all(arm["final"] for arm in arms) and not plan.later,
        "arms": arms,
        "comparisons": [*_corrected([*pools, *matches])],
        "tuning": [_tuning(planner, plan, arm) for arm in plan.tuning],
        "failed": [*_failures(store, plan)],
    }


def _stem(target: str) -> str:
    return Path(target).stem


def _results(store: Store, plan: Plan, arm: Arm) -> Results:
    """By seed."""
    found = {seed: store.result(cell.name) for seed, cell in plan.finals[arm].items()}
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
        "longer": arm.epochs != planner.cells.epochs,
        "lr": choice.rate,
        "said": choice.said,
        "n": len(runs),
        "planned": planned,
        "final": len(runs) == planned,
        "seeds": sorted(results[arm]),
        **{key: mean_of(_numbers(runs, field)).to_dict() for key, field in SCORES.items()},
        "train_macs": _spent(planner, arm, runs, "macs"),
        "train_seconds": _spent(planner, arm, runs, "time"),
        **{key: runs[0].get(key) if runs else None for key in ("macs", "params")},
        "diagnosis": {verdict: verdicts.count(verdict) for verdict in sorted({*verdicts} - {""})},
        "reaches": _reaches(planner, arm, results, curves["validation"]),
        "curves": {part: _listed(curve) for part, curve in curves.items()},
    }


def _spent(
    planner: Planner, arm: Arm, runs: Iterable[Mapping[str, Any]], kind: Kind
) -> float | None:
    """Mean cost of a run, with what counts as part of it."""
    own = mean_of(_numbers(runs, f"train_{QUANTITY[kind]}")).mean
    counted = planner.counted(arm, kind)
    return own + counted if own is not None and isinstance(counted, float) else None


def _numbers(runs: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [float(run[key]) for run in runs if run.get(key) is not None]


def _curves(store: Store, plan: Plan, arm: Arm, results: Results) -> dict[str, dict[int, float]]:
    """Mean accuracies over the epochs of the finished runs."""
    rows = [store.rows(plan.finals[arm][seed].name) for seed in results]
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
    planner: Planner, arm: Arm, results: Mapping[Arm, Results], curve: Mapping[int, float]
) -> int | None:
    """The epoch, warm-up included, at which the mean validation accuracy is that with which the
    baseline ends; None if it never is."""
    study = planner.study
    against = study.against(arm.method) or arm.method
    if arm.epochs != planner.cells.epochs:
        against = arm.method
    end = results.get(Arm(arm.target, against, planner.cells.epochs), {})
    level = mean_of(_numbers(end.values(), "validation_top1")).mean
    if level is None:
        return None
    return first_reaching(list(curve), list(curve.values()), level)


def _compared(
    planner: Planner, plan: Plan, match: Match, results: Mapping[Arm, Results]
) -> dict[str, Any]:
    arm, other = match.arm, match.reference
    planned = len(planner.study.seeds_of(arm.method))
    pairs = _pairs(planner, match, results)
    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    return {
        "target": _stem(arm.target),
        "method": arm.method,
        "against": planner.study.against(arm.method),
        "equal": match.kind,
        "epochs": None if other is None else other.epochs,
        "planned": planned,
        "final": found.n == planned,
        "unknown": match.unknown,
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


def _pooled(
    planner: Planner, plan: Plan, results: Mapping[Arm, Results]
) -> Iterable[dict[str, Any]]:
    """The comparisons of methods that are tried on several targets, over all of these."""
    study = planner.study
    for method in study.methods:
        if len(study.of(method)) < 2 or study.against(method) is None:
            continue
        for kind in study.equals(method):
            own = [m for m in plan.matches if m.arm.method == method and m.kind == kind]
            pairs = [pair for match in own for pair in _pairs(planner, match, results)]
            found = paired([a for a, _ in pairs], [b for _, b in pairs])
            planned = len(own) * len(study.seeds_of(method))
            yield {
                "target": POOLED,
                "method": method,
                "against": study.against(method),
                "equal": kind,
                "epochs": None,
                "planned": planned,
                "final": found.n == planned,
                "unknown": next((match.unknown for match in own if match.unknown), ""),
                **found.to_dict(),
            }


def _corrected(comparisons: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """With Holm's p: a family are the methods on one target (or on all) at equal one thing."""
    families = dict.fromkeys((one["target"], one["equal"]) for one in comparisons)
    for family in families:
        own = [one for one in comparisons if (one["target"], one["equal"]) == family]
        for one, p in zip(own, holm([one["p"] for one in own]), strict=True):
            yield {**one, "holm": p, "family": sum(other["p"] is not None for other in own)}


def _tuning(planner: Planner, plan: Plan, arm: Arm) -> dict[str, Any]:
    choice = plan.tuning[arm]
    return {
        "target": _stem(arm.target),
        "method": arm.method,
        "epochs": planner.cells.tuning_epochs(arm),
        "final_epochs": arm.epochs,
        "rates": [
            {
                "lr": rate,
                "validation": None if score in (None, float("-inf")) else score,
                "diverged": score == float("-inf"),
            }
            for rate, score in choice.tried.items()
        ],
        "chosen": choice.rate,
        "inside": choice.inside,
        "said": choice.said,
    }


def _failures(store: Store, plan: Plan) -> Iterable[dict[str, Any]]:
    """Cells that did not end well. Diverged tuning runs are a result, not a failure."""
    for cell in plan.cells:
        failure = None if store.result(cell.name) is not None else store.failure(cell.name)
        if failure is not None and not (failure.diverged and cell.tuning):
            yield {
                "cell": cell.name,
                "code": failure.code,
                "said": failure.text,
                "lines": list(failure.lines),
            }
