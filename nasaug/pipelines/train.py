"""Training a target, from configuration to exported weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nasaug.config import SpaceSection, TrainConfig
from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.netaug import Augmentation, netaug_step
from nasaug.pipelines.tensorboard import mirror_metrics
from nasaug.search import format_macs, parse_budget
from nasaug.setting import Setting, prepare
from nasaug.supernet import (
    Architecture,
    Factors,
    Network,
    count_with_fvcore,
    macs,
    params,
    published_factors,
)
from nasaug.training import (
    RunFolder,
    Step,
    evaluate,
    fit,
    load_weights,
    plain_step,
    read_json_object,
    reestimate_batch_norm,
    save_weights,
    write_json,
)
from nasaug.workspace import SearchResult, begin_run, locate_run, newest_search, read_best

INSIDE = "inside.json"


@dataclass(frozen=True)
class Plan:
    """What is trained, how, from which weights, and one line of what it is trained inside.

    `choice` is what "auto" came to; kept with the run, so that resuming does not choose again.
    """

    net: Network
    target: Architecture
    step: Step
    inside: str
    choice: dict[str, Any]


def run_training(config: TrainConfig, out: str | None, resume: bool, as_json: bool) -> None:
    """Train, export, judge once on the test part, write the result."""
    show_log_messages()
    setting = prepare(config)
    path = locate_run("train", config, out, resume, setting.group)
    plan = _plan(config, setting, path)
    run, lock = begin_run(path, config, setting.group)
    with lock:
        if run.writes:
            write_json(run.path / INSIDE, plan.choice)
        result = run.result() if run.finished else _trained(config, setting, plan, run, resume)
    if not setting.group.first:
        return
    if as_json:
        emit_json(result)
    else:
        _show(result)


def _plan(config: TrainConfig, setting: Setting, run: Path) -> Plan:
    target = setting.target
    generator = torch.Generator().manual_seed(config.seed)
    if config.method == "baseline" or config.largest == "none":
        if config.netaug.init == "supernet":
            raise ValueError("init supernet needs method netaug and a largest network to slice")
        net = Network(target, "fan_out", generator).to(setting.device)
        return Plan(net, target, plain_step, f"{target.name} alone", {"largest": "none"})
    chosen = run / INSIDE
    largest_from = str(read_json_object(chosen).get("largest", "")) if chosen.exists() else ""
    augmentation, best, source = _augmentation(config, target, largest_from, run)
    inside = (
        f"{target.name} ({format_macs(macs(target))} MACs) inside networks of up to "
        f"{format_macs(macs(augmentation.largest))} MACs from {source}"
    )
    largest = augmentation.largest.canonical()
    if config.netaug.init == "supernet":
        net = _inherited(best, largest)
        inside += ", weights from the supernet"
    else:
        net = Network(largest, "kaiming_uniform", generator)
    step = netaug_step(augmentation, config.netaug)
    choice = {"largest": str(best.resolve()) if best else "published"}
    return Plan(net.to(setting.device), augmentation.target, step, inside, choice)


def _augmentation(
    config: TrainConfig, target: Architecture, chosen: str, run: Path
) -> tuple[Augmentation, Path | None, str]:
    """The augmentation, the search's result behind it (if any), and where it came from."""
    section = config.netaug
    published = published_factors(target.name)
    factors = Factors(section.width or published.width, section.expand or published.expand)
    best: SearchResult | None = None
    wanted = chosen or config.largest
    if wanted == "auto":
        best = newest_search(config.target, target, run)
    elif wanted != "published":
        path = Path(wanted)
        path = path / "best.json" if path.is_dir() else path
        if not path.exists():
            raise ValueError(
                f"{path} does not exist; run nasaug search, or use --largest published"
            )
        best = path, read_best(path)
    if best is None:
        augmentation = Augmentation.by_factors(target, factors, section.divisor)
        return augmentation, None, "the published factors"
    path, facts = best
    if facts["target"] != config.target:
        raise ValueError(
            f"{path} was searched for {facts['target']}, not {config.target}; "
            "name another --largest, or search for this target first"
        )
    try:
        largest = Architecture.from_dict(facts["architecture"]).with_classes(target.num_classes)
        if section.width is None and section.expand is None and "space" in facts:
            space = SpaceSection.model_validate(facts["space"])
            factors = Factors(space.width or factors.width, space.expand or factors.expand)
        augmentation = Augmentation.inside(target, largest, factors, section.divisor)
        budget = format_macs(parse_budget(facts["budget_macs"]))
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    return augmentation, path, f"the search {path} (budget {budget})"


def _inherited(best: Path | None, largest: Architecture) -> Network:
    """The largest network with the searched supernet's weights."""
    if best is None:
        raise ValueError("--init supernet needs a search's result: run nasaug search first")
    supernet = load_weights(best.parent / "supernet" / "weights.safetensors")
    if supernet.arch.num_classes != largest.num_classes:
        raise ValueError(
            f"the supernet of {best} has {supernet.arch.num_classes} classes, the data set has "
            f"{largest.num_classes}; use --init fresh"
        )
    return supernet.export(largest)


def _trained(
    config: TrainConfig, setting: Setting, plan: Plan, run: RunFolder, resume: bool
) -> dict[str, Any]:
    if setting.group.first:
        say(f"training {plan.inside}")
    calibration = setting.calibration()

    def validate(weights: Network) -> dict[str, float]:
        target = weights.export(plan.target)
        reestimate_batch_norm(target, calibration)
        return evaluate(target, setting.validation())

    with progress_bar("training") as bar, mirror_metrics(run, config.tensorboard):
        weights = fit(
            plan.net,
            plan.step,
            setting.training,
            config.train,
            run,
            seed=config.seed,
            group=setting.group,
            validate=validate,
            watch=bar if setting.group.first else None,
            resume=resume,
        )
    if not setting.group.first:
        return {}
    target = weights.export(plan.target)
    bn_images = reestimate_batch_norm(target, calibration)
    facts = {"target": config.target, "data": config.data.name}
    save_weights(run.weights, target, {**facts, "resolution": setting.view.resolution})
    scores = evaluate(target, setting.test())
    counts = count_with_fvcore(target.arch)
    total = counts["conv"] + counts["linear"]
    assert (total, params(target.arch)) == (macs(setting.target), params(setting.target))
    result = {
        **facts,
        "method": config.method,
        "top1": scores["top1"],
        "top5": scores["top5"],
        "loss": scores["loss"],
        "macs": total,
        "params": params(target.arch),
        "resolution": target.arch.resolution,
        "train_resolution": setting.view.resolution,
        "bn_images": bn_images,
        "inside": plan.inside,
        "seed": config.seed,
        "weights": str(run.weights),
        "run_dir": str(run.path),
    }
    run.write_result(result)
    return result


def _show(result: dict[str, Any]) -> None:
    columns = ("target", "method", "test top-1 (%)", "top-5 (%)", "MACs", "parameters")
    row = [
        result["target"],
        result["method"],
        f"{100 * result['top1']:.2f}",
        f"{100 * result['top5']:.2f}",
        f"{result['macs']:,}",
        f"{result['params']:,}",
    ]
    emit_table(f"Trained: {result['inside']}", columns, [row], left=2)
    say(f"weights: {result['weights']}")
