"""Numbers rounded as an int8 network rounds them, while all is still float: fake quantisation
(Jacob et al., CVPR 2018, Section 3).

Weights are symmetric, with a scale for every output channel; activations are affine, with one scale
a tensor, over the range that the batch has. Gradients pass as if nothing were rounded. Batch norm
stays outside of it: folded into the weights later, it multiplies whole output channels, and so only
their scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bits:
    """How finely numbers are rounded, 2 to 8 bits each.

    Raises: ValueError for others.
    """

    weights: int = 8
    activations: int = 8

    def __post_init__(self) -> None:
        for what, bits in vars(self).items():
            if not 2 <= bits <= 8:
                raise ValueError(f"{what} must have 2 to 8 bits, but got {bits}")


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """weight (out, ...) -> the same shape, of 2^bits - 1 values a channel, zero among them."""
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        largest = weight.detach().flatten(1).abs().amax(1)
        scale = (largest / most).clamp_min(torch.finfo(torch.float32).tiny).float()
        zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most)


def rounded_activation(x: Tensor, bits: int) -> Tensor:
    """x of any shape -> the same, of 2^bits values over the range of x, zero among them."""
    most = 2**bits - 1
    with torch.no_grad():
        low, high = torch.aminmax(x.detach())
        low, high = low.clamp_max(0).float(), high.clamp_min(0).float()
        scale = ((high - low) / most).clamp_min(torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().clamp(0, most).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, most)
