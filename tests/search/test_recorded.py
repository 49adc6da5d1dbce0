"""Supernets where a run makes recordings: one for all paths, and the gradients of slices."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.search import SupernetOptions, supernet_step
from nasaug.search.shrinking import Stage, shrinking_step
from nasaug.supernet import ChannelMasks, Cuts, Network, SearchSpace, load_target
from nasaug.training import Recipe, State, Step

SPACE = SearchSpace.around(load_target("micro_10k", 10, in_channels=1))
RECIPE = Recipe(label_smoothing=0.1)
FULL = Network(SPACE.largest, generator=torch.Generator().manual_seed(7)).double().eval()
STAGE = Stage(name="all", epochs=1, kernel=2, expand=4, depth=2, width=3, paths=2)
STEPS: dict[str, tuple[Step, list[str]]] = {
    "single-path": (supernet_step(SPACE, SupernetOptions()), ["path"]),
    "fair": (supernet_step(SPACE, SupernetOptions(method="fair", fair_over="decisions")), ["path"]),
    "edge-dropout": (supernet_step(SPACE, SupernetOptions(method="edge-dropout")), ["path"]),
    "sandwich": (
        supernet_step(SPACE, SupernetOptions(method="sandwich")),
        ["largest", "taught"],
    ),
    "shrinking": (shrinking_step(SPACE, STAGE, FULL, 0.5, 1.0), ["path"]),
}


class Listening:
    """In place of recordings: remembers under which keys it is asked, and runs the work itself."""

    def __init__(self) -> None:
        self.keys: dict[Hashable, None] = {}

    def __call__(self, key: Hashable, work: Any, inputs: Any, counting: Any) -> tuple[Tensor, ...]:
        self.keys[key] = None
        done: tuple[Tensor, ...] = work(*inputs)
        return done


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("at", [1, 60])
def test_masked_paths_leave_the_gradients_of_slices(name: str, at: int) -> None:
    step, keys = STEPS[name]
    net = Network(SPACE.largest, generator=torch.Generator().manual_seed(0)).double().train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 1, 28, 28, generator=generator, dtype=torch.float64)
    batch = images, torch.randint(0, 10, (6,), generator=generator)
    listening, found = Listening(), []
    for masks in (None, ChannelMasks(net)):
        state = State(RECIPE, at, 100, 10, 0, nullcontext, list)
        state.cuts, state.masks = Cuts(), masks
        if masks is not None:
            state.replays = listening  # type: ignore[assignment]
        net.zero_grad(set_to_none=True)
        losses = step(net, batch, state)
        state.settle()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
        macs = torch.tensor(state.macs)
        found.append([macs, *losses.values(), *(gradient.clone() for gradient in grads)])
    assert [*listening.keys] == keys
    for sliced, masked in zip(*found, strict=True):
        torch.testing.assert_close(masked, sliced, rtol=1e-7, atol=1e-12)
