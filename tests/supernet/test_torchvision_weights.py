"""torchvision's MobileNets as ours: equal logits, and state dicts that are of something else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from nasaug.supernet import (
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    load_target,
    load_torchvision,
    macs,
    params,
    torchvision_networks,
)

State = dict[str, Tensor]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("mobilenet_v2", {}),
    ("mobilenet_v2", {"width_mult": 0.35}),
    ("mobilenet_v2", {"width_mult": 0.1}),
    ("mobilenet_v2", {"width_mult": 1.3, "round_nearest": 4}),
    ("mobilenet_v3_large", {}),
    ("mobilenet_v3_large", {"width_mult": 0.35}),
    ("mobilenet_v3_large", {"reduced_tail": True}),
    # So narrow that the second block, too, has nothing to expand.
    ("mobilenet_v3_large", {"width_mult": 0.13}),
    # So narrow that a later block squeezes without expanding.
    ("mobilenet_v3_large", {"width_mult": 0.1}),
    ("mobilenet_v3_small", {}),
    ("mobilenet_v3_small", {"width_mult": 0.5}),
    ("mobilenet_v3_small", {"reduced_tail": True}),
]
IDS = [f"{name}-{'-'.join(f'{k}{v}' for k, v in options.items())}" for name, options in CASES]


def _lively(name: str, **options: Any) -> nn.Module:
    """torchvision's network with random weights and batch-norm statistics near, but not at, those
    of its activations, so that different images have different logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        net: nn.Module = models.get_model(name, weights=None, num_classes=11, **options)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.momentum = 1.0
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
        with torch.no_grad():
            net.train()(torch.randn(8, 3, 64, 64))
            for module in norms:
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean += 0.1 * torch.randn_like(module.running_mean)
                module.running_var *= 0.7 + 0.6 * torch.rand_like(module.running_var)
    return net.eval()


@pytest.fixture(scope="module")
def state() -> Callable[[str], State]:
    """The state dict of torchvision's network of that name, to change."""
    found = {name: _lively(name).state_dict() for name in torchvision_networks()}
    return lambda name: dict(found[name])


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_logits_are_those_of_torchvision(name: str, options: dict[str, Any]) -> None:
    theirs = _lively(name, **options)
    ours = load_torchvision(theirs.state_dict(), name)
    assert not ours.training
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # In float64: random networks this deep blow float32's rounding up to 1e-4 of the spread.
    with torch.no_grad():
        expected, found = theirs.double()(images.double()), ours.double()(images.double())
    assert expected.std(0).mean() > 1e-3, "the images must be told apart"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert params(ours.arch) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "quoted"),
    # torchvision's own _ops, in units of 10^9: multiply-accumulates at 224 x 224.
    [
        ("mobilenet_v2", "MobileNet_V2_Weights"),
        ("mobilenet_v3_large", "MobileNet_V3_Large_Weights"),
        ("mobilenet_v3_small", "MobileNet_V3_Small_Weights"),
    ],
)
def test_costs_are_those_that_torchvision_quotes(name: str, quoted: str) -> None:
    net: nn.Module = models.get_model(name, weights=None)
    meta = getattr(models, quoted).IMAGENET1K_V1.meta
    arch = load_torchvision(net.state_dict(), name).arch
    assert round(macs(arch) / 1e9, 3) == meta["_ops"]  # multiply-accumulates at 224 x 224
    assert params(arch) == meta["num_params"]


@pytest.mark.parametrize(
    ("name", "options", "target"),
    [
        ("mobilenet_v2", {}, "mbv2_w100"),
        ("mobilenet_v2", {"width_mult": 0.35}, "mbv2_w035"),
        ("mobilenet_v3_large", {}, "mbv3_w100"),
        ("mobilenet_v3_small", {}, "mbv3_small_w100"),
    ],
)
def test_a_target_of_ours_is_recognised(name: str, options: Any, target: str) -> None:
    arch = load_torchvision(_lively(name, **options).state_dict(), name, 160).arch
    assert arch.name == target
    assert arch == load_target(target, 11, 160)


def test_another_network_has_torchvisions_name(state: Callable[[str], State]) -> None:
    options = {"width_mult": 1.3, "round_nearest": 4}
    arch = load_torchvision(_lively("mobilenet_v2", **options).state_dict(), "mobilenet_v2").arch
    assert (arch.name, arch.num_classes, arch.resolution) == ("mobilenet_v2", 11, 224)


def test_rows_read_like_the_papers_table(state: Callable[[str], State]) -> None:
    rows = load_torchvision(state("mobilenet_v3_large"), "mobilenet_v3_large").arch.rows
    assert rows[0] == Conv(3, 2, 16, "hardswish")
    assert rows[1] == DepthwiseSeparable(3, 1, 16, "relu", skip=True)
    assert rows[4] == InvertedResidual(5, 2, 72, 40, "relu", False, 24)
    assert rows[15] == InvertedResidual(5, 1, 960, 160, "hardswish", True, 240)
    assert rows[18] == Conv(1, 1, 1280, "hardswish", norm=False, bias=True)


