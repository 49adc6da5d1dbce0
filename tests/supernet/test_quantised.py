"""Numbers rounded as an int8 network has them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasaug.supernet import Bits, Network, SearchSpace, load_target
from nasaug.supernet.quantised import rounded_activation, rounded_weight


def _by_hand(x: Tensor, low: float, high: float, levels: int) -> Tensor:
    """The nearest of `levels` evenly spaced values, one of which is exactly 0."""
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, levels - 1).sub(zero).mul(step)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_rounded_channel_by_channel(bits: int) -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    rounded = rounded_weight(weight, bits)
    most = 2 ** (bits - 1) - 1
    for ours, theirs in zip(rounded, weight, strict=True):
        assert len(ours.unique()) <= 2 * most + 1
        largest = float(theirs.abs().max())
        if largest == 0:
            assert not ours.any()
            continue
        step = largest / most
        torch.testing.assert_close(ours, (theirs / step).round() * step)


def test_a_factor_for_every_channel_changes_nothing() -> None:
    """So batch norm may be folded into the weights after they were trained rounded."""
    weight = torch.randn(4, 6, 1, 1, generator=torch.Generator().manual_seed(1))
    factors = torch.tensor([0.5, -2.0, 8.0, 1.0]).view(4, 1, 1, 1)  # exact in float
    assert torch.equal(rounded_weight(weight, 8) * factors, rounded_weight(weight * factors, 8))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_activations_are_rounded_over_their_range(shift: float) -> None:
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2)) + shift
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    torch.testing.assert_close(rounded_activation(x, 4), _by_hand(x, low, high, 16))
    zeros = torch.zeros(3, 4)
    assert torch.equal(rounded_activation(zeros, 8), zeros)


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(3)).requires_grad_()
    for rounded in (rounded_activation(x, 3), rounded_weight(x, 3)):
        (gradient,) = torch.autograd.grad(rounded.sum(), x)
        assert torch.equal(gradient, torch.ones_like(x))


@torch.no_grad()
def test_a_rounded_network_is_close_to_itself_and_closer_with_more_bits() -> None:
    net = Network(
        load_target("mbv3_w035", 10, 64), generator=torch.Generator().manual_seed(4)
    ).eval()
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    whole = net(x)
    errors = []
    for bits in (8, 6, 4):
        net.round_to(Bits(bits, bits))
        errors.append(float((net(x) - whole).norm() / whole.norm()))
    assert 0 < errors[0] < errors[1] < errors[2] and errors[0] < 0.1
    exported = net.export()
    net.round_to(None)
    assert torch.equal(net(x), whole) and torch.equal(exported(x), whole), (
        "an export is not rounded"
    )


@torch.no_grad()
def test_every_layer_reads_and_leaves_rounded_numbers() -> None:
    """A sub-network's weights are rounded as it has them, not as the largest network does."""
    target = load_target("micro_10k", 10, 28, 1)
    space = SearchSpace.around(target, width=(1.0, 2.0), expand=(1.0, 2.0))
    net = Network(space.largest, generator=torch.Generator().manual_seed(6)).eval()
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(7))
    net.round_to(Bits(4, 4))
    small = net.export(target)
    small.round_to(Bits(4, 4))
    assert torch.equal(net(x, space.embed(target)), small(x))
    seen: list[int] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(len(output.unique()))

    for block in small.blocks[:-1]:
        block.register_forward_hook(look)
    small(x)
    pooled = seen.pop()
    assert max(seen) <= 16 and pooled > 16, "the mean of rounded numbers is not one of them"


@pytest.mark.parametrize("bits", [(1, 8), (8, 9)])
def test_bits_there_cannot_be(bits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must have 2 to 8 bits, but got"):
        Bits(*bits)
