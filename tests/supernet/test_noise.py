"""Passes with dropout, stochastic depth and DropBlock, against the same passes written out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    GlobalAvgPool,
    Linear,
    Network,
    Noise,
    SearchSpace,
    load_target,
)

MakeNetwork = Callable[..., Network]
Images = Callable[..., Tensor]

ALL = Noise(dropout=0.3, drop_path=0.4, drop_block=0.2, block_size=3)


@pytest.fixture
def net(make_network: MakeNetwork, micro_space: SearchSpace) -> Network:
    return make_network(micro_space.largest).train()


def _by_hand(net: Network, x: Tensor, disturb: Callable[[Tensor], Tensor]) -> Tensor:
    """What the classifier reads when `disturb(y)` replaces every residual branch y."""
    for row, block, width in zip(net.arch.rows[:-1], net.blocks, net.arch.widths_in, strict=False):
        y = x
        for leaf in row.leaves(width):
            y = getattr(block, leaf.name)(y, leaf)
        if row.residual:
            y = disturb(y)
            if (shortcut := row.shortcut(width)) is not None:
                x = block.shortcut(x, shortcut)
            y = y + x
            y = y.relu() if row.kind == "bottleneck" else y
        x = y
    return x


@pytest.mark.parametrize("noise", [None, Noise(), Noise(block_size=3)])
def test_no_noise_changes_no_bit_and_draws_no_number(
    net: Network, micro_space: SearchSpace, images: Images, noise: Noise | None
) -> None:
    x, sub = images(4, 28), micro_space.target
    state = torch.get_rng_state()
    assert torch.equal(net(x, sub, noise), net(x, sub))
    assert torch.equal(net.outputs(x, sub, noise).logits, net(x, sub))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_knows_no_noise(net: Network, images: Images) -> None:
    x, state = images(4, 28), torch.get_rng_state()
    net.eval()
    assert torch.equal(net(x, noise=ALL), net(x))
    assert torch.equal(net.features(x, noise=ALL), net.features(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [False, True])
def test_embedding_is_what_the_classifier_reads(
    make_network: MakeNetwork, images: Images, training: bool
) -> None:
    net = make_network(load_target("mbv3_w035", 10, 32)).train(training)
    logits, embedding = net.outputs(images(3, 32))
    assert embedding.shape == (3, 1280)
    linear = net.blocks[-1].linear
    assert torch.equal(F.linear(embedding, linear.weight, linear.bias), logits)


def test_embedding_is_from_before_dropout(
    net: Network, micro_space: SearchSpace, images: Images
) -> None:
    x, sub = images(4, 28), micro_space.target
    torch.manual_seed(1)
    logits, embedding = net.outputs(x, sub, Noise(dropout=0.5))
    assert torch.equal(embedding, net.features(x, sub).flatten(1))
    torch.manual_seed(1)
    kept = torch.empty_like(embedding).bernoulli_(0.5)
    linear = net.export(sub).blocks[-1].linear
    torch.testing.assert_close(
        logits, F.linear(2 * kept * embedding, linear.weight, linear.bias), rtol=1e-5, atol=1e-5
    )


def test_branches_are_dropped_for_samples_with_a_rate_that_rises_with_depth(
    make_network: MakeNetwork, images: Images
) -> None:
    """mcunet has eleven residual rows: the rates are 0.6 / 11, 1.2 / 11, ... 0.6."""
    net, x = make_network(load_target("mcunet", 10, 48)).train(), images(64, 48)
    count = sum(row.residual for row in net.arch.rows)
    assert count == 11
    shares: list[float] = []

    def drop(branch: Tensor) -> Tensor:
        survives = 1 - 0.6 * (len(shares) + 1) / count
        kept = torch.empty(len(branch), 1, 1, 1).bernoulli_(survives)
        shares.append(1 - kept.mean().item())
        return branch * (kept / survives)

    with torch.no_grad():
        torch.manual_seed(2)
        expected = _by_hand(net, x, drop)
        torch.manual_seed(2)
        found = net.features(x, noise=Noise(drop_path=0.6))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert 0 < sum(shares[:4]) < sum(shares[-4:])


def test_rates_count_the_rows_of_the_sub_network_that_runs(
    net: Network, micro_space: SearchSpace, images: Images
) -> None:
    """And so noise acts alike on a slice and on its export."""
    x, rng = images(8, 28), random.Random(4)
    noise = Noise(drop_path=0.5, drop_block=0.1)
    for sub in (micro_space.target, *(micro_space.sample(rng) for _ in range(3))):
        torch.manual_seed(3)
        inside = net(x, sub, noise)
        torch.manual_seed(3)
        assert torch.equal(net.export(sub)(x, noise=noise), inside)


def test_shortcut_by_convolution_is_never_dropped(make_network: MakeNetwork) -> None:
    """The one row over the identity is the last, so it alone drops, with the whole rate."""
    rows = (Conv(3, 2, 8, "relu"), Bottleneck(4, 16, 2, True), Bottleneck(4, 16))
    arch = Architecture((*rows, GlobalAvgPool(), Linear(3)), 16)
    net = make_network(arch).train()
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kept: list[Tensor] = []

    def drop(branch: Tensor) -> Tensor:
        if len(kept) == 0:
            kept.append(torch.ones(1))
            return branch
        kept.append(torch.empty(len(branch), 1, 1, 1).bernoulli_(0.25) / 0.25)
        return branch * kept[-1]

    torch.manual_seed(5)
    expected = _by_hand(net, x, drop)
    torch.manual_seed(5)
    torch.testing.assert_close(net.features(x, noise=Noise(drop_path=0.75)), expected)
    assert 0 < kept[1].count_nonzero() < 40


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int, int]]:
    """(rate, block size, side of the map) of every call of torchvision's drop_block2d."""
    calls: list[tuple[float, int, int]] = []
    original = torchvision.ops.drop_block2d

    def spy(x: Tensor, p: float, block_size: int, **other: Any) -> Any:
        calls.append((p, block_size, x.shape[-1]))
        return original(x, p, block_size, **other)

    monkeypatch.setattr(torchvision.ops, "drop_block2d", spy)
    return calls


