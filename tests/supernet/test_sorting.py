"""Channel sorting reorders weights and changes no function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    InvertedResidual,
    Network,
    SearchSpace,
    load_target,
    sort_channels,
)

MakeNetwork = Callable[..., Network]
State = dict[str, Tensor]


@pytest.fixture(params=["micro_10k", "mbv3_w035"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    """One without squeeze-and-excitation, and one with."""
    return SearchSpace.around(load_target(request.param, 10), width=(1, 2), expand=(1, 2))


@pytest.fixture
def net(space: SearchSpace, make_network: MakeNetwork) -> Network:
    return make_network(space.largest, dtype=torch.float64)


def _snapshot(net: Network) -> State:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("training", [False, True])
def test_sorting_keeps_the_function_of_the_whole(
    net: Network, images: Callable[..., Tensor], training: bool
) -> None:
    x = images(4, 32).double()
    net.train(training)
    with torch.no_grad():
        before = net(x)
        weights = _snapshot(net)
        sort_channels(net)
        after = net(x)
    assert any(not torch.equal(weights[name], t) for name, t in net.state_dict().items())
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def test_sorting_twice_is_sorting_once(net: Network) -> None:
    sort_channels(net)
    once = _snapshot(net)
    sort_channels(net)
    assert all(torch.equal(once[name], tensor) for name, tensor in net.state_dict().items())


def test_equally_important_channels_stay_in_order(net: Network) -> None:
    """All projections are equal, so nothing may move, whatever the other weights."""
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if name.endswith(("project.weight", "squeeze.restore.weight")):
                tensor.fill_(0.5)
    before = _snapshot(net)
    sort_channels(net)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_companions_move_with_the_parameters(net: Network) -> None:
    """Copies of the weights, under their names, stay copies; a missing name is passed over."""
    momentum = {name: p.detach().clone() for name, p in net.named_parameters()}
    average = _snapshot(net)
    partial = {"blocks.2.project.weight": momentum["blocks.2.project.weight"].clone()}
    sort_channels(net, [momentum, average, partial, {}])
    own = net.state_dict()
    for companion in (momentum, average, partial):
        assert all(torch.equal(own[name], tensor) for name, tensor in companion.items())


def test_companions_are_sorted_by_the_weights_importance_not_their_own(net: Network) -> None:
    """Each channel carries its old number: the companion ends up listing the new order."""
    name = "blocks.2.project.weight"
    importance = net.state_dict()[name].abs().sum((0, 2, 3))
    numbers = torch.arange(len(importance)).expand(net.state_dict()[name].shape[:2])
    companion = {name: numbers[:, :, None, None].clone()}
    sort_channels(net, [companion])
    order = sorted(range(len(importance)), key=lambda i: -float(importance[i]))
    assert companion[name][0, :, 0, 0].tolist() == order


def test_target_gets_the_channels_of_largest_norm(space: SearchSpace, net: Network) -> None:
    def importance(index: int) -> list[float]:
        weight = net.state_dict()[f"blocks.{index}.project.weight"]
        return [float(weight[:, i].abs().sum()) for i in range(weight.shape[1])]

    inverted = [i for i, row in enumerate(space.target.rows) if isinstance(row, InvertedResidual)]
    before = {index: importance(index) for index in inverted}
    sort_channels(net)
    for index in inverted:
        row = space.target.rows[index]
        assert isinstance(row, InvertedResidual)
        largest = sorted(before[index], reverse=True)[: row.mid]
        assert importance(index)[: row.mid] == pytest.approx(largest)


def test_target_gets_the_squeezed_channels_of_largest_norm(make_network: MakeNetwork) -> None:
    space = SearchSpace.around(load_target("mbv3_w035", 10), width=(1, 2), expand=(1, 2))
    net = make_network(space.largest, dtype=torch.float64)
    sort_channels(net)
    readers = [t for n, t in net.state_dict().items() if n.endswith("squeeze.restore.weight")]
    assert readers
    for weight in readers:
        norms = weight.abs().sum((0, 2, 3)).tolist()
        assert norms == pytest.approx(sorted(norms, reverse=True))


def test_only_inner_channels_of_inverted_residuals_move(net: Network) -> None:
    before = _snapshot(net)
    sort_channels(net)
    for index, row in enumerate(net.arch.rows):
        if isinstance(row, InvertedResidual):
            continue
        for name, tensor in net.blocks[index].state_dict().items():
            assert torch.equal(before[f"blocks.{index}.{name}"], tensor)


def test_sorting_keeps_parameter_objects(net: Network) -> None:
    """The optimizer holds them."""
    before = [id(parameter) for parameter in net.parameters()]
    sort_channels(net)
    assert [id(parameter) for parameter in net.parameters()] == before
