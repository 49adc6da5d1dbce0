"""Judging weights on the test part of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasaug.console import emit_json, emit_table, say, show_log_messages
from nasaug.given_weights import given_weights
from nasaug.pipelines.scores import emit_scores, summary
from nasaug.setting import choose_device
from nasaug.supernet import Architecture, Network, load_published, load_target, macs, params
from nasaug.training import (
    View,
    evaluation_batches,
    judge,
    keep_caches,
    load_dataset,
    load_weights,
    read_facts,
)


def run_evaluation(
    weights: str,
    target: str | None,
    data: str,
    data_dir: str | None,
    download: bool,
    resolution: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Raises: ValueError for weights that are damaged, of another target or of other classes."""
    show_log_messages()
    keep_caches()
    place = choose_device(device)
    dataset = load_dataset(data, data_dir, download=download)
    net, facts, path = _load(given_weights(weights), target, len(dataset.classes))
    if net.arch.num_classes != len(dataset.classes):
        raise ValueError(
            f"{path} tells {net.arch.num_classes} classes apart, but {data} has "
            f"{len(dataset.classes)}"
        )
    if facts.get("classes", list(dataset.classes)) != list(dataset.classes):
        say(f"the classes of {path} have other names than those of {data}: is it the same data?")
    size = net.arch.resolution if resolution is None else resolution
    if resolution is None and "resolution" in facts:
        size = _side(facts["resolution"], path)
    view = View(size, net.arch.in_channels, place)
    batches = evaluation_batches(dataset, dataset.test, view)
    judged = judge(net.to(place), batches, len(dataset.classes))
    result: dict[str, Any] = {
        "target": facts.get("target", net.arch.name),
        "data": data,
        "top1": judged.top1,
        "top5": judged.top5,
        "loss": judged.loss,
        "macs": macs(net.arch),
        "params": params(net.arch),
        "resolution": net.arch.resolution,
        "evaluated_at": size,
        "weights": str(path),
        "run_dir": str(path.parent),
    }
    if as_json:
        emit_json(result | {"metrics": judged.to_dict()})
        return
    columns = ("target", "data", "test top-1 (%)", "top-5 (%)", "MACs", "parameters")
    row = [result["target"], data, f"{100 * judged.top1:.2f}", f"{100 * judged.top5:.2f}"]
    row += [f"{result['macs']:,}", f"{result['params']:,}"]
    emit_table(f"{path} at {size} x {size}", columns, [row], left=2)
    emit_scores("", {result["target"]: {"test": summary(judged)}})


def _load(path: Path, target: str | None, classes: int) -> tuple[Network, dict[str, Any], Path]:
    if path.suffix != ".safetensors":
        if target is None:
            raise ValueError(f"{path} does not say what it is of; add --target")
        return load_published(path, load_target(target, classes)), {"target": target}, path
    net, facts = load_weights(path), read_facts(path)
    if target is not None and net.arch != _named(target, net.arch):
        raise ValueError(f"{path} holds {facts.get('target', net.arch.name)}, not {target}")
    return net, facts, path


def _named(target: str, like: Architecture) -> Architecture:
    """The named target as it would be with the classes and the input of `like`."""
    return load_target(target, like.num_classes, like.resolution, like.in_channels)


def _side(value: Any, path: Path) -> int:
    if not isinstance(value, int) or not 8 <= value <= 8192:
        raise ValueError(f"{path} is damaged: it was trained at a resolution of {value!r}")
    return value
