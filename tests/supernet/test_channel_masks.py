"""The whole network with channels masked is the sub-network: what comes out, and every gradient."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    Architecture,
    ChannelMasks,
    Cuts,
    Network,
    SearchSpace,
    boost,
    cutting,
    load_target,
    maskable,
)
from nasaug.supernet.rows import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Row,
)

# Inverted residuals of ReLU6; of squeezes and hard swish; bottlenecks of ReLU after the sum.
NAMES = ("micro_10k", "mbv3_w035", "resnet50")
SIZES = {"micro_10k": 28, "mbv3_w035": 64, "resnet50": 32}


def _space(name: str) -> SearchSpace:
    target = load_target(name, num_classes=10)
    width, expand = (1.0, 1.5), (1.0, 1.5)
    if name == "resnet50":
        return SearchSpace.around(target, width, expand, (0,), (0,), 8)
    return SearchSpace.around(target, width, expand, (0, 2), (0, 1), 8)


def _small(*rows: Row) -> Architecture:
    return Architecture((*rows, GlobalAvgPool(), Linear(10)), 16)


STEM = Conv(3, 2, 8, "relu6")
INNER = {
    "depthwise kernel 1 in 3": (
        _small(STEM, DepthwiseSeparable(3, 1, 8, "relu6")),
        _small(STEM, DepthwiseSeparable(1, 1, 8, "relu6")),
    ),
    "kernel 1 in 5": (
        _small(STEM, InvertedResidual(5, 1, 16, 8, "relu6", True)),
        _small(STEM, InvertedResidual(1, 1, 16, 8, "relu6", True)),
    ),
    "convolution's kernel 1 in 3": (
        _small(STEM, Conv(3, 1, 8, "relu6")),
        _small(STEM, Conv(1, 1, 8, "relu6")),
    ),
    "absent, with a squeeze": (
        _small(STEM, InvertedResidual(5, 1, 16, 8, "hardswish", True, 8)),
        _small(STEM),
    ),
    "absent bottleneck": (_small(STEM, Bottleneck(4, 8)), _small(STEM)),
}
LINEAR = InvertedResidual(3, 1, 16, 8, "relu6", False)


def _network(arch: Architecture) -> Network:
    net = Network(arch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # biases of norms are 0 at first, which would hide that they are masked
        for parameter in net.parameters():
            if parameter.ndim == 1:
                noise = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter += noise
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.double().train()


def _images(name: str) -> Tensor:
    channels, size = load_target(name, num_classes=10).in_channels, SIZES[name]
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, channels, size, size, generator=generator, dtype=torch.float64)


def _learnt(net: Network, images: Tensor, sub: Architecture, masks: ChannelMasks | None) -> Tensor:
    cuts = Cuts()
    with cutting(cuts):
        if masks is None:
            logits = net(images, sub)
        else:
            masks.keep(sub)
            with masks.applied():
                logits = net(images)
    logits.square().mean().backward()
    cuts.settle()
    return logits.detach()


@pytest.mark.parametrize("name", NAMES)
def test_masked_is_sliced(name: str) -> None:
    space = _space(name)
    net, images = _network(space.largest), _images(name)
    masks = ChannelMasks(net)
    drawn = [space.sample(random.Random(seed)) for seed in range(2)]
    for sub in (space.target, space.largest, *drawn):
        net.zero_grad(set_to_none=True)
        logits = _learnt(net, images, sub, None)
        sliced = {name: _zeros(p) for name, p in net.named_parameters()}
        net.zero_grad(set_to_none=True)
        torch.testing.assert_close(_learnt(net, images, sub, masks), logits)
        for parameter, gradient in sliced.items():
            mine = _zeros(net.get_parameter(parameter))
            torch.testing.assert_close(mine, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", INNER)
def test_parts_of_rows(name: str) -> None:
    whole, sub = INNER[name]
    net = _network(whole)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    assert maskable(net)
    found = []
    for masks in (None, ChannelMasks(net)):
        net.zero_grad(set_to_none=True)
        found.append([_learnt(net, images, sub, masks), *map(_zeros, net.parameters())])
    for masked, sliced in zip(*found, strict=True):
        torch.testing.assert_close(masked, sliced)


def _zeros(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


def test_what_is_masked_has_no_gradient_at_all() -> None:
    """Not even a tiny one: momentum and decay must act on it as on a slice that is not used."""
    space = _space("micro_10k")
    net = _network(space.largest)
    target = space.target
    _learnt(net, _images("micro_10k"), target, ChannelMasks(net))
    project = net.get_parameter("blocks.2.project.weight").grad
    assert project is not None
    width, inner = target.rows[2].out, target.rows[2].mid
    assert project.shape[0] > width and project.shape[1] > inner
    assert project[:width, :inner].abs().min() > 0
    assert not project[width:].any() and not project[:, inner:].any()


def test_target_s_own_norms_are_not_the_helpers() -> None:
    space = _space("micro_10k")
    net = _network(space.largest)
    net.separate_norms(space.target)
    helper, images = space.sample(random.Random(3)), _images("micro_10k")
    torch.testing.assert_close(
        _learnt(net, images, helper, ChannelMasks(net)), _learnt(net, images, helper, None)
    )


def test_parameters_are_themselves_again_behind_it() -> None:
    space = _space("micro_10k")
    net, images = _network(space.largest), _images("micro_10k")
    before = net(images)
    _learnt(net, images, space.target, ChannelMasks(net))
    assert torch.equal(net(images), before)


def test_what_cannot_be_masked() -> None:
    target = load_target("micro_10k", num_classes=10)
    assert maskable(Network(target, init=None))
    assert not maskable(Network(boost(target), init=None))
    net = Network(_space("micro_10k").largest, init=None)
    net.learn_kernel_transforms()
    assert not maskable(net)
    for rows in (
        (Conv(5, 2, 8, "relu6", norm=False, bias=True),),  # its kernel has no norm behind it
        (STEM, LINEAR, Bottleneck(4, 8)),  # which, absent, does not rectify what LINEAR gives
        (),
    ):
        assert not maskable(Network(_small(*rows), init=None))
    assert maskable(Network(_small(STEM, LINEAR, Bottleneck(4, 16, projection=True)), init=None))


def test_somebody_else_s_architecture() -> None:
    net = _network(load_target("micro_10k", num_classes=10))
    with pytest.raises(ValueError, match="micro_40k"):
        ChannelMasks(net).keep(load_target("micro_40k", num_classes=10))
