"""Folding: the same network with batch norm gone, held to a PyTorch reading that keeps it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from nasaug.export import fold, run_source, source_of, state_of
from nasaug.supernet import Architecture, Bottleneck, Network, boost, load_space, load_target

Own = Any


def test_folded_tensors_are_float32_with_a_bias_beside_every_weight(own: Own) -> None:
    folded = fold(own.random_network(own.MIXED))
    weights = {name for name in folded.tensors if name.endswith(".weight")}
    assert {name.replace(".weight", ".bias") for name in weights} | weights == set(folded.tensors)
    assert not any("norm" in name for name in folded.tensors)
    assert {tensor.dtype for tensor in folded.tensors.values()} == {torch.float32}
    assert folded.arch == own.MIXED
    assert "blocks.4.expand.weight" in folded.tensors  # the row after the absent one
    assert len(folded.arch.rows) == len(own.MIXED.rows) - 1


def test_a_fold_by_hand(own: Own) -> None:
    net = own.random_network(own.MIXED)
    state = net.state_dict()
    folded = fold(net)
    for channel in (0, 7):
        gamma, beta, mean, var = (
            float(state[f"blocks.0.conv.norm.{name}"][channel])
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gamma / (var + 1e-5) ** 0.5
        weight = folded.tensors["blocks.0.conv.weight"][channel]
        expected = state["blocks.0.conv.weight"][channel].double() * gain
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=0)
        assert float(folded.tensors["blocks.0.conv.bias"][channel]) == pytest.approx(
            beta - mean * gain, rel=1e-6
        )


def test_what_has_no_norm_and_no_bias_gets_a_bias_of_zero(own: Own) -> None:
    folded = fold(own.random_network(own.MIXED))
    assert folded.tensors["blocks.8.conv.bias"].tolist() == [0.0] * 10


@pytest.mark.parametrize(
    "arch",
    [
        load_target("micro_10k", 10),
        load_target("mbv2_tiny", 10, resolution=64),
        load_target("mbv3_w035", 10, resolution=48),
        load_target("mcunet", 10, resolution=48),
        load_target("proxylessnas_w035", 10, resolution=48),
        load_target("resnet50", 5, resolution=33),
        None,
    ],
    ids=lambda arch: "mixed" if arch is None else arch.name,
)
def test_a_folded_network_computes_what_the_network_did(
    own: Own, arch: Architecture | None
) -> None:
    arch = own.MIXED if arch is None else arch
    described = own.describe(arch)
    net = own.random_network(arch)
    images = own.images_for(arch)
    reference = own.by_hand(arch, net.state_dict(), images)
    assert own.far_apart(net(images).detach(), reference) < 1e-4
    folded = fold(net)
    made = run_source(source_of(folded, described), described, state_of(folded))
    with torch.inference_mode():
        assert own.far_apart(made(images), reference) < 1e-4


def test_a_network_with_norms_of_its_own_and_kernel_transforms(own: Own) -> None:
    """What a training with separate norms, or Once-for-All's kernels, leaves."""
    arch = load_target("micro_10k", 10)
    net = own.random_network(arch)
    net.learn_kernel_transforms()
    folded = fold(net)
    images = own.images_for(arch)
    described = own.describe(arch)
    made = run_source(source_of(folded, described), described, state_of(folded))
    assert own.far_apart(made(images), net(images).detach()) < 1e-4


def test_the_resolution_is_that_of_the_export(own: Own) -> None:
    net = own.random_network(load_target("micro_10k", 10))
    assert fold(net, 48).arch.resolution == 48
    assert fold(net).arch.resolution == net.arch.resolution
    with pytest.raises(ValueError, match="resolution must be an integer from 1 to 8192"):
        fold(net, 0)


@pytest.mark.parametrize("seed", range(4))
def test_members_of_a_space_are_written_too(own: Own, seed: int) -> None:
    """Rows absent, kernels and widths mixed: what a search down ships."""
    arch = load_space("micro_down", 10).sample(random.Random(seed))
    net, images, described = own.random_network(arch), own.images_for(arch), own.describe(arch)
    folded = fold(net)
    made = run_source(source_of(folded, described), described, state_of(folded))
    reference = own.by_hand(arch, net.state_dict(), images)
    assert own.far_apart(made(images), reference) < 1e-4


def test_what_is_no_whole_network_is_refused(own: Own) -> None:
    backbone = own.random_network(load_target("micro_10k", 10))
    backbone.keep_rows(3)
    with pytest.raises(ValueError, match=r"micro_10k is a backbone .* cannot be exported"):
        fold(backbone)
    with pytest.raises(ValueError, match=r"boosted.*train it to its end"):
        fold(Network(boost(load_target("micro_10k", 10), 2, 1)))


def test_folding_leaves_the_network_as_it_was(own: Own) -> None:
    net = own.random_network(own.MIXED).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fold(net)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert any(isinstance(row, Bottleneck) for row in net.arch.rows)
