"""A target with batch norms of its own inside a network whose other members share theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nasaug.supernet import ElasticNorm, Network, SearchSpace, load_target, sort_channels

Images = Callable[..., Tensor]


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.around(
        load_target("micro_10k", 10, in_channels=1), width=(1, 2), expand=(1, 2)
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def _network(space: SearchSpace) -> Network:
    return Network(space.largest, generator=torch.Generator().manual_seed(0))


def _scale(net: Network, name: str) -> None:
    """Every norm called `name` scales by 3 and shifts by 0.5."""
    with torch.no_grad():
        for path, module in net.named_modules():
            if isinstance(module, ElasticNorm) and path.endswith(f".{name}"):
                module.weight.fill_(3.0)
                module.bias.fill_(0.5)


def test_separating_norms_changes_no_output_at_first(space: SearchSpace, x: Tensor) -> None:
    net = _network(space)
    before = net(x), net(x, space.target)
    net.separate_norms(space.target)
    assert torch.equal(net(x), before[0]) and torch.equal(net(x, space.target), before[1])


@pytest.mark.parametrize(("name", "moves_target"), [("own_norm", True), ("norm", False)])
def test_each_side_reads_its_own_norms(
    space: SearchSpace, x: Tensor, name: str, moves_target: bool
) -> None:
    net = _network(space)
    net.separate_norms(space.target)
    before = net(x), net(x, space.target)
    _scale(net, name)
    assert torch.equal(net(x, space.target), before[1]) is not moves_target
    assert torch.equal(net(x), before[0]) is moves_target


def test_gradients_of_norms_stay_apart_and_those_of_convolutions_meet(
    space: SearchSpace, x: Tensor
) -> None:
    net = _network(space)
    net.separate_norms(space.target)
    net(x, space.target).sum().backward()
    touched = {name for name, p in net.named_parameters() if p.grad is not None}
    norms = {name for name in touched if "norm" in name}
    assert norms and all(".own_norm." in name for name in norms)
    assert "blocks.0.conv.weight" in touched


def test_an_export_takes_the_targets_norms_and_is_a_plain_network(
    space: SearchSpace, x: Tensor
) -> None:
    net = _network(space)
    net.separate_norms(space.target)
    _scale(net, "own_norm")
    small = net.export(space.target)
    assert small.state_dict().keys() == Network(space.target.canonical()).state_dict().keys()
    assert torch.equal(small(x), net(x, space.target))


def test_sorting_moves_both_kinds_of_norms(space: SearchSpace, x: Tensor) -> None:
    net = _network(space).double()
    net.separate_norms(space.target)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, ElasticNorm):
                module.weight.uniform_(0.5, 2, generator=generator)
    # All of the inner channels, with the target's norms: sorting must not change what it computes.
    whole = _all_with_own_norms(net)
    before = net(x.double()), whole(x.double())
    sort_channels(net)
    after = net(x.double()), _all_with_own_norms(net)(x.double())
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def _all_with_own_norms(net: Network) -> Network:
    """A plain network of all of the weights, with the target's norms in place of the shared."""
    plain = Network(net.arch).double()
    tensors = dict(net.state_dict())
    for name in plain.state_dict():
        own = name.replace(".norm.", ".own_norm.")
        plain.state_dict()[name].copy_(tensors.get(own, tensors[name]))
    return plain.train(net.training)


def test_the_whole_network_has_no_norms_apart(space: SearchSpace) -> None:
    with pytest.raises(ValueError, match="is the whole network"):
        _network(space).separate_norms(space.largest)


def test_a_target_outside_is_refused(space: SearchSpace) -> None:
    net = _network(space)
    with pytest.raises(ValueError):
        net.separate_norms(load_target("micro_40k", 10, in_channels=1))
    assert net.export(space.target) is not None
