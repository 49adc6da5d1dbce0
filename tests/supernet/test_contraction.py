"""A boosted network at slope 1 merges exactly into the target's own convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    ElasticNorm,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Network,
    at_slope,
    boost,
    contract,
    is_boosted,
    load_target,
)

MakeNetwork = Callable[..., Network]
Images = Callable[..., Tensor]
TARGETS = ("mbv2_tiny", "mbv2_w035", "mbv3_w035", "proxylessnas_w035", "mcunet", "micro_10k")
EVERY_KIND = Architecture(
    (
        Conv(3, 1, 8, "relu"),
        MaxPool(),
        Conv(1, 2, 8, "relu"),
        Conv(1, 1, 8, "none", norm=False, bias=True),
        Bottleneck(4, 16, 2, True),
        Bottleneck(16, 16),
        DepthwiseSeparable(3, 1, 16, "relu6", skip=True),
        InvertedResidual(5, 1, 16, 16, "hardswish", True, 16),
        GlobalAvgPool(),
        Conv(1, 1, 24, "hardswish", bias=True),
        Linear(10),
    ),
    32,
    name="every kind",
)


@pytest.fixture
def trained(make_network: MakeNetwork, images: Images) -> Callable[..., Network]:
    """A network of random weights at slope 1 whose running statistics are those of random data."""

    def make(arch: Architecture, dtype: torch.dtype = torch.float32) -> Network:
        net = make_network(at_slope(arch, 1.0), dtype=dtype).train()
        norms = [module for module in net.modules() if isinstance(module, ElasticNorm)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            net(images(16, arch.resolution, seed=3).to(dtype))
        for norm in norms:
            norm.momentum = None
        return net.eval()

    return make


def _distance(net: Network, x: Tensor) -> float:
    """The largest difference of the logits, relative to their scale."""
    with torch.no_grad():
        expected, found = net(x), contract(net)(x)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_contracted_network_computes_the_same(
    trained: Callable[..., Network], images: Images, name: str, dtype: torch.dtype, bound: float
) -> None:
    target = load_target(name, 10, 64)
    net = trained(boost(target), dtype)
    assert _distance(net, images(4, 64).to(dtype)) < bound
    assert contract(net).arch.rows == target.rows


@pytest.mark.parametrize(("every", "ratio"), [(1, 6), (1, 1), (3, 2)])
def test_every_kind_of_row_contracts(
    trained: Callable[..., Network], images: Images, every: int, ratio: int
) -> None:
    """With and without a shortcut inside, a stride, a norm, a bias, a shortcut by convolution."""
    net = trained(boost(EVERY_KIND, ratio, every), torch.float64)
    assert _distance(net, images(4, 32).double()) < 1e-9
    assert _distance(trained(boost(EVERY_KIND, ratio, every)), images(4, 32)) < 1e-4


def test_at_another_slope_the_networks_differ(
    trained: Callable[..., Network], images: Images
) -> None:
    """So that the bounds above mean something."""
    boosted = boost(load_target("micro_10k", 10))
    net, x = trained(boosted), images(4, 28)
    with torch.no_grad():
        expected, other = net(x), net(x, at_slope(boosted, 0.9))
    assert (other - expected).abs().max() > 1e-2 * expected.abs().max()


def test_contracted_network_is_a_plain_one_of_its_own(
    trained: Callable[..., Network], images: Images
) -> None:
    target = load_target("micro_10k", 10)
    net, x = trained(boost(target)), images(2, 28)
    small = contract(net)
    assert (small.arch, small.arch.name) == (target, "micro_10k")
    assert not is_boosted(small.arch)
    assert small.training is net.training is False
    assert contract(net.train()).training
    plain = Network(target)
    assert [(n, t.shape, t.dtype) for n, t in small.state_dict().items()] == [
        (n, t.shape, t.dtype) for n, t in plain.state_dict().items()
    ]
    with torch.no_grad():
        before = small(x)
        for tensor in net.state_dict().values():
            tensor.zero_()
        assert torch.equal(small(x), before)
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_only_boosted_networks_at_slope_1_contract(make_network: MakeNetwork) -> None:
    target = load_target("micro_10k", 10)
    with pytest.raises(ValueError, match="micro_10k must be a boosted architecture, but no row"):
        contract(make_network(target))
    for slope in (0.0, 0.99):
        net = make_network(at_slope(boost(target), slope))
        with pytest.raises(ValueError, match=rf"has slope {slope:g}; export it with at_slope"):
            contract(net)
