"""How images are shown to a network: the options of a training run's data, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class View:
    """How the images of a data set are shown to a network of `in_channels` at `resolution`.

    `flip` mirrors half of the training images. `crop` moves small images by up to that share of
    their side, and turns on random resized crops and colour jitter for image files.
    `rand_augment` and `auto_augment` are the policies of these names, after flip and crop;
    `mixup` and `cutmix` are the alphas of their Beta distributions, 0 being off (see
    `nasaug.training.policies`). `workers` is the number of decoding processes (None: one a core).

    Raises: ValueError for both policies at once, and for an alpha below 0 or not finite.
    """

    resolution: int
    in_channels: int
    device: torch.device = CPU
    flip: bool = True
    crop: float = 0.125
    workers: int | None = None
    rand_augment: bool = False
    auto_augment: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.rand_augment and self.auto_augment:
            raise ValueError(
                "rand_augment and auto_augment are both on, but an image goes through one policy; "
                "switch one of them off"
            )
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha < math.inf:
                raise ValueError(
                    f"{name} is the alpha of a Beta distribution and must be a finite number of "
                    f"at least 0, but got {alpha}; 0 switches it off"
                )

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed with their neighbours: labels become probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def fixed(self) -> bool:
        """Whether every epoch shows each training image alike."""
        return not (self.flip or self._changes)

    @property
    def only_mirrors(self) -> bool:
        """Whether all that may happen to a training image is that it is mirrored."""
        return self.flip and not self._changes

    @property
    def _changes(self) -> bool:
        return self.crop > 0 or self.rand_augment or self.auto_augment or self.mixes
