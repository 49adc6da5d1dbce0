"""How a network is trained: the numbers of a recipe and what follows from them directly."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from nasaug.supernet import Architecture


class Recipe(BaseModel):
    """SGD with Nesterov momentum, warm-up and cosine per step, as the NetAug authors train.

    `batch_size` and `lr` are per worker and batch; a step takes `accumulate` batches a worker.
    `sync_batch_norm`: the statistics (and the relations between images) of a batch are over all
    workers. `resolution` is the training resolution; None means the architecture's own for image
    files and a proxy (see `proxy_resolution`) for small data sets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(3, ge=1, le=10_000)
    batch_size: int = Field(64, ge=1, le=65_536)
    lr: float = Field(0.1, gt=0, le=100)
    warmup_epochs: float = Field(1, ge=0, le=10_000)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    resolution: int | None = Field(None, ge=8, le=2048)
    clip_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    amp: Literal["auto", "off", "bf16"] = "auto"
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
    """SGD over all parameters; no decay on norms and biases (all that have one dimension).

    Fused: a third of the time of the others on a CPU. It walks through memory, so a gradient or a
    momentum buffer must have its parameter's strides.
    """
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    return torch.optim.SGD(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