@pytest.mark.parametrize(
    ("name", "resolution", "size", "expected"),
    [
        ("micro_10k", 28, 7, [(7, 7)] * 2 + [(3, 4)] * 2),
        ("micro_10k", 28, 5, [(5, 7)] * 2 + [(3, 4)] * 2),
        ("mbv2_tiny", 144, 7, [(7, 9)] * 7 + [(5, 5)] * 4),
        ("mbv2_tiny", 32, 7, [(1, 2)] * 7 + [(1, 1)] * 4),
    ],
)
def test_squares_are_dropped_after_the_blocks_of_the_last_two_resolutions(
    make_network: MakeNetwork,
    images: Images,
    squares: list[tuple[float, int, int]],
    name: str,
    resolution: int,
    size: int,
    expected: list[tuple[int, int]],
) -> None:
    """MobileNetV2 has stages of 4 and 3 blocks at a stride of 16, of 3 and 1 at 32."""
    net = make_network(load_target(name, 10, resolution)).train()
    net(images(2, resolution), noise=Noise(drop_block=0.1, block_size=size))
    assert squares == [(0.1, *call) for call in expected]


def test_squares_are_zero_and_the_rest_is_scaled(net: Network, images: Images) -> None:
    """The last block's output under DropBlock: with rate 0.3 on 4 x 4 maps, squares of 3 x 3."""
    x, width = images(64, 28), net.arch.widths_in[-4]
    seen: list[Tensor] = []
    head = net.blocks[-3]
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        net(x)
        net(x, noise=Noise(drop_block=0.3))
    hook.remove()
    plain, noisy = seen
    assert plain.count_nonzero() == plain.numel()
    zeros = (noisy == 0).float()
    assert zeros.shape == (64, width, 4, 4)
    assert 0.15 < zeros.mean() < 0.35
    counts = zeros.sum((2, 3)).unique().tolist()
    # One square of nine, or up to four that overlap inside 4 x 4.
    assert set(counts) <= {0, 9, 12, 14, 15, 16}
    assert 9 in counts


@pytest.mark.parametrize("rate", ["dropout", "drop_path", "drop_block"])
def test_every_noise_acts_and_lets_gradients_through(
    net: Network, images: Images, rate: str
) -> None:
    x = images(16, 28)
    torch.manual_seed(0)
    noisy = net(x, noise=Noise(**{rate: 0.5}))  # type: ignore[arg-type]
    assert not torch.equal(noisy, net(x))
    noisy.logsumexp(1).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


def test_the_seed_of_torch_decides(net: Network, images: Images) -> None:
    x, found = images(8, 28), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(net(x, noise=ALL))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@given(rate=st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=3))
def test_rates_are_checked(rate: Any) -> None:
    fits = isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate < 1
    for name in ("dropout", "drop_path", "drop_block"):
        if fits:
            assert getattr(Noise(**{name: rate}), name) == rate
        else:
            with pytest.raises(ValueError, match=f"{name} must be a rate from 0 to below 1, but"):
                Noise(**{name: rate})


@given(size=st.integers() | st.floats() | st.booleans() | st.none())
def test_block_size_is_checked(size: Any) -> None:
    if isinstance(size, int) and not isinstance(size, bool) and size > 0 and size % 2:
        assert Noise(block_size=size).silent
    else:
        with pytest.raises(ValueError, match="block_size must be an odd integer of at least 1"):
            Noise(block_size=size)
