"""The search, from configuration to `best.json`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nasaug.config import SearchConfig
from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.pipelines.found import describe_choices, export_found, say_next, winners_name
from nasaug.pipelines.judging import inherited_accuracy, make_judging
from nasaug.pipelines.stages import stages_of
from nasaug.pipelines.supernet import FOLDER, is_supernet, rank_warning, trained_supernet
from nasaug.pipelines.team import Fellows
from nasaug.search import (
    SearchInterrupted,
    check_storage,
    judging_macs,
    losers,
    pareto_front,
    ranking,
    search,
)
from nasaug.setting import Setting, prepare
from nasaug.supernet import (
    Architecture,
    ChoicePath,
    Network,
    Region,
    SearchSpace,
    count_with_fvcore,
)
from nasaug.training import RunFolder, load_weights, write_json
from nasaug.workspace import InUse, begin_run, is_in_use, locate_run

SHOWN = 10
POLL_SECONDS = 1.0
Judged = tuple[ChoicePath, FrozenTrial]


def run_search(
    config: SearchConfig, out: str | None, resume: bool, join: bool, as_json: bool
) -> None:
    """Train or reuse the supernet, search it, write the result; with `join`, help a search that is
    under way. Raises: ValueError, OSError.
    """
    show_log_messages()
    setting = prepare(config)
    if setting.group.size > 1:
        raise ValueError("nasaug search runs in one process; torchrun is for nasaug train")
    space = config.make_space(setting.target)
    if config.supernet.shrinks:
        stages_of(config, space, config.supernet)  # before anything trains
    region = space.within(config.limits)
    if config.budget > space.source.dearest:
        say(
            f"the budget of {config.budget:,} MACs is above the space's largest, "
            f"{space.source.dearest:,}: every member fits"
        )
    if config.storage is not None:
        check_storage(config.storage)
    path = locate_run("search", config, out, resume or join)
    if join:
        best = _joined(config, setting, space, region, path)
    else:
        run, lock = begin_run(path, config)
        with lock:
            supernet = trained_supernet(config, setting, space, run, resume, config.supernet)
            if warning := rank_warning(run.path):
                say(f"warning: {warning}")
            with Fellows(run.path, config.workers) as fellows:
                study = _searched(config, setting, space, supernet, run, resume, fellows)
            best = _written(config, setting, space, region, study, supernet, run)
    if as_json:
        emit_json({**best, "budget_macs": config.budget, "run_dir": str(path)})
    else:
        _show(config, space, best)


def _joined(
    config: SearchConfig, setting: Setting, space: SearchSpace, region: Region, path: Path
) -> dict[str, Any]:
    """Work on the study of another process; write its result if that one is gone by the end."""
    if not path.is_dir():
        raise ValueError(f"{path} holds no search to join; begin it without --join")
    while not is_supernet(path / FOLDER):
        if not is_in_use(path):
            raise ValueError(
                f"the search in {path} has no supernet yet and nobody is training one; "
                "go on with it by --resume"
            )
        time.sleep(POLL_SECONDS)
    supernet = load_weights(path / FOLDER / "weights.safetensors").to(setting.device)
    run = RunFolder(path)
    study = _searched(config, setting, space, supernet, run, resume=True, fellows=None)
    try:
        _, lock = begin_run(path, config)
    except InUse:
        return _summary(config, space, region, study)
    with lock:
        return _written(config, setting, space, region, study, supernet, run)


def _searched(
    config: SearchConfig,
    setting: Setting,
    space: SearchSpace,
    supernet: Network,
    run: RunFolder,
    resume: bool,
    fellows: Fellows | None,
) -> optuna.Study:
    """The study, run to its end: with `fellows`, or joining somebody else's without.

    Raises: KeyboardInterrupt after saying the best so far.
    """
    judging = make_judging(config, setting, space, supernet)
    name = config.study or _study_name(config, space, run)
    try:
        with progress_bar("search") as bar:
            study = search(
                space,
                judging.evaluate,
                config.limits,
                config.storage or run.path / "study.journal",
                config.sampler,
                config.trials,
                config.seed,
                resume,
                bar,
                name,
                config.objectives,
                judging.race,
                workers=run.path / "workers",
                join=fellows is None,
                opened=fellows.start if fellows is not None else None,
                spent=lambda: judging.accuracy.spent.macs,
            )
    except SearchInterrupted as interrupted:
        ranked = ranking(interrupted.study, space)
        if ranked:
            path, trial = ranked[0]
            say(f"best so far: {config.objectives[0]} {trial.values[0]:.4f}, {space.costs(path)}")
            say(str(space.architecture(path).canonical()))
        raise
    spent = judging.accuracy.spent
    say(
        f"judged with {spent.validation:,} validation images, and {spent.calibration:,} training "
        "images for batch norm"
    )
    return study


def _study_name(config: SearchConfig, space: SearchSpace, run: RunFolder) -> str:
    """Tells studies in a shared storage apart by target or table, budget, other limits and the
    weights that candidates inherit: workers on several machines need the very same.
    """
    weights = (run.path / FOLDER / "weights.safetensors").read_bytes()
    facts = json.dumps([config.limits.given, config.objectives, config.seed, config.sampler])
    digest = hashlib.blake2b(weights + facts.encode(), digest_size=4).hexdigest()
    return f"{space.name}-{config.budget}-{digest}"


def _written(
    config: SearchConfig,
    setting: Setting,
    space: SearchSpace,
    region: Region,
    study: optuna.Study,
    supernet: Network,
    run: RunFolder,
) -> dict[str, Any]:
    """Recount the winner, write `best.json` and `result.json`; down, its weights too."""
    summary = _summary(config, space, region, study)
    best = summary["best"]
    winner = Architecture.from_dict(best["architecture"])
    counts = count_with_fvcore(winner)
    assert counts["conv"] + counts["linear"] == best["macs"], f"fvcore counts {counts}"
    if best["accuracy"] is None:
        best["accuracy"] = inherited_accuracy(setting, supernet)(space.embed(winner))
    exported: dict[str, Any] = {"target": config.target}
    if config.direction == "down":
        exported = export_found(setting, supernet, winner, run)
        summary["weights"] = str(run.weights)
    result = {
        "direction": config.direction,
        **exported,
        "data": config.data.name,
        **best,
        "budget_macs": config.budget,
        "limits": config.limits.given,
        "objectives": list(config.objectives),
        "resolution": winner.resolution,
        "train_resolution": setting.view.resolution,
        "space": describe_choices(config, space),
        "seed": config.seed,
        "trials": summary["trials"],
        "study": study.study_name,
        "supernet": f"{FOLDER}/weights.safetensors",
    }
    write_json(run.path / "best.json", result)
    run.write_result({**summary, "budget_macs": config.budget})
    say(str(winner))
    say_next(config, run.path / "best.json")
    return summary


def _summary(
    config: SearchConfig,
    space: SearchSpace,
    region: Region,
    study: optuna.Study,
) -> dict[str, Any]:
    """The best, the ten best or the Pareto front, and how many trials there were."""
    several = len(config.objectives) > 1
    ranked = ranking(study, space)
    listed = pareto_front(study, space) if several else ranked[:SHOWN]
    rows = [_row(config, space, one) for one in listed]
    if not several:
        rows += [
            {**space.costs(path), "accuracy": interim, "lost_race": True}
            for path, interim in losers(study, space)[: SHOWN - len(rows)]
        ]
    path, trial = ranked[0]
    winner = space.architecture(path, winners_name(space)).canonical()
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "best": {**_row(config, space, (path, trial)), "architecture": winner.to_dict()},
        "front" if several else "top": rows,
        "trials": states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED),
        "pruned": states.count(TrialState.PRUNED),
        "judging_macs": judging_macs(study),
        "acceptance": region.acceptance,
    }


def _row(config: SearchConfig, space: SearchSpace, judged: Judged) -> dict[str, Any]:
    path, trial = judged
    values = dict(zip(config.objectives, trial.values, strict=True))
    return {**space.costs(path), "accuracy": None, **{k: values[k] for k in JUDGED & {*values}}}


JUDGED = {"accuracy", "help"}


def _show(config: SearchConfig, space: SearchSpace, best: dict[str, Any]) -> None:
    """The table of the best, or of the Pareto front, on stdout."""
    several = len(config.objectives) > 1
    shown: list[tuple[str, str, Callable[[Any], str]]] = [
        ("accuracy", "validation top-1 (%)", lambda value: f"{100 * value:.2f}"),
        ("help", "help", lambda value: f"{value:.4g}"),
        ("macs", "MACs", "{:,}".format),
        ("params", "parameters", "{:,}".format),
        ("memory", "memory (KB)", lambda value: f"{value / 1024:,.0f}"),
        ("flash", "flash (KB)", lambda value: f"{value / 1024:,.0f}"),
        ("latency", "latency (ms)", lambda value: f"{value / 1e6:.3f}"),
    ]
    rows = best["front" if several else "top"]
    # Flash follows the parameters closely: it is shown to those who asked about it.
    hidden = {"flash"} - {*config.limits.given, *config.objectives}
    columns = [one for one in shown if one[0] not in hidden and rows[0].get(one[0]) is not None]
    whose = f"in {space.name}" if space.is_table else f"for {space.name}"
    title = (
        f"Pareto front of {', '.join(config.objectives)} {whose}"
        if several
        else f"{'Best' if space.is_table else 'Largest'} networks {whose}"
    )
    emit_table(
        f"{title}, {config.limits}"
        if config.budget_from or len(config.limits.given) > 1
        else f"{title} within {config.budget:,} MACs",
        ("rank", *(words for _, words, _ in columns)),
        [
            [_place(number, row), *(text(row[key]) for key, _, text in columns)]
            for number, row in enumerate(rows, 1)
        ],
        left=0,
    )


def _place(number: int, row: dict[str, Any]) -> str:
    """Its rank; for one that lost a race and whose accuracy is an estimate, a word."""
    return "lost" if row.get("lost_race") else str(number)
