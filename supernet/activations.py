"""Activations, in place where that costs no copy: what is between two layers is kept once.

The gradient of ReLU6 needs no more than its result. PyTorch's own in-place ReLU6 copies its input
for it all the same, so that every activation is in memory twice; here it is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def activate(x: Tensor, act: str) -> Tensor:
    """`x` may be written over."""
    if act == "relu6":
        return clipped(x) if torch.is_grad_enabled() else F.relu6(x, inplace=True)
    if act == "relu":
        return F.relu(x, inplace=True)
    if act == "hardswish":
        return F.hardswish(x)
    return x


def linearised(x: Tensor, act: str, slope: float) -> Tensor:
    """slope x + (1 - slope) act(x)."""
    if slope == 0:
        return activate(x, act)
    if slope == 1:
        return x
    return torch.lerp(activate(x.clone(), act), x, slope)


def clipped(x: Tensor) -> Tensor:
    """ReLU6 in place, with PyTorch's gradients, bit for bit."""
    result: Tensor = _ReLU6.apply(x)
    return result


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        # Where x is not within the bounds the result is on one of them.
        return torch.ops.aten.hardtanh_backward(gradients[0], result, 0, 6)  # type: ignore[no-any-return]
