"""Training a detector, from configuration to exported weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.detect_config import DetectConfig
from nasaug.detection import (
    DetectionScores,
    Detector,
    count_detector_with_fvcore,
    save_detector,
)
from nasaug.pipelines.detect_plan import DetectPlan, make_detect_plan
from nasaug.pipelines.detect_setting import DetectSetting, prepare_detection
from nasaug.pipelines.tensorboard import mirror_metrics
from nasaug.supernet import Architecture
from nasaug.training import RunFolder, fit, reestimate_batch_norm
from nasaug.workspace import begin_run, locate_run


def run_detect_training(config: DetectConfig, out: str | None, resume: bool, as_json: bool) -> None:
    """Train, export, judge once on the test part, write the result."""
    show_log_messages()
    setting = prepare_detection(config)
    path = locate_run("detect", config, out, resume, setting.group)
    run = RunFolder(path, writes=False)
    if run.finished:
        result = run.result()
    else:
        plan = make_detect_plan(config, setting)
        run, lock = begin_run(path, config, setting.group)
        with lock:
            result = _trained(config, setting, plan, run, resume)
    if not setting.group.first:
        return
    if as_json:
        emit_json(result)
    else:
        _show(result)


def _trained(
    config: DetectConfig, setting: DetectSetting, plan: DetectPlan, run: RunFolder, resume: bool
) -> dict[str, Any]:
    if setting.group.first:
        say(f"training {plan.inside}")

    def validate(weights: Detector, progress: float) -> dict[str, float]:
        exported, _ = _exported(weights, plan.target, setting)
        return {"map": setting.judged(exported, setting.data.validation).mean_ap}

    with progress_bar("training") as bar, mirror_metrics(run, config.tensorboard):
        weights = fit(
            plan.detector,
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
    result = _shipped(config, setting, plan, run, weights)
    run.write_result(result)
    return result


def _exported(
    weights: Detector, target: Architecture, setting: DetectSetting
) -> tuple[Detector, int]:
    """The target's detector, and how many images its batch-norm statistics are of."""
    exported = weights.export(target)
    return exported, reestimate_batch_norm(exported, setting.calibration())


def _shipped(
    config: DetectConfig,
    setting: DetectSetting,
    plan: DetectPlan,
    run: RunFolder,
    weights: Detector,
) -> dict[str, Any]:
    """Save the target's detector; returns the run's result. The test part is seen here only."""
    detector, bn_images = _exported(weights, plan.target, setting)
    facts = {"target": config.target, "data": str(config.data.name)}
    shown = {"mean": list(setting.view.mean), "std": list(setting.view.std)}
    save_detector(run.weights, detector, {**facts, **shown})
    epochs = run.metrics()
    test = setting.judged(detector, setting.data.test)
    validation = setting.judged(detector, setting.data.validation)
    return {
        **facts,
        "method": config.method,
        "map": test.mean_ap,
        "style": test.style,
        "validation_map": validation.mean_ap,
        "scores": {"test": test.to_dict(), "validation": validation.to_dict()},
        **costs(detector),
        "resolution": detector.options.size,
        "classes": list(detector.classes),
        "train_macs": sum(int(row["macs"]) for row in epochs),
        "train_seconds": round(sum(float(row["seconds"]) for row in epochs), 3),
        "bn_images": bn_images,
        "skipped": list(setting.data.skipped),
        "inside": plan.inside,
        "seed": config.seed,
        "weights": str(run.weights),
        "run_dir": str(run.path),
    }


def costs(detector: Detector) -> dict[str, int]:
    """MACs of the whole and of its parts, by the closed form, which fvcore's count must equal."""
    macs, arch = detector.macs(), detector.arch
    assert macs.total == count_detector_with_fvcore(detector, arch.resolution, arch.in_channels)
    return {
        "macs": macs.total,
        "macs_backbone": macs.backbone,
        "macs_extra": macs.extra,
        "macs_heads": macs.heads,
        "params": detector.params,
    }


def _show(result: Mapping[str, Any]) -> None:
    title = f"Trained: {result['inside']}, at {result['resolution']} x {result['resolution']}"
    emit_detections(title, result, result["scores"]["test"])
    say(f"weights: {result['weights']}")


def emit_detections(title: str, result: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """A detector's costs and mAP on the test part, then its classes, as tables."""
    columns = ("target", "data", "test mAP (%)", "MACs", "of the backbone", "parameters")
    row = [result["target"], result["data"], f"{100 * scores['map']:.2f}"]
    row += [f"{result[key]:,}" for key in ("macs", "macs_backbone", "params")]
    emit_table(title, columns, [row], left=2)
    measures = list(next(iter(scores["per_class"].values())))
    rows = [
        [name, *("" if values[m] is None else f"{100 * values[m]:.2f}" for m in measures)]
        for name, values in scores["per_class"].items()
    ]
    emit_table("", ("class", *(f"{measure} (%)" for measure in measures)), rows)
    for note in scores["notes"]:
        say(note)


def score_facts(scores: DetectionScores) -> dict[str, Any]:
    """What a command says of scores, first the mAP."""
    return {"map": scores.mean_ap, "style": scores.style, "scores": {"test": scores.to_dict()}}
