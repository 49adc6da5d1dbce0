"""What the tests of this room share: small data sets, micro networks, hand-written references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nasaug.supernet import Architecture, Network, SearchSpace, load_target
from nasaug.training import (
    Batches,
    Dataset,
    ImageArray,
    Recipe,
    RunFolder,
    View,
    load_dataset,
    training_batches,
)

MakeNoise = Callable[..., Dataset]
WriteImage = Callable[..., Path]
MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers; bit equality is promised at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mini() -> Dataset:
    """The embedded data set."""
    return load_dataset("fashion-mnist-mini")


@pytest.fixture(scope="session")
def clothes(mini: Dataset) -> Dataset:
    """480 training, 100 validation and 200 test images of the embedded data set."""
    train, validation, test = mini.train, mini.validation, mini.test
    assert isinstance(train, ImageArray)
    return replace(
        mini,
        train=train.subset(torch.arange(480)),
        validation=validation.subset(torch.arange(100)),
        test=test.subset(torch.arange(200)),
    )


@pytest.fixture(scope="session")
def make_noise() -> MakeNoise:
    """A data set of random images; the label of an image is its number, so that it can be traced.

    With `classes` the labels are random instead.
    """

    def make(count: int = 96, channels: int = 1, size: int = 28, classes: int = 0) -> Dataset:
        generator = torch.Generator().manual_seed(5)
        shape = (count, channels, size, size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.arange(count)
        if classes:
            labels = torch.randint(0, classes, (count,), generator=generator)
        part = ImageArray(images, labels)
        names = tuple(str(label) for label in range(classes or count))
        mean, std = (0.5, 0.4, 0.3)[:channels], (0.25, 0.2, 0.1)[:channels]
        return Dataset("noise", names, part, part, part, mean, std)

    return make


@pytest.fixture(scope="session")
def write_image() -> WriteImage:
    """An image file of random pixels, 24 wide and 20 high, in a folder that is made if need be."""

    def write(path: Path, seed: int = 0, mode: str = "RGB") -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def micro() -> Architecture:
    """A target of 10,000 parameters for grey images of 28 x 28."""
    return load_target("micro_10k", 10, in_channels=1)


@pytest.fixture(scope="session")
def micro_space(micro: Architecture) -> SearchSpace:
    return SearchSpace.around(micro, (1, 2), (1, 2))


@pytest.fixture(scope="session")
def batches(make_noise: MakeNoise) -> Batches:
    """Five batches of 16 random images an epoch, of ten classes."""
    return training_batches(make_noise(80, classes=10), View(28, 1), 16, seed=0)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """A network of weights that a seed decides."""

    def make(arch: Architecture, seed: int = 0) -> Network:
        return Network(arch, generator=torch.Generator().manual_seed(seed))

    return make


class HandSGD:
    """SGD with Nesterov momentum, a tensor at a time, as torch's documentation writes it.

    It works on copies: `weights` by name.
    """

    def __init__(self, net: Network, recipe: Recipe) -> None:
        self.weights = {name: p.detach().clone() for name, p in net.named_parameters()}
        self._momentum = {name: torch.zeros_like(p) for name, p in self.weights.items()}
        self._recipe = recipe

    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        for name, weight in self.weights.items():
            decay = self._recipe.weight_decay if weight.ndim > 1 else 0.0
            gradient = gradients[name] + decay * weight
            buffer = self._recipe.momentum * self._momentum[name] + gradient
            self._momentum[name] = buffer
            weight -= rate * (gradient + self._recipe.momentum * buffer)


@pytest.fixture(scope="session")
def hand_sgd() -> type[HandSGD]:
    return HandSGD


@pytest.fixture(scope="session")
def gradients_of() -> Callable[..., dict[str, Tensor]]:
    """Gradients by name of the label-smoothed cross entropy at given weights, zeros where unused.

    The loss is written out: (1 - s) nll + s mean over the classes.
    """

    def gradients(
        net: Network,
        weights: Mapping[str, Tensor],
        batch: tuple[Tensor, Tensor],
        smoothing: float,
        sub: Architecture | None = None,
    ) -> dict[str, Tensor]:
        images, labels = batch
        leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
        logits = torch.func.functional_call(net, leaves, (images, sub))
        logs = logits - logits.logsumexp(1, keepdim=True)
        nll = -logs[torch.arange(len(labels)), labels].mean()
        loss = (1 - smoothing) * nll - smoothing * logs.mean()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    return gradients
