"""The NetAug authors' networks: their logits, by their parameter names (data/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nasaug.supernet import Architecture, Network, load_published, load_target, params

Golden = Callable[[str], dict[str, Any]]
BLOCKS_OF_STAGES = (2, 3, 4, 3, 3)


@pytest.fixture(scope="module")
def augmented(golden: Golden) -> tuple[Network, list[tuple[Architecture, Tensor]]]:
    """The authors' augmented network, and its four sub-networks with their logits."""
    file = golden("mbv2_tiny_augmented")
    net = load_published(file["state_dict"], _largest(file["shapes"]))
    subs = [
        (
            _mbv2_tiny(
                s["stem_out"], s["first_block_out"], s["inverted_blocks"], s["head_conv_out"]
            ),
            torch.tensor(s["logits"]),
        )
        for s in file["subnetworks"]
    ]
    return net, subs


def _mbv2_tiny(stem: int, first: int, blocks: list[dict[str, int]], head: int) -> Architecture:
    target = load_target("mbv2_tiny", 10)
    outs = [{"out": stem}, {"out": first}, *blocks, {"out": head}]
    widened = [replace(row, **out) for row, out in zip(target.rows[:19], outs, strict=True)]  # type: ignore[arg-type]
    return replace(target, rows=(*widened, *target.rows[19:]))


def _largest(shapes: dict[str, list[int]]) -> Architecture:
    """The table of the authors' augmented network, read off the shapes of its weights."""

    def out(name: str) -> int:
        return shapes[f"{name}.conv.weight"][0]

    places = [
        f"backbone.stages.{s}.op_list.{b}" for s, n in enumerate(BLOCKS_OF_STAGES) for b in range(n)
    ]
    blocks = [
        {"mid": out(f"{place}.conv.inverted_conv"), "out": out(f"{place}.conv.point_conv")}
        for place in [*places, "head.op_list.0"]
    ]
    stem = out("backbone.input_stem.op_list.0")
    first = out("backbone.input_stem.op_list.1.conv.point_conv")
    return _mbv2_tiny(stem, first, blocks, out("head.op_list.1"))


def _golden_image(resolution: int) -> Tensor:
    x = np.random.default_rng(7).standard_normal((2, 3, resolution, resolution))
    return torch.tensor(x, dtype=torch.float32)


def _distance(own: Tensor, expected: Tensor) -> float:
    return float((own - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["mbv2_tiny", "mbv3_w035"])
def test_logits_of_the_authors_targets(golden: Golden, name: str) -> None:
    file = golden(name)
    net = load_published(file["state_dict"], load_target(name, 10))
    assert not net.training
    with torch.no_grad():
        logits = net(_golden_image(file["resolution"]))
    assert _distance(logits, torch.tensor(file["logits"])) < 1e-4


def test_augmented_network_has_the_authors_parameter_count(
    golden: Golden, augmented: tuple[Network, list[tuple[Architecture, Tensor]]]
) -> None:
    assert params(augmented[0].arch) == golden("mbv2_tiny_augmented")["parameters"]


@pytest.mark.parametrize("index", range(4))
def test_logits_of_the_authors_sub_networks(
    augmented: tuple[Network, list[tuple[Architecture, Tensor]]], index: int
) -> None:
    net, subs = augmented
    sub, expected = subs[index]
    with torch.no_grad():
        logits = net(_golden_image(sub.resolution), sub)
    assert _distance(logits, expected) < 1e-4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("index", range(4))
def test_exported_sub_network_is_equal_bit_for_bit(
    augmented: tuple[Network, list[tuple[Architecture, Tensor]]],
    images: Callable[..., Tensor],
    index: int,
    training: bool,
    memory_format: torch.memory_format,
) -> None:
    """Channel counts of the authors' divisor 1 are odd numbers: the hard case for alignment."""
    net, subs = augmented
    sub, _ = subs[index]
    x = images(4, 96).contiguous(memory_format=memory_format)
    exported = net.train(training).export(sub)
    with torch.no_grad():
        inside, outside = net(x, sub), exported(x)
    net.eval()
    assert torch.equal(inside, outside)
