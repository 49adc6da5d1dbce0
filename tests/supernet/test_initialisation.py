"""How a network's weights start: the published schemes, from one generator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nasaug.supernet import Network, load_target


def _leaf_weights(net: Network) -> list[Tensor]:
    return [p.detach() for p in net.parameters() if p.ndim == 4]


def test_kaiming_uniform_stays_within_its_bound_and_fills_it() -> None:
    """a = sqrt 5 makes the bound sqrt(6 / (6 fan_in)) = 1 / sqrt(fan_in)."""
    net = Network(load_target("mbv3_w035"), generator=torch.Generator().manual_seed(0))
    for weight in _leaf_weights(net):
        bound = 1 / math.sqrt(weight[0].numel())
        assert weight.abs().max() <= bound * (1 + 1e-6)  # 1 / sqrt is rounded to float32.
        if weight.numel() >= 2000:
            assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_fan_out_has_its_standard_deviation() -> None:
    net = Network(load_target("mbv2_w100"), "fan_out", torch.Generator().manual_seed(0))
    large = [weight for weight in _leaf_weights(net) if weight.numel() >= 2000]
    assert len(large) > 30
    for weight in large:
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


@pytest.mark.parametrize("init", ["kaiming_uniform", "fan_out"])
def test_classifier_norms_and_biases_start_as_published(init: str) -> None:
    net = Network(load_target("mbv3_w035"), init, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    classifier = net.blocks[-1].linear
    assert float(classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert parameter.count_nonzero() == 0
        elif name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))


@pytest.mark.parametrize("init", ["kaiming_uniform", "fan_out"])
def test_initialisation_repeats_from_its_generator_alone(init: str) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        net = Network(load_target("micro_10k"), init, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
        return net.state_dict()

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state), "the default generator must not be drawn from"
    torch.rand(3)
    again, other = weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.conv.weight"], other["blocks.0.conv.weight"])
