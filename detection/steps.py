"""The training step of a detector: the target alone, or with NetAug's helpers.

    L(target) + alpha L([target, helper])            (NetAug, Cai et al., ICLR 2022, Equation 2)

where L is the single-shot detector's loss. As in the step for classes, the two passes share their
weights, the heads' too, and see the same batch; one helper is sampled a step. Channels are never
sorted: a detector mostly begins with trained weights in its first channels, among which sorting
would mix fresh ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nasaug.detection.detector import Detector
from nasaug.detection.loaders import DetectionBatch
from nasaug.supernet import Architecture, SearchSpace
from nasaug.training import Losses, State

DetectionStep = Callable[[Detector, DetectionBatch, State], Losses]


@dataclass(frozen=True)
class Helpers:
    """Where helpers come from, and how much they count.

    wide: the space that they are sampled from until the share `width_until` of training is done;
    narrow: the one after, with the target's own widths. alpha: the weight of their loss.

    Raises: ValueError for values out of range, and for spaces around different targets.
    """

    wide: SearchSpace
    narrow: SearchSpace
    alpha: float = 1.0
    width_until: float = 0.5

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must be at least 0, but got {self.alpha}")
        if not 0 <= self.width_until <= 1:
            raise ValueError(f"width_until must be from 0 to 1, but got {self.width_until}")
        if self.wide.target != self.narrow.target:
            raise ValueError(
                f"wide and narrow must be around one target, but are around "
                f"{self.wide.target.name} and {self.narrow.target.name}"
            )


def detection_step(target: Architecture, helpers: Helpers | None = None) -> DetectionStep:
    """The step for a detector that has `target` inside, or is on it."""

    def step(detector: Detector, batch: DetectionBatch, state: State) -> Losses:
        own = _losses(detector, target, batch, state)
        loss = own["boxes"] + own["classes"]
        loss.backward()
        losses = {"target": loss.detach(), **{name: part.detach() for name, part in own.items()}}
        if helpers is None:
            return losses
        space = helpers.wide if state.progress < helpers.width_until else helpers.narrow
        # A second phase without expand factors has nothing but the target.
        if space.largest == target:
            return losses
        parts = _losses(detector, space.sample(state.rng), batch, state)
        helped = parts["boxes"] + parts["classes"]
        (helpers.alpha * helped).backward()
        return {**losses, "helper": helped.detach()}

    return step


def _losses(
    detector: Detector, sub: Architecture, batch: DetectionBatch, state: State
) -> dict[str, Tensor]:
    """One pass, in the run's precision, and what it lost."""
    images, targets = batch
    state.macs += detector.macs(sub).total * len(images)
    with state.autocast():
        predicted = detector(images, sub)
    smoothing = state.recipe.label_smoothing
    return detector.losses(predicted, targets.boxes, targets.labels, smoothing)
