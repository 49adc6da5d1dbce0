"""Distillation against the formula written out, its gradients, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasaug.training import certainty, distillation


def _softmax(row: np.ndarray) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def _by_hand(
    student: np.ndarray, teacher: np.ndarray, temperature: float, weights: list[float] | None
) -> float:
    """The mean over images of w T^2 sum over classes of p log(p / q)."""
    total = 0.0
    for index in range(len(student)):
        p, q = _softmax(teacher[index] / temperature), _softmax(student[index] / temperature)
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += (1 if weights is None else weights[index]) * temperature**2 * divergence
    return total / len(student)


@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 6),
    classes=st.integers(1, 8),
    temperature=st.floats(0.5, 20),
    weighted=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_distillation_is_the_formula(
    seed: int, images: int, classes: int, temperature: float, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = 3 * rng.normal(size=(2, images, classes))
    weights = rng.uniform(0, 2, images).tolist() if weighted else None
    found = distillation(
        torch.tensor(student),
        torch.tensor(teacher),
        temperature,
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )
    assert found.dtype == torch.float64
    expected = _by_hand(student, teacher, temperature, weights)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradients_are_those_of_the_loss(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(5, generator=generator, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (logits, teacher, weights)]
    assert torch.autograd.gradcheck(
        lambda s, t, w: distillation(s, t, temperature, w), inputs, atol=1e-8
    )


def test_gradient_keeps_its_size_when_it_gets_warmer() -> None:
    """Section 2.1: when hot it is (s - t) / (N classes), logits centred."""
    generator = torch.Generator().manual_seed(1)
    logits, teacher = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    distillation(logits, teacher, 1e4).backward()
    centred = [x.detach() - x.detach().mean(1, keepdim=True) for x in (logits, teacher)]
    torch.testing.assert_close(logits.grad, (centred[0] - centred[1]) / (3 * 4), rtol=1e-3, atol=0)


def test_distillation_is_nothing_between_equal_predictions() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    # Softmax does not see a constant.
    loss = distillation(logits, logits.detach() + 3, 2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(4, 5), rtol=0, atol=1e-6)


def test_distillation_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[3e4, -3e4], [0.0, 0.0]]).requires_grad_()
    teacher = torch.tensor([[-3e4, 3e4], [3e4, -3e4]])
    loss = distillation(logits, teacher)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((6e4 + math.log(2)) / 2)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5], [-0.25, 0.25]]))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precision_is_float32_at_least_under_autocast_too(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, teacher = torch.randn(2, 6, 10, generator=generator, dtype=torch.float64).to(dtype)
    plain = distillation(logits, teacher, 2.0), certainty(logits)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distillation(logits, teacher, 2.0), certainty(logits)
    for value, again in zip(plain, inside, strict=True):
        assert value.dtype == again.dtype == expected
        assert torch.equal(value, again)
    wide = distillation(logits.double(), teacher.double(), 2.0)
    torch.testing.assert_close(plain[0].double(), wide, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 3), (4, 2)), ((4, 3), (1, 3)), ((4, 3), (4, 1)), ((3,), (3,))]
)
def test_shapes_that_would_broadcast_are_refused(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"logits \(N, classes\) of equal shapes") as error:
        distillation(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


def test_weights_are_one_an_image() -> None:
    with pytest.raises(ValueError, match=r"one number an image, \(4,\), but got \(4, 1\)"):
        distillation(torch.zeros(4, 3), torch.zeros(4, 3), 1.0, torch.ones(4, 1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and finite, but got {temperature}"):
        distillation(torch.zeros(4, 3), torch.zeros(4, 3), temperature)


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 9), scale=st.floats(0, 50))
@settings(max_examples=100, deadline=None)
def test_certainty_is_one_minus_the_relative_entropy(seed: int, classes: int, scale: float) -> None:
    logits = scale * np.random.default_rng(seed).normal(size=(3, classes))
    expected = []
    for row in logits:
        entropy = -sum(p * math.log(p) for p in _softmax(row) if p > 0)
        expected.append(1 - entropy / math.log(classes))
    found = certainty(torch.tensor(logits))
    assert found.shape == (3,)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_certainty_of_the_two_extremes() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [1e4, 0.0, 0.0, 0.0]]).requires_grad_()
    found = certainty(logits)
    assert found.tolist() == pytest.approx([0, 1], abs=1e-6)
    assert not found.requires_grad


def test_certainty_needs_two_classes() -> None:
    with pytest.raises(ValueError, match=r"at least two classes, but the logits have 1"):
        certainty(torch.zeros(3, 1))


def test_certain_images_count_more() -> None:
    """NetDistiller's weighting, put together: each image's divergence times its certainty."""
    generator = torch.Generator().manual_seed(4)
    logits, teacher = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    teacher[0] = 0
    each = [distillation(s[None], t[None], 2.0) for s, t in zip(logits, teacher, strict=True)]
    weights = certainty(teacher)
    found: Tensor = distillation(logits, teacher, 2.0, weights)
    assert float(weights[0]) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(found, (torch.stack(each) * weights).mean())
