"""Checking that a supernet ranks, from configuration to `rank.json` and `rank.svg`.

Every candidate that is trained and judged is a line of `candidates.jsonl`; one that was interrupted
goes on from its checkpoint. The report is a function of these lines, so that a check which was
killed and resumed reports what an uninterrupted one would have.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from nasaug.console import emit_json, emit_table, progress_bar, say, show_log_messages
from nasaug.pipelines.rank_config import NEW, RankConfig, as_searched, choose_supernet
from nasaug.pipelines.rank_plot import draw_ranks
from nasaug.pipelines.supernet import FOLDER, RANK, trained_supernet
from nasaug.search import InheritedAccuracy, draw_stratified, rank_report
from nasaug.setting import Setting, prepare
from nasaug.supernet import Architecture, ChoicePath, Network, SearchSpace
from nasaug.training import (
    RunFolder,
    calibration_batches,
    evaluate,
    fit,
    load_weights,
    plain_step,
    read_json_object,
    reestimate_batch_norm,
    training_batches,
    write_atomically,
    write_json,
)
from nasaug.training.files import append_line
from nasaug.workspace import begin_run, locate_run

CHECKED, LINES, PLOT = "checked.json", "candidates.jsonl", "rank.svg"
Candidate = dict[str, Any]


def run_rank_check(config: RankConfig, out: str | None, resume: bool, as_json: bool) -> None:
    """Train the candidates alone, compare, write the report. Raises: ValueError, OSError."""
    show_log_messages()
    path = locate_run("rank-check", config, out, resume)
    chosen = path / CHECKED
    # What "auto" came to is kept, so that resuming does not choose again.
    source = str(read_json_object(chosen).get(FOLDER, NEW)) if chosen.exists() else ""
    source = source or choose_supernet(config, path)
    made = config if source == NEW else as_searched(config, Path(source))
    setting = prepare(made)
    if setting.group.size > 1:
        raise ValueError("nasaug rank-check runs in one process; torchrun is for nasaug train")
    if made.alone.resolution not in (None, setting.view.resolution):
        raise ValueError(
            f"alone.resolution must be the supernet's {setting.view.resolution}, since both judge "
            f"the same images, but got {made.alone.resolution}; leave it out"
        )
    space = made.space.build(setting.target)
    paths = draw_stratified(
        space, made.n, made.bands, made.limits, random.Random(f"{made.seed}/rank-check")
    )
    run, lock = begin_run(path, config)
    with lock:
        write_json(chosen, {FOLDER: source})
        if not run.finished:
            supernet = _supernet(made, setting, space, run, source, resume)
            found = _candidates(made, setting, space, supernet, paths, run, resume)
            _report(made, found, source, run)
        result = {**run.result(), "run_dir": str(run.path)}
    if as_json:
        emit_json(result)
    else:
        _show(result)


def _supernet(
    config: RankConfig,
    setting: Setting,
    space: SearchSpace,
    run: RunFolder,
    source: str,
    resume: bool,
) -> Network:
    if source == NEW:
        return trained_supernet(config, setting, space, run, resume, config.supernet)
    place = Path(source) / FOLDER
    say(f"checking the supernet of {source}")
    net = load_weights(place / "weights.safetensors")
    if net.arch != space.largest:
        whose = space.name if space.is_table else f"around {space.name}"
        raise ValueError(
            f"{place} is a supernet of another space: its largest member is not that of the space "
            f"{whose} which {source}/config.yaml describes"
        )
    return net.to(setting.device)


def _candidates(
    config: RankConfig,
    setting: Setting,
    space: SearchSpace,
    supernet: Network,
    paths: list[ChoicePath],
    run: RunFolder,
    resume: bool,
) -> list[Candidate]:
    """All candidates, judged twice; those that `candidates.jsonl` holds are not judged again."""
    lines = run.path / LINES
    found = _read_candidates(lines, paths)
    for index in range(len(found)):
        shutil.rmtree(run.path / "alone" / f"{index:03d}" / "checkpoint", ignore_errors=True)
    judge = InheritedAccuracy(supernet, setting.calibration(), setting.validation())
    for index in range(len(found), len(paths)):
        path = paths[index]
        arch = space.architecture(path, f"{space.name}-candidate{index}").canonical()
        folder = RunFolder(run.path / "alone" / f"{index:03d}")
        title = f"candidate {index + 1} of {len(paths)}"
        candidate: Candidate = {
            "path": list(path),
            "macs": space.macs(path),
            "params": space.params(path),
            "inherited": judge(arch),
            "alone": _accuracy_alone(config, setting, arch, folder, title, resume),
            "architecture": arch.to_dict(),
        }
        append_line(lines, json.dumps(candidate))
        shutil.rmtree(folder.checkpoints)
        found.append(candidate)
    return found


def _accuracy_alone(
    config: RankConfig,
    setting: Setting,
    arch: Architecture,
    folder: RunFolder,
    title: str,
    resume: bool,
) -> float:
    """Validation top-1 of `arch` trained from fresh weights, as `nasaug train` trains a baseline.

    All candidates see the same batches.
    """
    recipe = config.alone
    generator = torch.Generator().manual_seed(config.seed)
    net = Network(arch, "fan_out", generator).to(setting.device)
    batches = training_batches(setting.data, setting.view, recipe.batch_size, config.seed)
    with progress_bar(title) as bar:
        weights = fit(
            net, plain_step, batches, recipe, folder, seed=config.seed, watch=bar, resume=resume
        )
    trained = weights.export(arch)
    calibration = calibration_batches(setting.data, setting.view, recipe.bn_images)
    reestimate_batch_norm(trained, calibration)
    return evaluate(trained, setting.validation())["top1"]


def _read_candidates(lines: Path, paths: list[ChoicePath]) -> list[Candidate]:
    """The candidates that are done. A last line that a full disk or a kill cut off is dropped.

    Raises: ValueError for a file that holds others than those drawn.
    """
    text = lines.read_text(encoding="utf-8") if lines.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomically(lines, whole)
    try:
        found: list[Candidate] = [json.loads(line) for line in whole.splitlines()]
        drawn = [tuple(candidate["path"]) for candidate in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{lines} is damaged ({error}); choose another --out") from None
    if drawn != paths[: len(drawn)]:
        raise ValueError(
            f"{lines} holds other candidates than this check draws; choose another --out"
        )
    return found


def _report(config: RankConfig, found: list[Candidate], source: str, run: RunFolder) -> None:
    """Write the comparison, its picture, and a copy beside the supernet."""
    inherited, alone, costs = ([c[key] for c in found] for key in ("inherited", "alone", "macs"))
    report = rank_report(inherited, alone, costs, config.resamples, config.seed)
    result = {
        "direction": config.direction,
        "target": config.target,
        "data": config.data.name,
        **report.to_dict(),
        "limits": config.limits.given,
        "bands": config.bands,
        "supernet": str(run.path if source == NEW else source),
        "method": config.supernet.method,
        "alone_epochs": config.alone.epochs,
        "candidates": found,
    }
    draw_ranks(run.path / PLOT, inherited, alone, costs, report, config.target)
    write_json(run.path / RANK, result)
    write_json(Path(result["supernet"]) / FOLDER / RANK, result)
    run.write_result(result)


def _show(result: dict[str, Any]) -> None:
    names = {
        "tau": "Kendall tau of the supernet",
        "macs_tau": "Kendall tau of MACs alone",
        "gain": "difference of the two",
        "spearman": "Spearman of the supernet",
    }
    rows = []
    for key, name in names.items():
        value, low, high = (result[key][part] for part in ("value", "low", "high"))
        rows.append([name, f"{value:.2f}", f"{low:.2f} to {high:.2f}"])
    interval = f"{100 * result['confidence']:.0f} % interval"
    whose = f"{'of' if result['direction'] == 'down' else 'for'} {result['target']}"
    title = f"{result['n']} candidates {whose}; the supernet is that of"
    emit_table(f"{title} {result['supernet']}", ("judge", "value", interval), rows)
    n, tau, gain = result["n"], result["tau"], result["gain"]
    if tau["low"] > 0:
        say(f"the supernet ranks better than chance (n = {n})")
    else:
        say(f"the supernet is not shown to rank better than chance (n = {n})")
    if gain["low"] > 0:
        say("it ranks better than MACs alone")
    else:
        say("it is not shown to rank better than MACs alone, which cost nothing")
    say(f"picture: {Path(result['run_dir']) / PLOT}")
