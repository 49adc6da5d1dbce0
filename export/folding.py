"""A trained network as plain tensors, batch norm folded into the convolution before it (Jacob et
al., CVPR 2018, Section 3.2, Equation 14): w' = w gamma / sigma, b' = beta + (b - mu) gamma / sigma,
with sigma = sqrt(variance + eps) from the running statistics.

Every format is written from this one value, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nasaug.supernet import Architecture, ElasticNorm, Network, is_boosted


@dataclass(frozen=True, eq=False)
class Folded:
    """`tensors`: float32, by the names that they have in a Network of `arch` (canonical) without
    its norms, such as `blocks.3.expand.weight`; every weight has a bias beside it."""

    arch: Architecture
    tensors: Mapping[str, Tensor]


def fold(net: Network, resolution: int | None = None) -> Folded:
    """`net` as it computes in eval mode, for images of `resolution` (None: the architecture's own).

    Raises: ValueError for a backbone, which has no classifier, for a boosted network, which is not
        yet what it will be, and for a resolution that is none.
    """
    if not hasattr(net.blocks[-1], "linear"):
        raise ValueError(
            f"{net.arch.name} is a backbone without a classifier, which cannot be exported; give a "
            "network as nasaug train saves it"
        )
    if is_boosted(net.arch):
        raise ValueError(
            f"{net.arch.name} is boosted: its convolutions are still inverted residuals; train it "
            "to its end, or contract() it"
        )
    static = net.export()
    arch = static.arch if resolution is None else replace(static.arch, resolution=resolution)
    state = {name: tensor.detach().cpu().double() for name, tensor in static.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for name, weight in state.items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and not layer.endswith(".norm"):
            bias = state.get(f"{layer}.bias", weight.new_zeros(len(weight)))
            if f"{layer}.norm.weight" in state:
                weight, bias = _without_norm(weight, bias, state, f"{layer}.norm")
            tensors[f"{layer}.weight"] = weight.float().contiguous()
            tensors[f"{layer}.bias"] = bias.float()
    return Folded(arch, tensors)


def _without_norm(
    weight: Tensor, bias: Tensor, state: Mapping[str, Tensor], norm: str
) -> tuple[Tensor, Tensor]:
    """weight (out, in, k, k) and bias (out,) of what the convolution and its norm do together."""
    gamma, beta = state[f"{norm}.weight"], state[f"{norm}.bias"]
    gain = gamma / torch.sqrt(state[f"{norm}.running_var"] + ElasticNorm.EPS)
    return weight * gain[:, None, None, None], beta + (bias - state[f"{norm}.running_mean"]) * gain
