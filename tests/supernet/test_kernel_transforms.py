"""Smaller kernels made from larger ones by learned matrices (Once-for-All)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasaug.supernet import Architecture, Network, load_space
from nasaug.training import load_weights, save_weights

SPACE = load_space("mbv3_ofa", 10, resolution=32)


def _member(kernel: int) -> Architecture:
    """The largest member with every kernel that varies as it is given."""
    values = SPACE.parameters(SPACE.path(SPACE.largest))
    values |= {name: kernel for name in values if name.endswith(".kernel")}
    return SPACE.architecture(SPACE.path_of(values))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> Network:
    generator = torch.Generator().manual_seed(0)
    return Network(SPACE.largest.canonical(), generator=generator).eval()


def _learn(net: Network) -> None:
    net.learn_kernel_transforms()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".transforms." in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_they_change_nothing_at_first(net: Network, x: Tensor, kernel: int) -> None:
    before = net(x, _member(kernel))
    net.learn_kernel_transforms()
    torch.testing.assert_close(net(x, _member(kernel)), before, rtol=1e-5, atol=1e-6)


def test_a_kernel_of_three_goes_through_both_matrices(net: Network) -> None:
    """Element by element, as the paper's Figure 3 draws it."""
    _learn(net)
    whole = dict(net.named_parameters())
    small = dict(net.export(_member(3)).named_parameters())
    name = "blocks.2.depthwise"
    seven = whole[f"{name}.weight"]
    five = torch.einsum(
        "oi,ci->co", whole[f"{name}.transforms.5"], seven[:, 0, 1:6, 1:6].flatten(1)
    ).view(-1, 5, 5)
    three = torch.einsum(
        "oi,ci->co", whole[f"{name}.transforms.3"], five[:, 1:4, 1:4].flatten(1)
    ).view(-1, 1, 3, 3)
    torch.testing.assert_close(small[f"{name}.weight"], three, rtol=1e-5, atol=1e-6)
    assert not any("transforms" in key for key in small)


def test_the_largest_kernel_is_as_it_was(net: Network, x: Tensor) -> None:
    before = net(x)
    _learn(net)
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("kernel", [3, 5])
def test_an_export_computes_the_same(net: Network, x: Tensor, kernel: int) -> None:
    _learn(net)
    assert torch.equal(net.export(_member(kernel))(x), net(x, _member(kernel)))


def test_matrices_are_trained(net: Network, x: Tensor) -> None:
    net.learn_kernel_transforms()
    net(x, _member(5)).sum().backward()
    found = {
        name for name, p in net.named_parameters() if "transforms" in name and p.grad is not None
    }
    assert found and all(name.endswith(".5") for name in found)
    assert not any("blocks.1." in name for name in found), "the first block's kernel is fixed"


def test_they_are_saved_and_loaded(net: Network, x: Tensor, tmp_path: Path) -> None:
    _learn(net)
    save_weights(tmp_path / "weights.safetensors", net)
    assert torch.equal(
        load_weights(tmp_path / "weights.safetensors")(x, _member(3)), net(x, _member(3))
    )