def test_the_order_of_names_does_not_matter(state: Callable[[str], State]) -> None:
    plain = state("mobilenet_v2")
    shuffled = dict(sorted(plain.items()))  # as safetensors gives them: features.10 before .2
    assert list(shuffled) != list(plain)
    found = load_torchvision(shuffled, "mobilenet_v2").state_dict()
    expected = load_torchvision(plain, "mobilenet_v2").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_nothing_of_the_state_dict_is_changed(state: Callable[[str], State]) -> None:
    given = {name: tensor.clone() for name, tensor in state("mobilenet_v3_large").items()}
    load_torchvision(given, "mobilenet_v3_large")
    for name, tensor in state("mobilenet_v3_large").items():
        assert torch.equal(given[name], tensor)


def test_the_first_block_of_small_v3_squeezes_without_expanding(
    state: Callable[[str], State],
) -> None:
    rows = load_torchvision(state("mobilenet_v3_small"), "mobilenet_v3_small").arch.rows
    assert rows[1] == DepthwiseSeparable(3, 2, 16, "relu", squeeze=8)


def test_unknown_name_offers_the_nearest(state: Callable[[str], State]) -> None:
    with pytest.raises(ValueError, match="'mobilnet_v2': did you mean 'mobilenet_v2'"):
        load_torchvision(state("mobilenet_v2"), "mobilnet_v2")


@pytest.mark.parametrize(
    ("given", "read_as", "words"),
    [
        ("mobilenet_v3_large", "mobilenet_v2", r"19 features .* classifier\.1, they have 17"),
        ("mobilenet_v2", "mobilenet_v3_large", "17 features .*, they have 19 and classifier.1"),
        ("mobilenet_v3_small", "mobilenet_v3_large", "17 features .*, they have 13"),
        ("mobilenet_v3_large", "mobilenet_v3_small", "13 features .*, they have 17"),
    ],
)
def test_weights_of_another_family(
    given: str, read_as: str, words: str, state: Callable[[str], State]
) -> None:
    with pytest.raises(ValueError, match=f"not of torchvision's {read_as}: .*{words}"):
        load_torchvision(state(given), read_as)


def _without(*names: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name in names:
            del state[name]

    return change


def _with(name: str, value: Any) -> Callable[[State], None]:
    return lambda state: state.update({name: value})


def _with_convolutions(place: str, count: int) -> Callable[[State], None]:
    more = {f"{place}.9{index}.weight": torch.zeros(1, 1, 1, 1) for index in range(count)}
    return lambda state: state.update(more)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("features.3.conv.0.1.running_var"), r"missing blocks\.3\.expand\.norm\.running_"),
        (_without("features.3.conv.0.0.weight"), "is neither a convolution nor the batch norm"),
        (_without("classifier.1.bias"), r"classifier\.1 is not a linear layer with a bias"),
        (_with("classifier.1.weight", torch.zeros(3)), "classifier.1 is not a linear layer"),
        (_with("backbone.weight", torch.zeros(3)), "'backbone.weight' is not a tensor of torchvis"),
        (_with("features.x.weight", torch.zeros(3)), "'features.x.weight' is not a tensor"),
        (_with("features.3.conv.0.0.weight", 3), "'features.3.conv.0.0.weight' is not a tensor"),
        (_with_convolutions("features.3.conv", 3), "has 6 convolutions, not one"),
        (_with("features.0.5.weight", torch.zeros(1, 1, 1, 1)), "one convolution each, but here"),
        (_with("features.3.conv.0.0.weight", torch.zeros(144, 5, 1, 1)), r"has shape \(144, 5, 1"),
        (_with("features.3.conv.1.0.weight", torch.zeros(144, 1, 4, 4)), "kernel must be odd"),
        (lambda state: state.clear(), "it has 19 features .* they have 0 and none"),
    ],
)
def test_what_is_wrong_is_named(
    change: Callable[[State], None], words: str, state: Callable[[str], State]
) -> None:
    tensors = state("mobilenet_v2")
    change(tensors)
    with pytest.raises(ValueError, match=words):
        load_torchvision(tensors, "mobilenet_v2")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_tensors_load_or_are_a_value_error(
    data: st.DataObject, state: Callable[[str], State]
) -> None:
    tensors: dict[str, Any] = {**state("mobilenet_v2")}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=5))
        match data.draw(st.sampled_from(("gone", "other shape", "no tensor", "renamed"))):
            case "gone":
                del tensors[name]
            case "other shape":
                tensors[name] = torch.zeros(shape)
            case "no tensor":
                tensors[name] = shape
            case _:
                tensors[data.draw(st.text(max_size=8)) + name[3:]] = tensors.pop(name)
    with contextlib.suppress(ValueError):
        net = load_torchvision(tensors, "mobilenet_v2")
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, net.arch.num_classes)


def test_names_that_are_no_text(state: Callable[[str], State]) -> None:
    odd: Any = {3: torch.zeros(1)}
    with pytest.raises(ValueError, match="'3' is not a tensor"):
        load_torchvision(odd, "mobilenet_v2")
