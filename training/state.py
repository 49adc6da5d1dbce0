"""What a step may know of the run, and what it may ask of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import (
    Architecture,
    ChannelMasks,
    Cuts,
    Network,
    Noise,
    Output,
    cutting,
    macs_at,
)
from nasaug.training.distributed import ALONE, Workers
from nasaug.training.gradients import Gradients
from nasaug.training.recipe import Recipe
from nasaug.training.replays import Replays

# MACs of the whole network for a batch, up to which a GPU computes all channels sooner than it is
# told of some of them.
MOST_MASKED = 8_000_000_000


@dataclass
class State:
    """What a step may know of the run. A step is `recipe.accumulate` batches and one update; `part`
    tells which of these batches is running. `rng` is fresh for every batch and alike for all
    batches of a step on all workers, so that they train the same sub-networks. `macs` counts the
    forward passes' MACs of all images, teachers' included."""

    recipe: Recipe
    step: int
    steps: int
    steps_per_epoch: int
    seed: int
    autocast: Callable[[], AbstractContextManager[None]]
    companions: Callable[[], list[Mapping[str, Tensor]]]
    group: Workers = ALONE
    part: int = 0
    gradients: Gradients | None = None
    replays: Replays | None = None
    cuts: Cuts | None = None
    masks: ChannelMasks | None = None
    rng: random.Random = field(init=False)
    observed: dict[str, Tensor] = field(init=False, default_factory=dict)
    macs: int = field(init=False, default=0)
    _passes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.begin(self.part)

    def begin(self, part: int) -> State:
        """This state, for the `part`-th batch of the step: as fresh, but for the MACs so far."""
        self.part, self.observed, self._passes = part, {}, 0
        if self.cuts is not None:
            self.cuts.clear()
        self.rng = random.Random(f"{self.seed}/step/{self.step}")
        return self

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def epoch_begins(self) -> bool:
        return self.step % self.steps_per_epoch == 0 and self.part == 0

    @property
    def batch(self) -> int:
        """Which batch of its epoch the running one is, as the loader counts."""
        return self.step % self.steps_per_epoch * self.recipe.accumulate + self.part

    @property
    def progress(self) -> float:
        """The share of the steps that are done, in [0, 1)."""
        return self.step / self.steps

    def outputs(
        self,
        net: Network,
        images: Tensor,
        sub: Architecture | None = None,
        noise: Noise | None = None,
    ) -> Output:
        """One pass, in the run's precision: logits (N, classes) and embedding (N, width).

        What a backward pass leaves is in the parameters' `grad` after `settle`, or the step's end.
        """
        self.macs += macs_at(net.arch if sub is None else sub, images.shape[-1]) * len(images)
        with self.autocast(), cutting(self.cuts):
            if noise is None or noise.silent:
                return net.outputs(images, sub)
            with self._seeded(images.device):
                return net.outputs(images, sub, noise)

    def repeated(
        self, key: Hashable, work: Callable[..., tuple[Tensor, ...]], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """`work(*inputs)`, played back from a recording where the run makes them. It may pass
        images and go backward; nothing in it may depend on the step (see `Replays`)."""
        if self.replays is None:
            return work(*inputs)

        def whole(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = work(*inputs)
            self.settle()
            return outputs

        # What earlier passes left is none of the recording's.
        self.settle()
        return self.replays(key, whole, inputs, self)

    def repeated_as(
        self,
        key: Hashable,
        net: Network,
        sub: Architecture,
        work: Callable[..., tuple[Tensor, ...]],
        images: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """`work(sub, images, *inputs)`, one pass of a sub-network that differs from step to step.

        Where the run masks channels and the batch is a small one, all that use the shared norms
        are played back from one recording, of the whole network; MACs are those of `sub`, though
        more is computed."""
        masks, before, size = self.masks, self.macs, images.shape[-1]
        if masks is None or net.has_own_norms(sub):
            return work(sub, images, *inputs)
        if macs_at(net.arch, size) * len(images) > MOST_MASKED:
            return work(sub, images, *inputs)

        def masked(*inputs: Tensor) -> tuple[Tensor, ...]:
            with cutting(self.cuts), masks.applied():
                return work(net.arch, *inputs)

        masks.keep(sub)
        outputs = self.repeated(key, masked, images, *inputs)
        self.macs = before + macs_at(sub, size) * len(images)
        return outputs

    def settle(self) -> None:
        """Have the gradients of all backward passes so far in those of the parameters."""
        if self.cuts is not None:
            self.cuts.settle()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The recipe's loss: cross entropy with label smoothing.

        logits (N, classes); labels (N,) int64, or (N, classes) probabilities of mixed images.
        """
        logits = logits.float() if logits.dtype != torch.float64 else logits
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def observe(self, name: str, value: Tensor) -> None:
        """Have the mean of `value` over the epoch in the run's metrics, beside the losses."""
        self.observed[name] = value.detach()

    def auxiliary(self) -> AbstractContextManager[None]:
        """Backward passes inside must not oppose those outside (see `Gradients`)."""
        return nullcontext() if self.gradients is None else self._auxiliary(self.gradients)

    @contextmanager
    def _auxiliary(self, gradients: Gradients) -> Iterator[None]:
        self.settle()
        with gradients.auxiliary():
            yield
            self.settle()

    def gradient_sets(self) -> list[dict[str, Tensor]]:
        """By parameter name, live: the base set, and under gradient surgery the auxiliary one."""
        assert self.gradients is not None
        self.settle()
        return self.gradients.sets()

    @contextmanager
    def _seeded(self, device: torch.device) -> Iterator[None]:
        """torch's global generator, as a function of (seed, step, batch, worker, pass)."""
        key = (self.step, self.part, self.group.rank, self._passes)
        self._passes += 1
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(random.Random(f"{self.seed}/noise/{key}").getrandbits(63))
            yield
