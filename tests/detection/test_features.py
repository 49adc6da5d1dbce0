"""Which rows give feature maps, and that they are what a network computes there."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nasaug.detection.features import (
    chosen_strides,
    feature_rows,
    feature_sides,
    feature_widths,
    strides_of,
)
from nasaug.supernet import (
    Architecture,
    Network,
    SearchSpace,
    Skip,
    embed,
    load_target,
    target_names,
)


def test_the_deepest_rows_of_the_last_two_strides() -> None:
    arch = load_target("mbv2_tiny", resolution=160)
    rows = feature_rows(arch)
    # Table 2 of the MobileNetV2 paper: 96 channels end stride 16, the 1x1 to 1280 ends stride 32;
    # here at width 0.35 with a head of 448.
    assert [arch.row_names[row] for row in rows] == ["stage5.block3", "head"]
    assert feature_widths(arch, rows) == (32, 448)
    assert feature_sides(arch, rows) == (10, 5)


def test_features_behind_the_pooling_are_none() -> None:
    arch = load_target("mbv3_w035")
    assert [arch.row_names[row] for row in feature_rows(arch)] == ["stage5.block2", "head"]


@pytest.mark.parametrize("name", target_names())
def test_maps_are_what_is_computed_there(name: str) -> None:
    """Of every target, at all of its strides, against hooks on the blocks of a plain pass."""
    arch = load_target(name, 10, resolution=64)
    net = Network(arch, generator=torch.Generator().manual_seed(0)).eval()
    strides = sorted(set(strides_of(arch)))
    rows = feature_rows(arch, strides)
    seen: dict[int, torch.Tensor] = {}

    def keep(row: int) -> None:
        def hook(_module: nn.Module, _given: object, made: torch.Tensor) -> None:
            seen[row] = made.clone()

        net.blocks[row].register_forward_hook(hook)

    for row in rows:
        keep(row)
    x = torch.randn(2, arch.in_channels, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = net(x)
        plain = dict(seen)
        maps = net.feature_maps(x, rows)
    assert logits.shape == (2, 10)
    for stride, row, width, side, found in zip(
        strides, rows, feature_widths(arch, rows), feature_sides(arch, rows), maps, strict=True
    ):
        assert torch.equal(found, plain[row])
        assert found.shape == (2, width, side, side)
        assert side == -(-64 // stride)


def test_maps_of_a_sub_network_are_those_of_its_export(space: SearchSpace) -> None:
    net = Network(space.largest, generator=torch.Generator().manual_seed(0)).eval()
    rows = feature_rows(space.largest)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rng = random.Random(0)
    lacking = 0
    for sub in [space.target, *(space.sample(rng) for _ in range(12))]:
        aligned = embed(sub, space.largest)
        lacking += any(isinstance(row, Skip) for row in aligned.rows)
        small = net.export(sub)
        with torch.no_grad():
            expected = small.feature_maps(x, feature_rows(small.arch))
            found = net.feature_maps(x, rows, sub)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert [a.shape[1] for a in found] == [
            *feature_widths(small.arch, feature_rows(small.arch))
        ]
    assert lacking > 1


def test_a_backbone_takes_and_gives_a_sub_networks_weights(space: SearchSpace) -> None:
    """Also where rows were dropped on either side: those are passed over."""
    net = Network(space.largest, generator=torch.Generator().manual_seed(0)).eval()
    trained = Network(space.target.canonical(), generator=torch.Generator().manual_seed(5)).eval()
    rows = feature_rows(space.largest)
    net.keep_rows(rows[-1] + 1)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net.feature_maps(x, rows)
        net.take(trained, space.target)
        found = net.feature_maps(x, rows, space.target)
        expected = trained.feature_maps(x, feature_rows(trained.arch))
        after = net.feature_maps(x, rows)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(before[-1], after[-1])
    fresh = Network(space.target.canonical(), generator=torch.Generator().manual_seed(6)).eval()
    head = fresh.blocks[-1].state_dict()
    net.give(fresh, space.target)
    with torch.no_grad():
        given = fresh.feature_maps(x, feature_rows(fresh.arch))
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
    assert all(torch.equal(a, fresh.blocks[-1].state_dict()[k]) for k, a in head.items())


def test_a_network_without_its_last_rows_has_no_weights_of_them() -> None:
    arch = load_target("micro_10k", 10)
    net = Network(arch)
    owners = {int(name.split(".")[1]) for name, _ in net.named_parameters()}
    assert max(owners) == len(arch.rows) - 1
    net.keep_rows(3)
    assert {int(name.split(".")[1]) for name in net.state_dict()} == {0, 1, 2}
    with pytest.raises(AssertionError, match="a backbone has no classifier to export"):
        net.export()


def test_a_target_of_one_stride_has_one_map() -> None:
    micro = load_target("micro_10k", 10)
    rows = (micro.rows[0], *micro.rows[-2:])
    arch = Architecture(rows, 28, name="flat")
    assert (chosen_strides(arch), feature_rows(arch)) == ((2,), (0,))


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ((8, 64), "mbv2_tiny has no feature map of stride 64; its strides are 2, 4, 8, 16, 32"),
        ((32, 16), "strides must grow, from the finest feature map on, but got [32, 16]"),
        ((16, 16), "strides must grow, from the finest feature map on, but got [16, 16]"),
    ],
)
def test_strides_that_there_are_not(strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError) as error:
        feature_rows(load_target("mbv2_tiny"), strides)
    assert str(error.value) == message


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.around(
        load_target("micro_10k", 10, resolution=32, in_channels=3),
        width=(1.0, 1.5, 2.0),
        expand=(1.0, 2.0),
        kernel_growth=(0, 2),
        extra_depth=(0, 1),
    )
