"""In which order the images of an epoch come: a function of (seed, epoch), nothing remembered."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from nasaug.training.distributed import ALONE, Workers


@dataclass(frozen=True)
class Shuffled:
    """Whole batches of a fresh permutation; workers take neighbouring parts of a global batch.

    Raises: ValueError if there is no whole global batch.
    """

    images: int
    batch_size: int
    seed: int
    group: Workers = ALONE
    augments = True

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ValueError(
                f"batch_size x workers must be at most the {self.images} training images, "
                f"but got {self.batch_size} x {self.group.size}"
            )

    def __len__(self) -> int:
        return self.images // self.global_size

    @property
    def global_size(self) -> int:
        """The images of a batch over all workers."""
        return self.batch_size * self.group.size

    def places(self, leading: int = 0) -> Tensor:
        """Where this worker's images stand in a global batch, int64 (leading + batch_size,).

        First come `leading` images that stand just before its own; before the first is the last.
        """
        first = self.group.rank * self.batch_size
        return torch.arange(first - leading, first + self.batch_size) % self.global_size

    def indices(self, epoch: int, leading: int = 0) -> list[Tensor]:
        """The images of each batch, int64 (leading + batch_size,); see `places`."""
        generator = torch.Generator().manual_seed(self.draw_seed(epoch))
        order = torch.randperm(self.images, generator=generator)
        whole = len(self) * self.global_size
        return list(order[:whole].view(len(self), -1)[:, self.places(leading)])

    def draw_seed(self, *key: int | str) -> int:
        """A seed for what is drawn at `key`, such as (epoch, batch)."""
        return random.Random(f"{self.seed}/{key}").getrandbits(63)


@dataclass(frozen=True)
class InOrder:
    """Every image once, in order; the last batch may be smaller. Nothing is drawn or mixed."""

    images: int
    batch_size: int
    augments = False

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def indices(self, epoch: int, leading: int = 0) -> list[Tensor]:
        assert leading == 0
        return list(torch.arange(self.images).split(self.batch_size))

    def draw_seed(self, *key: int | str) -> int:
        return 0


Order = Shuffled | InOrder
