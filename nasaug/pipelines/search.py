"""The search, from configuration to `best.json`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from nasaug.config import SearchConfig
from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.pipelines.tensorboard import mirror_metrics
from nasaug.search import InheritedAccuracy, format_macs, ranking, search, single_path_step
from nasaug.setting import Setting, prepare
from nasaug.supernet import Architecture, Network, SearchSpace, count_with_fvcore, params
from nasaug.training import (
    RunFolder,
    evaluate,
    fit,
    load_weights,
    read_json_object,
    reestimate_batch_norm,
    save_weights,
    write_json,
)
from nasaug.workspace import begin_run, folders_near, locate_run

SHOWN = 10


def run_search(config: SearchConfig, out: str | None, resume: bool, as_json: bool) -> None:
    """Train or reuse the supernet, search it, write the result. Raises: ValueError, OSError."""
    show_log_messages()
    setting = prepare(config)
    if setting.group.size > 1:
        raise ValueError("nasaug search runs in one process; torchrun is for nasaug train")
    space = config.space.around(setting.target)
    space.check_budget(config.budget)
    if config.budget > space.source.dearest:
        say(
            f"the budget of {config.budget:,} MACs is above the space's largest, "
            f"{space.source.dearest:,}: every member fits"
        )
    run, lock = begin_run(locate_run("search", config, out, resume), config)
    with lock:
        supernet = _supernet(config, setting, space, run, resume)
        best = _searched(config, setting, space, supernet, run, resume)
    if as_json:
        emit_json({**best, "budget_macs": config.budget, "run_dir": str(run.path)})
    else:
        _show(setting.target.name, config.budget, best["top"])


def _supernet(
    config: SearchConfig, setting: Setting, space: SearchSpace, run: RunFolder, resume: bool
) -> Network:
    """The trained supernet: of this run, of an earlier one with the same making, or new."""
    folder = RunFolder(run.path / "supernet")
    making = _fingerprint(config, setting, space)
    for place in (folder.path, *(near / "supernet" for near in folders_near(run.path))):
        if _made_as(place, making):
            if place != folder.path:
                say(f"reusing the supernet of {place.parent}: same space, data and recipe")
            net = load_weights(place / "weights.safetensors")
            if place != folder.path:
                shutil.copyfile(place / "metrics.jsonl", folder.path / "metrics.jsonl")
                save_weights(folder.weights, net)
                folder.write_result({"making": making, "copied_from": str(place)})
            return net.to(setting.device)
    say(
        f"training a supernet of {space.count():.3g} paths, {format_macs(space.source.cheapest)} "
        f"to {format_macs(space.source.dearest)} MACs"
    )
    generator = torch.Generator().manual_seed(config.seed)
    net = Network(space.largest.canonical(), "kaiming_uniform", generator).to(setting.device)
    calibration = setting.calibration()

    def validate(weights: Network) -> dict[str, float]:
        target = weights.export(space.target)
        reestimate_batch_norm(target, calibration)
        return {f"target_{k}": v for k, v in evaluate(target, setting.validation()).items()}

    with progress_bar("supernet") as bar, mirror_metrics(folder, config.tensorboard):
        net = fit(
            net,
            single_path_step(space),
            setting.training,
            config.train,
            folder,
            seed=config.seed,
            validate=validate,
            watch=bar,
            resume=resume,
        )
    save_weights(folder.weights, net)
    folder.write_result({"making": making})
    shutil.rmtree(folder.checkpoints)
    return net


def _searched(
    config: SearchConfig,
    setting: Setting,
    space: SearchSpace,
    supernet: Network,
    run: RunFolder,
    resume: bool,
) -> dict[str, Any]:
    """Run the study, recount the winner, write `best.json`, show the ten best."""
    judge = InheritedAccuracy(supernet, setting.calibration(), setting.validation())
    with progress_bar("search") as bar:
        study = search(
            space,
            judge,
            config.budget,
            config.storage or run.path / "study.journal",
            config.sampler,
            config.trials,
            config.seed,
            resume,
            bar,
            f"{setting.target.name}-{config.budget}-{_fingerprint(config, setting, space)[:8]}",
        )
    ranked = ranking(study, space)
    path, trial = ranked[0]
    winner = space.architecture(path, f"{setting.target.name}-largest").canonical()
    assert trial.value is not None
    best = {
        "macs": _recounted(winner, space.macs(path)),
        "params": params(winner),
        "accuracy": trial.value,
        "architecture": winner.to_dict(),
    }
    result = {
        "target": config.target,
        "data": config.data.name,
        **best,
        "budget_macs": config.budget,
        "resolution": winner.resolution,
        "train_resolution": setting.view.resolution,
        "space": config.space.resolved(setting.target.name),
        "seed": config.seed,
        "trials": sum(trial.state == TrialState.COMPLETE for trial in study.trials),
        "supernet": "supernet/weights.safetensors",
    }
    write_json(run.path / "best.json", result)
    top = [
        {"accuracy": t.value, "macs": space.macs(p), "params": space.params(p)}
        for p, t in ranked[:SHOWN]
    ]
    run.write_result({"best": best, "budget_macs": config.budget, "top": top})
    say(str(winner))
    say(f"best: {run.path / 'best.json'}; next: nasaug train --target {config.target}")
    return {"best": best, "top": top}


def _show(name: str, budget: int, top: list[dict[str, Any]]) -> None:
    rows = [
        [str(place), f"{100 * row['accuracy']:.2f}", f"{row['macs']:,}", f"{row['params']:,}"]
        for place, row in enumerate(top, 1)
    ]
    columns = ("rank", "validation top-1 (%)", "MACs", "parameters")
    emit_table(f"Largest networks for {name} within {budget:,} MACs", columns, rows, left=0)


def _recounted(winner: Architecture, expected: int) -> int:
    """MACs by fvcore, the counter of record."""
    counts = count_with_fvcore(winner)
    total = counts["conv"] + counts["linear"]
    assert total == expected, f"fvcore counts {total} MACs, the graph {expected}"
    return total


def _fingerprint(config: SearchConfig, setting: Setting, space: SearchSpace) -> str:
    """What the supernet's weights depend on."""
    facts = {
        "target": setting.target.to_dict(),
        "space": {row.name: row.decisions for row in space.rows},
        "data": config.data.model_dump(mode="json", exclude={"workers", "download", "dir"}),
        "images": setting.data.digest(),
        "recipe": config.train.model_dump(mode="json", exclude={"checkpoint_every"}),
        "resolution": setting.view.resolution,
        "seed": config.seed,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _made_as(place: Path, making: str) -> bool:
    """Whether a finished supernet lies at `place` that was made as `making` says."""
    result = place / "result.json"
    if not result.is_file() or not (place / "weights.safetensors").is_file():
        return False
    try:
        return bool(read_json_object(result).get("making") == making)
    except ValueError:
        return False
