"""What a training run is: which network, trained by which step, and what is shipped in the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nasaug.netaug import (
    Augmentation,
    Parts,
    compact,
    pruning_step,
    sharing_groups,
    training_step,
    unsharing_step,
)
from nasaug.pipelines.inside import Inside, augmentation_for
from nasaug.pipelines.starting import keep_features, on_kept_features, started_from
from nasaug.pipelines.teacher import teacher_for
from nasaug.search import format_macs
from nasaug.setting import Setting
from nasaug.supernet import Architecture, Bits, Network, at_slope, boost, contract, macs
from nasaug.train_config import TrainConfig
from nasaug.training import (
    Batches,
    Step,
    load_weights,
    reestimate_batch_norm,
    total_steps,
)


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
    augmented: bool = False
    slope: Callable[[float], float] | None = None
    prunes: bool = False
    bits: Bits | None = None
    keeps_norms: bool = False

    def exported(
        self, weights: Network, calibration: Batches, progress: float
    ) -> tuple[Network, int]:
        """The target as it is when the share `progress` of training is done, and the number of
        images that its batch-norm statistics are of.

        A boosted target is one network while it is being trained and another when it is done. On
        kept features nothing is re-estimated: none of the images.
        """
        if self.slope is None:
            target = weights.export(self.target)
            if self.keeps_norms:
                return target, 0
            target.round_to(self.bits)
            return target, reestimate_batch_norm(target, calibration)
        slope = self.slope(progress)
        boosted = weights.export(at_slope(weights.arch, slope))
        images = reestimate_batch_norm(boosted, calibration)
        return (boosted if slope < 1 else contract(boosted)), images

    def finished(self, weights: Network, calibration: Batches) -> tuple[Network, int]:
        """What is shipped: pruned channels are gone, boosted convolutions merged, nothing is
        rounded but what gave the batch-norm statistics."""
        target, images = self.exported(weights, calibration, 1.0)
        target.round_to(None)
        return (compact(target) if self.prunes else target), images


def make_plan(config: TrainConfig, setting: Setting, run: Path) -> Plan:
    """Raises: ValueError for what cannot be trained as asked, before anything is."""
    _check_helpers_batch(config, setting.group.size)
    _check_window(config, setting)
    target = setting.target
    generator = torch.Generator().manual_seed(config.seed)
    inside = augmentation_for(config, target, run)
    if inside is None:
        arch = target if config.boost is None else _boosted(target, config)
        said, choice = f"{target.name} alone", {"largest": "none"}
        if config.init is None:
            net = Network(arch, "fan_out", generator)
        else:
            net, start = started_from(config.init, target, setting.data.classes, generator)
            said = f"{said}, {start}"
        if config.boost is not None:
            said = f"{target.name}, boosted from {_macs(target)} to {_macs(arch)} MACs"
    else:
        net, said = _augmented_network(config, inside, generator)
        assert config.netaug is not None
        if config.init is not None:
            own, start = started_from(config.init, target, setting.data.classes, generator)
            net.take(own, inside.augmentation.target)
            said = f"{said}, {start}"
        if config.netaug.norms == "separate":
            net.separate_norms(inside.augmentation.target)
        said = f"{target.name} ({_macs(target)} MACs) {said}"
        choice = {"largest": str(inside.best.resolve()) if inside.best else "published"}
        target = inside.augmentation.target
    net = net.to(setting.device)
    bits = None if config.quantise is None else config.quantise.bits()
    net.round_to(bits)
    step = _step(config, setting, inside, net, target)
    if config.tune == "head":
        keep_features(net)
        step, said = on_kept_features(step), f"{said}; of it the head alone"
    return Plan(
        net,
        target,
        step,
        said,
        choice,
        inside is not None,
        None if config.boost is None else config.boost.slope,
        config.prune is not None and config.prune.kind == "structured",
        bits,
        config.tune == "head",
    )


def _check_helpers_batch(config: TrainConfig, workers: int) -> None:
    """What the helpers see of a batch must be enough for their statistics and for relations."""
    together = workers if config.train.sync_batch_norm else 1
    share = 1.0 if config.augmented is None else config.augmented.share
    images = math.ceil(share * config.train.batch_size) * together
    needed, why = 2, "batch norm"
    if config.relational is not None and config.relational.angle > 0:
        needed, why = 3, "relational distillation"
    if images < needed:
        raise ValueError(
            f"{why} needs {needed} images at least, but helpers see {images} of a batch of "
            f"{config.train.batch_size}; raise train.batch_size or netaug.share"
        )


def _check_window(config: TrainConfig, setting: Setting) -> None:
    """There must be a step with helpers."""
    netaug, recipe = config.augmented, config.train
    if netaug is None:
        return
    steps = total_steps(recipe, max(1, len(setting.training) // recipe.accumulate))
    if not any(netaug.helps(step, step / steps) for step in range(steps)):
        raise ValueError(
            f"none of the {steps} steps has helpers: netaug.start {netaug.start}, netaug.stop "
            f"{netaug.stop}, netaug.every {netaug.every}; widen the window or train longer"
        )


def _augmented_network(
    config: TrainConfig, inside: Inside, generator: torch.Generator
) -> tuple[Network, str]:
    assert config.netaug is not None
    largest = inside.augmentation.largest.canonical()
    said = f"inside networks of up to {_macs(largest)} MACs from {inside.source}"
    if config.netaug.init == "fresh":
        return Network(largest, "kaiming_uniform", generator), said
    if inside.best is None:
        raise ValueError("--init supernet needs a search's result: run nasaug search first")
    supernet = load_weights(inside.best.parent / "supernet" / "weights.safetensors")
    if supernet.arch.num_classes != largest.num_classes:
        raise ValueError(
            f"the supernet of {inside.best} has {supernet.arch.num_classes} classes, the data set "
            f"has {largest.num_classes}; use --init fresh"
        )
    return supernet.export(largest), f"{said}, weights from the supernet"


def _boosted(target: Architecture, config: TrainConfig) -> Architecture:
    assert config.boost is not None
    return boost(target, config.boost.ratio, config.boost.every)


def _step(
    config: TrainConfig,
    setting: Setting,
    inside: Inside | None,
    net: Network,
    target: Architecture,
) -> Step:
    augmentation: Augmentation | None = inside.augmentation if inside else None
    parts = Parts(
        augmentation,
        relational=config.relational,
        in_place=config.in_place,
        distill=config.distill,
        teacher=teacher_for(config, setting),
        boost=config.boost,
        noise=config.regularise.noise(),
    )
    if config.netaug is not None:
        parts = replace(parts, netaug=config.netaug)
    step = training_step(parts)
    if config.prune is not None:
        step = pruning_step(step, target, config.prune)
    if config.unshare is not None:
        step = unsharing_step(step, sharing_groups(net.arch), config.unshare)
    return step


def _macs(arch: Architecture) -> str:
    return format_macs(macs(arch))
