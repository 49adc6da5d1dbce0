"""The numbers of a recipe: schedule, decay, resolution, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nasaug.supernet import Architecture, Network, load_target
from nasaug.training import Recipe, proxy_resolution
from nasaug.training.recipe import learning_rate, make_optimizer, total_steps


def _rates(recipe: Recipe, steps_per_epoch: int, workers: int = 1) -> list[float]:
    steps = range(total_steps(recipe, steps_per_epoch))
    return [learning_rate(recipe, step, steps_per_epoch, workers) for step in steps]


def _torch_rates(warmup: int, steps: int, peak: float, first: float) -> list[float]:
    """torch's own schedulers, one after the other."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    rates = [first + (peak - first) * (step + 1) / warmup for step in range(warmup)]
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    return rates


@pytest.mark.parametrize("workers", [1, 4])
def test_schedule_is_a_linear_rise_and_then_torchs_cosine(workers: int) -> None:
    """Warm-up epochs come on top. One worker rises from 0, several from one worker's rate."""
    recipe = Recipe(epochs=5, lr=0.2, warmup_epochs=2)
    first = 0.0 if workers == 1 else 0.2
    expected = _torch_rates(warmup=14, steps=35, peak=0.2 * workers, first=first)
    assert _rates(recipe, 7, workers) == pytest.approx(expected)


def test_schedule_at_points_worked_out_by_hand() -> None:
    recipe = Recipe(epochs=4, lr=0.1, warmup_epochs=1)
    rates = _rates(recipe, 10)
    assert len(rates) == 50
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[20] == pytest.approx(0.1 * (1 + math.sqrt(0.5)) / 2)
    assert rates[30] == pytest.approx(0.05)
    assert 0 < rates[49] < 0.001


def test_peak_grows_with_the_workers_and_the_end_is_near_zero() -> None:
    recipe = Recipe(epochs=10, lr=0.1, warmup_epochs=2)
    rates = _rates(recipe, 100, workers=8)
    assert max(rates) == pytest.approx(0.8)
    assert rates[0] == pytest.approx(0.1 + 0.7 / 200)
    assert 0 < rates[-1] < 1e-5


def test_without_warmup_training_begins_at_the_peak() -> None:
    recipe = Recipe(epochs=1, lr=0.3, warmup_epochs=0)
    assert total_steps(recipe, 8) == 8
    assert learning_rate(recipe, 0, 8) == pytest.approx(0.3)


@given(
    epochs=st.integers(1, 50),
    warmup=st.floats(0, 5),
    steps_per_epoch=st.integers(1, 50),
    workers=st.integers(1, 8),
)
def test_rate_is_positive_and_never_above_the_peak(
    epochs: int, warmup: float, steps_per_epoch: int, workers: int
) -> None:
    recipe = Recipe(epochs=epochs, lr=0.1, warmup_epochs=warmup)
    rates = _rates(recipe, steps_per_epoch, workers)
    assert all(0 < rate <= 0.1 * workers * (1 + 1e-9) for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_norms_and_biases_are_not_decayed(micro: Architecture) -> None:
    """Gradients of zero leave decay alone at work."""
    recipe = Recipe(lr=0.5, weight_decay=0.1, momentum=0.9)
    net = Network(micro)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = make_optimizer(net, recipe)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        weight = name.endswith("weight") and "norm" not in name
        factor = 1 - 0.5 * 0.1 * 1.9 if weight else 1
        torch.testing.assert_close(parameter.detach(), factor * before[name])
    assert any("norm" in name for name in before)


def test_optimizer_holds_every_parameter_once(micro: Architecture) -> None:
    net = Network(micro)
    groups = make_optimizer(net, Recipe()).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters())


def test_the_classifier_may_have_a_learning_rate_of_its_own(micro: Architecture) -> None:
    """By torch's own SGD over two groups, in which it is written out."""
    recipe = Recipe(lr=0.1, head_lr_factor=10, weight_decay=0.1, momentum=0.9)
    net, other = (Network(micro, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    optimizer = make_optimizer(net, recipe)
    head = [p for name, p in other.named_parameters() if name.startswith("blocks.8.")]
    assert [tuple(p.shape) for p in head] == [(10, 64), (10,)]
    rest = [p for p in other.parameters() if not any(p is own for own in head)]
    reference = torch.optim.SGD(
        [
            {"params": [p], "lr": lr, "weight_decay": 0.1 if p.ndim > 1 else 0.0}
            for lr, members in ((1.0, head), (0.1, rest))
            for p in members
        ],
        momentum=0.9,
        nesterov=True,
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for settings in optimizer.param_groups:
            settings["lr"] = 0.1 * settings["lr_factor"]
        for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            theirs.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_needs_no_gradient_is_not_in_the_optimizer(micro: Architecture) -> None:
    net = Network(micro)
    for block in net.blocks[:-1]:
        block.requires_grad_(False)
    for factor in (1, 3):
        groups = make_optimizer(net, Recipe(head_lr_factor=factor)).param_groups
        held = [parameter for group in groups for parameter in group["params"]]
        assert {id(p) for p in held} == {id(p) for p in net.blocks[-1].parameters()}
        assert [group["lr_factor"] for group in groups] == [factor] * 2


def test_a_factor_for_the_head_needs_a_classifier() -> None:
    with pytest.raises(ValueError, match=r"head_lr_factor is for a network that ends in a class"):
        make_optimizer(torch.nn.Linear(2, 2), Recipe(head_lr_factor=2))
    assert len(make_optimizer(torch.nn.Linear(2, 2), Recipe()).param_groups) == 2


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "values",
    [
        *({"epochs": value} for value in (0, -1, 1.5, "many", 10**9)),
        *({"batch_size": value} for value in (0, -8, 2.5)),
        *({"lr": value} for value in (0, -0.1, NAN, INFINITY, 101)),
        *({"head_lr_factor": value} for value in (0, -1, NAN, 1001)),
        *({"warmup_epochs": value} for value in (-1, NAN)),
        *({"momentum": value} for value in (-0.1, 1, NAN)),
        *({"weight_decay": value} for value in (-1e-4, NAN, INFINITY)),
        *({"label_smoothing": value} for value in (-0.1, 1, NAN)),
        *({"resolution": value} for value in (0, 7, 4096)),
        *({"clip_norm": value} for value in (0, -1, NAN)),
        *({"ema": value} for value in (0, 1, NAN)),
        *({"amp": value} for value in ("fp16", "on", True)),
        *({"bn_images": value} for value in (0, 1)),
        *({"checkpoint_every": value} for value in (0, -1)),
        *({"validate_every": value} for value in (0, -1)),
        {"learning_rate": 0.1},
    ],
)
def test_bad_value_is_refused_by_name(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValidationError, match=name):
        Recipe(**values)


def test_endless_warmup_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_epochs"):
        Recipe(warmup_epochs=INFINITY)


def test_recipe_cannot_be_changed() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("target", "native", "expected"),
    [
        ("mbv2_tiny", None, 144),  # image files: the architecture's own
        ("mbv2_tiny", 28, 48),  # 1.5 times the stride of 32
        ("mbv2_tiny", 96, 96),
        ("mbv2_tiny", 500, 144),
        ("micro_10k", 28, 28),
        ("micro_10k", 8, 12),  # 1.5 times the stride of 8
    ],
)
def test_proxy_resolution_suits_target_and_images(
    target: str, native: int | None, expected: int
) -> None:
    assert proxy_resolution(load_target(target, 10), native) == expected
