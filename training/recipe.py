"""How a network is trained: the numbers of a recipe and what follows from them directly."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from nasaug.supernet import Architecture, Network


class Recipe(BaseModel):
    """SGD with Nesterov momentum, warm-up and cosine per step, as the NetAug authors train.

    `batch_size` and `lr` are per worker and batch; a step takes `accumulate` batches a worker.
    `sync_batch_norm`: the statistics (and the relations between images) of a batch are over all
    workers. `graphs`: unless it is off, a GPU plays back what is the same in every step, or can be
    made the same (CUDA graphs), rather than be told it anew. `head_lr_factor`: how many times the
    others' learning rate the classifier's is.
    `resolution` is the training resolution; None means the architecture's own for image files and a
    proxy (see `proxy_resolution`) for small data sets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(3, ge=1, le=10_000)
    batch_size: int = Field(64, ge=1, le=65_536)
    lr: float = Field(0.1, gt=0, le=100)
    head_lr_factor: float = Field(1.0, gt=0, le=1000)
    warmup_epochs: float = Field(1, ge=0, le=10_000)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    resolution: int | None = Field(None, ge=8, le=2048)
    clip_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    amp: Literal["auto", "off", "bf16"] = "auto"
    graphs: Literal["off"] | None = None
    accumulate: int = Field(1, ge=1, le=65_536)
    sync_batch_norm: bool = True
    bn_images: int = Field(2048, ge=2, le=1_000_000)
    checkpoint_every: int | None = Field(None, ge=1)
    validate_every: int = Field(1, ge=1)


def proxy_resolution(arch: Architecture, native_size: int | None) -> int:
    """The training resolution when none is given, in pixels.

    Image files (no native size): the architecture's own. Small images: their own size, or one and
    a half times the network's total stride where that is more, since smaller maps than 2 x 2
    before the head lose accuracy and are slow; never more than the architecture's own.
    """
    if native_size is None:
        return arch.resolution
    stride = math.prod(row.downsampling for row in arch.canonical().rows)
    return min(arch.resolution, max(native_size, stride * 3 // 2))


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, workers: int = 1) -> float:
    """The rate of one step: linear from `lr` or 0 up to `lr` x batches a step, then cosine.

    A step has `workers` x `recipe.accumulate` batches. Warm-up epochs come on top of `epochs`, as
    published. With one batch a step the rise is from 0.
    """
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    batches = workers * recipe.accumulate
    peak = recipe.lr * batches
    if step < warmup:
        start = recipe.lr if batches > 1 else 0.0
        return start + (peak - start) * (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.epochs * steps_per_epoch)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    return round(recipe.warmup_epochs * steps_per_epoch) + recipe.epochs * steps_per_epoch


def check_batch(recipe: Recipe, workers: int = 1) -> None:
    """Raises: ValueError where batch norm would have the statistics of a single image."""
    together = workers if recipe.sync_batch_norm else 1
    if recipe.batch_size * together < 2:
        raise ValueError(
            "train.batch_size must be at least 2, since batch norm needs the statistics of several "
            "images, but got 1; raise it (train.accumulate does not help)"
        )


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over all parameters that are to be trained (`requires_grad`); no decay on norms and
    biases (all that have one dimension). A group's own learning rate is `lr_factor` times the
    step's.

    Fused: a third of the time of the others on a CPU. It walks through memory, so a gradient or a
    momentum buffer must have its parameter's strides.

    Raises: ValueError for a `head_lr_factor` where there is no classifier.
    """
    head = _classifier(net) if recipe.head_lr_factor != 1 else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in net.parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            factor = recipe.head_lr_factor if parameter in head else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "weight_decay": decay, "lr_factor": factor}
            for (decay, factor), parameters in groups.items()
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )


def _classifier(net: nn.Module) -> set[nn.Parameter]:
    if not isinstance(net, Network):
        raise ValueError(
            "train.head_lr_factor is for a network that ends in a classifier; leave it at 1"
        )
    return set(net.blocks[-1].parameters())
