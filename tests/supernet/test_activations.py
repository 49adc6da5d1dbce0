"""ReLU6 that keeps its result alone: PyTorch's values and gradients, and half of its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import Architecture, Conv, GlobalAvgPool, Linear, Network
from nasaug.supernet.activations import activate, clipped, linearised

EDGES = [-1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.0000005, 7.0, float("inf"), -float("inf")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_pytorch(dtype: torch.dtype) -> None:
    values = torch.cat([torch.tensor(EDGES), torch.randn(500) * 4]).to(dtype)
    upstream = torch.randn(len(values)).to(dtype)
    found = []
    for function in (clipped, F.relu6):
        x = values.clone().requires_grad_()
        y = function(x * 1)
        (gradient,) = torch.autograd.grad(y, x, upstream)
        found.append((y.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_what_is_no_number_stays_none() -> None:
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    y = clipped(x * 1)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert y.isnan().tolist() == [True, False]


def test_gradients_of_gradients() -> None:
    x = torch.randn(30, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(lambda t: clipped(t * t * 8), (x,))


def test_it_is_in_place_with_and_without_gradients() -> None:
    for training in (True, False):
        with torch.set_grad_enabled(training):
            x = torch.randn(9)
            assert activate(x, "relu6").data_ptr() == x.data_ptr()


def test_a_slope_of_one_half_is_the_mean_of_both() -> None:
    x = torch.randn(50) * 5
    expected = (x + F.relu6(x)) / 2
    torch.testing.assert_close(linearised(x.clone(), "relu6", 0.5), expected)


@pytest.mark.parametrize("act", ["relu", "relu6"])
def test_a_layer_keeps_two_tensors_for_its_gradients(act: Any) -> None:
    """What its norm reads and what it gives: the image aside, four for two layers."""
    layers = (Conv(3, 1, 8, act), Conv(3, 1, 8, act), GlobalAvgPool(), Linear(3))
    net = Network(Architecture(layers, 16, name="two")).train()
    images, kept = torch.randn(2, 3, 16, 16), set()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.shape == (2, 8, 16, 16):
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(images).sum()
    assert len(kept) == 4
    loss.backward()
