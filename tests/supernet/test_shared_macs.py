"""The MACs of one network on weights that another has too, against networks built to be that."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from nasaug.supernet import (
    Architecture,
    Network,
    SearchSpace,
    load_space,
    load_target,
    macs,
    macs_at,
    shared_macs,
)


@pytest.fixture(scope="module")
def spaces() -> list[SearchSpace]:
    return [
        load_space("micro_down", 10),
        SearchSpace.around(load_target("mbv3_w035", 10, 32), (1, 1.5), (1, 1.6), (0, 2), (0, 1)),
    ]


def _numbered(space: SearchSpace) -> Network:
    """The largest network, whose every weight is a number of its own."""
    net, begin = Network(space.largest.canonical(), init=None).double().eval(), 0
    for parameter in net.parameters():
        end = begin + parameter.numel()
        with torch.no_grad():
            parameter.copy_(torch.arange(begin, end).view_as(parameter))
        begin = end
    return net


def _weights(net: Network) -> dict[str, torch.Tensor]:
    return {
        name.removesuffix(".weight"): parameter.detach().flatten()
        for name, parameter in net.named_parameters()
        if parameter.ndim > 1
    }


def _pixels(arch: Architecture) -> dict[str, int]:
    """For how many places of an image a module uses each of its weights."""
    net, seen = Network(arch.canonical()).eval(), dict[str, int]()

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: torch.Tensor) -> None:
            seen[name] = output[0, 0].numel()

        return hook

    for name, module in net.named_modules():
        module.register_forward_hook(note(name))
    net(torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution))
    return seen


def test_against_the_weights_that_two_exported_networks_have_in_common(
    spaces: list[SearchSpace],
) -> None:
    for space in spaces:
        numbered, rng = _numbered(space), random.Random(4)
        for _ in range(4):
            one, other = space.sample(rng), space.sample(rng)
            mine = numbered.export(one)
            theirs = torch.zeros(sum(p.numel() for p in numbered.parameters()), dtype=torch.bool)
            for weights in _weights(numbered.export(other)).values():
                theirs[weights.long()] = True
            places = _pixels(one)
            common = sum(
                int(theirs[own.long()].sum()) * places[name] for name, own in _weights(mine).items()
            )
            assert shared_macs(one, other, one.resolution) == common


def test_with_itself_it_is_all(spaces: list[SearchSpace]) -> None:
    for space in spaces:
        one = space.sample(random.Random(1))
        assert shared_macs(one, one, one.resolution) == macs(one)
        assert shared_macs(one, one, 20) == macs_at(one, 20)


def test_the_smallest_shares_all_that_it_has(spaces: list[SearchSpace]) -> None:
    """Every member has its weights, and it has none beside them."""
    for space in spaces:
        least, rng = space.embed(space.target), random.Random(2)
        for _ in range(20):
            one = space.sample(rng)
            assert shared_macs(one, least, one.resolution) == macs(least)
            assert shared_macs(least, one, one.resolution) == macs(least)


def test_it_is_symmetric_and_no_more_than_either(spaces: list[SearchSpace]) -> None:
    for space in spaces:
        rng = random.Random(3)
        for _ in range(20):
            one, other = space.sample(rng), space.sample(rng)
            shared = shared_macs(one, other, one.resolution)
            assert shared == shared_macs(other, one, one.resolution)
            assert 0 < shared <= min(macs(one), macs(other))
