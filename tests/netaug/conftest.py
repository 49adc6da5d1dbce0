"""What the tests of this room share: an augmented micro network, batches and states of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from nasaug.netaug import Augmentation
from nasaug.supernet import Architecture, Factors, Network, load_target
from nasaug.training import Batch, Recipe, State

FACTORS = Factors((1.0, 1.5, 2.0), (1.0, 1.5, 2.0))
RECIPE = Recipe(label_smoothing=0.1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers; bit equality is promised at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro() -> Architecture:
    """A target of 10,000 parameters for grey images of 28 x 28."""
    return load_target("micro_10k", 10, in_channels=1)


@pytest.fixture(scope="session")
def augmentation(micro: Architecture) -> Augmentation:
    """Three widths and three expand ratios for every row that has them."""
    return Augmentation.by_factors(micro, FACTORS)


@pytest.fixture
def net(augmentation: Augmentation) -> Network:
    """The largest network, in float64 and training mode."""
    generator = torch.Generator().manual_seed(0)
    net = Network(augmentation.largest.canonical(), generator=generator).double().train()
    # Inner channels of different importance, so that sorting moves them.
    for name, parameter in net.named_parameters():
        if name.endswith("project.weight"):
            scale = torch.rand(1, parameter.shape[1], 1, 1, generator=generator) + 0.1
            parameter.data.mul_(scale)
    return net


@pytest.fixture(scope="session")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (8,), generator=generator)


MakeState = Callable[..., State]


@pytest.fixture(scope="session")
def make_state() -> MakeState:
    """The state at a step of a run of ten epochs of ten steps."""

    def make(
        step: int = 1, seed: int = 0, companions: list[Mapping[str, Tensor]] | None = None
    ) -> State:
        return State(RECIPE, step, 100, 10, seed, nullcontext, lambda: companions or [])

    return make
