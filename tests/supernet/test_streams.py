"""Sorting the features between rows reorders weights and changes no function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    ElasticNorm,
    Network,
    SearchSpace,
    boost,
    load_space,
    load_target,
    sort_channels,
    sort_features,
)
from nasaug.supernet.streams import streams

MakeNetwork = Callable[..., Network]
SPACES = {
    "micro_down": lambda: load_space("micro_down", 10, in_channels=3),
    "mbv3_ofa": lambda: load_space("mbv3_ofa", 10),
    "mbv3_small_w035": lambda: SearchSpace.around(load_target("mbv3_small_w035", 10), (1, 2)),
    "mbv3_w035": lambda: SearchSpace.around(load_target("mbv3_w035", 10), (1,), (1,), (0,), (0, 1)),
    "resnet50": lambda: SearchSpace.around(load_target("resnet50", 10), (1,), (1,), (0,), (0,)),
}


@pytest.fixture(params=SPACES)
def net(request: pytest.FixtureRequest, make_network: MakeNetwork) -> Network:
    """Residual rows, depthwise ones, squeezes, bottlenecks with projections; uneven norms."""
    net = make_network(SPACES[request.param]().largest.canonical(), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, ElasticNorm):
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.uniform_(-1, 1, generator=generator)
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
    return net


@pytest.mark.parametrize("training", [False, True])
def test_sorting_keeps_the_function_of_the_whole(
    net: Network, images: Callable[..., Tensor], training: bool
) -> None:
    x = images(4, 32).double()
    net.train(training)
    with torch.no_grad():
        before, weights = net(x), {k: t.clone() for k, t in net.state_dict().items()}
        sort_features(net)
        after = net(x)
    moved = [name for name, t in net.state_dict().items() if not torch.equal(weights[name], t)]
    assert moved
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_sorting_twice_is_sorting_once(net: Network) -> None:
    sort_features(net)
    once = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sort_features(net)
    assert all(torch.equal(once[name], tensor) for name, tensor in net.state_dict().items())


def test_the_first_channels_are_those_that_are_read_with_the_largest_weights(net: Network) -> None:
    sort_features(net)
    own = net.state_dict()
    found = list(streams(net))
    assert len(found) > 3
    for stream in found:
        norms = torch.zeros(())
        for name in stream.readers:
            norms = norms + own[name].abs().sum([d for d in range(own[name].ndim) if d != 1])
        assert torch.all(norms[:-1] >= norms[1:] - 1e-9)


def test_companions_move_along_and_inner_channels_may_be_sorted_too(
    net: Network, images: Callable[..., Tensor]
) -> None:
    net.eval()
    momentum = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        before = net(images(2, 32).double())
        sort_features(net, [momentum])
        sort_channels(net, [momentum])
        after = net(images(2, 32).double())
    assert all(torch.equal(momentum[name], p) for name, p in net.named_parameters())
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_boosted_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="boosted rows"):
        sort_features(Network(boost(load_target("micro_10k", 10))))
