"""Which networks a training passes images through, found out without training.

Everything random in a step is a function of (seed, step), so its passes can be gone through again
with nothing computed: what a training will cost is known before it, and on what it spent its MACs
after it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from nasaug.supernet import Architecture, Network, Noise, Output
from nasaug.training.fit import Step
from nasaug.training.recipe import Recipe
from nasaug.training.state import State

# How many images passed through which network, by the side at which they were shown.
Passes = Counter[tuple[Architecture, int]]


@dataclass
class _Rehearsal(State):
    """A state whose passes are counted and answered by zeros."""

    passes: Passes = field(default_factory=Counter)

    def outputs(
        self,
        net: Network,
        images: Tensor,
        sub: Architecture | None = None,
        noise: Noise | None = None,
    ) -> Output:
        arch = net.arch if sub is None else sub
        self.passes[arch, images.shape[-1]] += len(images)
        logits = torch.zeros(len(images), arch.num_classes, requires_grad=True)
        return Output(logits, torch.zeros(len(images), 1, requires_grad=True))


def rehearse(
    step: Step,
    net: Network,
    recipe: Recipe,
    size: int,
    *,
    steps: int,
    steps_per_epoch: int,
    seed: int = 0,
    thinned: int | None = None,
) -> Passes:
    """The passes of `steps` steps on batches of `recipe.batch_size` images of size x size.

    `net` is only asked for its architecture, so that it may lie on the meta device. With `thinned`
    only so many of the steps are gone through, evenly spread, and their counts scaled up: what a
    training costs, to a percent.
    """
    chosen: Iterable[int] = range(steps)
    if thinned is not None and thinned < steps:
        # One at random of every so many: what comes every m-th step is hit as often as it comes.
        draw = random.Random(seed)
        begins = [index * steps // thinned for index in range(thinned + 1)]
        chosen = [draw.randrange(begin, end) for begin, end in pairwise(begins)]
    images = torch.zeros(()).expand(recipe.batch_size, net.arch.in_channels, size, size)
    labels = torch.zeros(recipe.batch_size, dtype=torch.int64)
    total: Passes = Counter()
    done = 0
    for index in chosen:
        state = _Rehearsal(recipe, index, steps, steps_per_epoch, seed, nullcontext, _no_companions)
        for part in range(recipe.accumulate):
            step(net, (images, labels), state.begin(part))
        total.update(state.passes)
        done += 1
    if done == steps:
        return total
    return Counter({key: round(count * steps / done) for key, count in total.items()})


def _no_companions() -> list[Mapping[str, Tensor]]:
    return []
