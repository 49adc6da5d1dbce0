"""Training a target, from configuration to exported weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.netaug import sparsity_of
from nasaug.pipelines.inside import INSIDE
from nasaug.pipelines.plan import Plan, make_plan
from nasaug.pipelines.scores import emit_scores, summary
from nasaug.pipelines.tensorboard import mirror_metrics
from nasaug.setting import Setting, prepare
from nasaug.supernet import Architecture, Network, count_with_fvcore, macs, params
from nasaug.train_config import TrainConfig
from nasaug.training import (
    Batches,
    Diagnosis,
    ImageArray,
    Judgement,
    RunFolder,
    class_balanced,
    describe,
    diagnose,
    evaluate,
    fit,
    judge,
    reestimate_batch_norm,
    save_weights,
    write_json,
)
from nasaug.workspace import begin_run, locate_run

METRICS = "metrics.json"
Judged = dict[str, Judgement]


def run_training(config: TrainConfig, out: str | None, resume: bool, as_json: bool) -> None:
    """Train, export, judge once on the test part, write the result and show it."""
    result = train(config, out, resume)
    if result is None:
        return
    if as_json:
        emit_json(result)
    else:
        _show(result)


def train(config: TrainConfig, out: str | None, resume: bool) -> dict[str, Any] | None:
    """The result of a training, done now or before; None in workers that do not write it."""
    show_log_messages()
    setting = prepare(config)
    path = locate_run("train", config, out, resume, setting.group)
    run = RunFolder(path, writes=False)
    if run.finished:
        result = run.result()
    else:
        plan = make_plan(config, setting, path)
        run, lock = begin_run(path, config, setting.group)
        with lock:
            if run.writes:
                write_json(run.path / INSIDE, plan.choice)
            result = _trained(config, setting, plan, run, resume)
    return result if setting.group.first else None


def _trained(
    config: TrainConfig, setting: Setting, plan: Plan, run: RunFolder, resume: bool
) -> dict[str, Any]:
    if setting.group.first:
        say(f"training {plan.inside}")
    calibration, validation = setting.calibration(), setting.validation()
    seen = setting.training_sample()

    def validate(weights: Network, progress: float) -> dict[str, float]:
        curves = _curves("", plan.exported(weights, calibration, progress)[0], seen, validation)
        if config.metrics.curves == "both":
            largest = weights.export()
            largest.round_to(plan.bits)
            reestimate_batch_norm(largest, calibration)
            curves |= _curves("largest_", largest, seen, validation)
        return curves

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
    judged, result = _shipped(config, setting, plan, run, weights)
    _write_metrics(run, setting, judged, result)
    run.write_result(result)
    return result


def _shipped(
    config: TrainConfig, setting: Setting, plan: Plan, run: RunFolder, weights: Network
) -> tuple[dict[str, Judged], dict[str, Any]]:
    """Save the target; returns how it and the larger network are judged, and the run's result."""
    calibration = setting.calibration()
    target, bn_images = plan.finished(weights, calibration)
    judged = {"target": _judged(target, setting)}
    test = judged["target"]["test"]
    facts = {"target": config.target, "data": config.data.name}
    known = describe(setting.data, setting.view) | {"top1": test.top1, "top5": test.top5}
    save_weights(run.weights, target, {**known, **facts})
    if plan.augmented:
        largest = weights.export()
        reestimate_batch_norm(largest, calibration)
        judged["largest"] = _judged(largest, setting)
    own, epochs = judged["target"], run.metrics()
    return judged, {
        **facts,
        "method": config.method,
        "parts": config.parts(),
        "top1": own["test"].top1,
        "top5": own["test"].top5,
        "loss": own["test"].loss,
        "train_top1": own["train"].top1,
        "validation_top1": own["validation"].top1,
        "diagnosis": _diagnosis(config, own).text,
        "scores": {
            net: {part: summary(judgement) for part, judgement in parts.items()}
            for net, parts in judged.items()
        },
        "macs": _counted(target.arch),
        "params": params(target.arch),
        "resolution": target.arch.resolution,
        "train_resolution": setting.view.resolution,
        "sparsity": sparsity_of(target),
        "train_macs": sum(int(row["macs"]) for row in epochs),
        "train_seconds": round(sum(float(row["seconds"]) for row in epochs), 3),
        "train_cpu_seconds": _cpu_seconds(setting, epochs),
        "bn_images": bn_images,
        "inside": plan.inside,
        "seed": config.seed,
        "metrics": str(run.path / METRICS),
        "weights": str(run.weights),
        "run_dir": str(run.path),
    }


def _cpu_seconds(setting: Setting, epochs: Sequence[Mapping[str, Any]]) -> float | None:
    """Of this process. None where it does not do all of the work (a GPU, decoding processes, other
    workers), and where an epoch was trained by a release that did not measure them."""
    decodes = isinstance(setting.data.train, ImageArray) or setting.view.workers == 0
    alone = setting.device.type == "cpu" and decodes and setting.group.size == 1
    if not alone or not all("cpu_seconds" in row for row in epochs):
        return None
    return round(sum(float(row["cpu_seconds"]) for row in epochs), 3)


def _diagnosis(config: TrainConfig, judged: Judged) -> Diagnosis:
    """Of a long tail against balanced validation images: class by class."""
    train, validation = judged["train"], judged["validation"]
    if config.data.imbalance > 1:
        return diagnose(*class_balanced(train, validation))
    return diagnose(train, validation)


def _curves(name: str, net: Network, seen: Batches, validation: Batches) -> dict[str, float]:
    """Accuracies on as many training images as there are validation images, and on these."""
    scores = evaluate(net, validation)
    curves = {f"{name}{key}": value for key, value in scores.items()}
    return curves | {f"{name}train_top1": evaluate(net, seen)["top1"]}


def _judged(net: Network, setting: Setting) -> Judged:
    """All metrics on each part; the test part is seen here and nowhere else."""
    parts = {
        "train": setting.training_sample(),
        "validation": setting.validation(),
        "test": setting.test(),
    }
    classes = len(setting.data.classes)
    return {name: judge(net, batches, classes) for name, batches in parts.items()}


def _write_metrics(
    run: RunFolder, setting: Setting, judged: Mapping[str, Judged], result: Mapping[str, Any]
) -> None:
    whole = {
        net: {part: judgement.to_dict() for part, judgement in parts.items()}
        for net, parts in judged.items()
    }
    facts = {"classes": list(setting.data.classes), "diagnosis": result["diagnosis"]}
    write_json(run.path / METRICS, {**facts, **whole})


def _counted(arch: Architecture) -> int:
    """MACs by the counter of record, which the closed form must equal."""
    counts = count_with_fvcore(arch)
    total = counts["conv"] + counts["linear"]
    assert total == macs(arch)
    return total


def _show(result: Mapping[str, Any]) -> None:
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
    emit_scores("", result["scores"])
    if result["sparsity"] > 0.01:
        say(f"zero: {100 * result['sparsity']:.1f} % of the weights")
    say(result["diagnosis"])
    say(f"weights: {result['weights']}")
