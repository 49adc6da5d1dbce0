"""Cuts give parameters the gradients that autograd does, bit for bit."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    Architecture,
    Cuts,
    Network,
    SearchSpace,
    cutting,
    load_target,
    published_factors,
)

TARGET = load_target("micro_10k", num_classes=10, in_channels=1)
FACTORS = published_factors("micro_10k")
SPACE = SearchSpace.around(TARGET, FACTORS.width, FACTORS.expand, (0, 2), (0, 1), 8)
PATHS = [SPACE.sample(random.Random(seed)) for seed in range(3)]


@pytest.fixture
def images() -> Tensor:
    shown = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return shown.contiguous(memory_format=torch.channels_last)


def _network() -> Network:
    net = Network(SPACE.largest, generator=torch.Generator().manual_seed(0))
    return net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def _gradients(net: Network) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def _backward(net: Network, images: Tensor, paths: list[Architecture], cuts: Cuts | None) -> None:
    for path in paths:
        with cutting(cuts):
            out = net(images, path)
        out.square().mean().backward()
    if cuts is not None:
        cuts.settle()


@pytest.mark.parametrize("transforms", [False, True])
@pytest.mark.parametrize(
    "paths", [[TARGET], [SPACE.largest], PATHS], ids=["target", "all", "three"]
)
def test_gradients_are_those_of_autograd(
    images: Tensor, paths: list[Architecture], transforms: bool
) -> None:
    plain, cut = _network(), _network()
    for net in (plain, cut):
        if transforms:
            net.learn_kernel_transforms()
    _backward(plain, images, paths, None)
    _backward(cut, images, paths, Cuts())
    found = _gradients(cut)
    for name, expected in _gradients(plain).items():
        if expected is None:
            assert found[name] is None
        else:
            assert torch.equal(found[name], expected), name  # type: ignore[arg-type]


def test_they_are_added_to_what_is_there(images: Tensor) -> None:
    net, cuts = _network(), Cuts()
    _backward(net, images, [TARGET], cuts)
    once = {name: g.clone() for name, g in _gradients(net).items() if g is not None}
    cuts.clear()
    _backward(net, images, [TARGET], cuts)
    for name, gradient in once.items():
        torch.testing.assert_close(_gradients(net)[name], 2 * gradient)


def test_a_graph_that_is_kept_gives_its_gradients_when_it_is_used(images: Tensor) -> None:
    """As where helpers teach: their passes go backward before the target's does."""
    plain, net, cuts = _network(), _network(), Cuts()
    _backward(plain, images, [PATHS[0], TARGET], None)
    with cutting(cuts):
        waiting = net(images, TARGET).square().mean()
        net(images, PATHS[0]).square().mean().backward()
    cuts.settle()
    waiting.backward(retain_graph=True)
    cuts.settle()
    for name, gradient in _gradients(plain).items():
        if gradient is not None:
            torch.testing.assert_close(_gradients(net)[name], gradient)


def test_frozen_parameters_stay_so(images: Tensor) -> None:
    net, cuts = _network(), Cuts()
    net.blocks[0].requires_grad_(False)
    _backward(net, images, [TARGET], cuts)
    assert all(parameter.grad is None for parameter in net.blocks[0].parameters())
    assert net.blocks[2].get_parameter("expand.weight").grad is not None


def test_without_gradients_nothing_is_cut(images: Tensor) -> None:
    net, cuts = _network(), Cuts()
    with cutting(cuts), torch.no_grad():
        out = net(images, TARGET)
    assert not out.requires_grad
    cuts.settle()
    assert all(parameter.grad is None for parameter in net.parameters())
