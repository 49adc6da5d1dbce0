"""What a step is made of: its options, the loss of one pass, and how often a pass is right."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nasaug.netaug.augmentation import Augmentation
from nasaug.netaug.options import (
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    RelationalOptions,
)
from nasaug.supernet import Noise
from nasaug.training import State, Teacher, distillation


@dataclass(frozen=True)
class Parts:
    """What a target is trained with; None is without. `netaug` and what follows it need an
    `augmentation`, `boost` a network of the boosted target."""

    augmentation: Augmentation | None = None
    netaug: NetAugOptions = field(default_factory=NetAugOptions)
    relational: RelationalOptions | None = None
    in_place: InPlaceOptions | None = None
    distill: DistillOptions | None = None
    teacher: Teacher | None = None
    boost: BoostOptions | None = None
    noise: Noise | None = None

    @property
    def silent(self) -> bool:
        """Whether no pass is disturbed."""
        return self.noise is None or self.noise.silent


def hard_and_soft(
    logits: Tensor,
    labels: Tensor,
    soft: Tensor | None,
    options: DistillOptions | None,
    state: State,
) -> Tensor:
    """The recipe's loss, and the outer teacher's where there is one."""
    hard = state.loss(logits, labels)
    if soft is None or options is None:
        return hard
    lesson = distillation(logits, soft, options.temperature)
    return (1 - options.weight) * hard + options.weight * lesson


def top1_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of the batch's images whose likeliest class is right."""
    right = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.detach().argmax(1) == right).float().mean()
