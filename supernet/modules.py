"""Elastic modules, one for each kind of leaf: they own the largest weights and use a slice.

How much to use is an argument of the call (a leaf, see `leaves.py`), never state on the module.
The first channels of a wide weight belong to the smaller network; a smaller kernel is the centre
crop of a larger one (Once-for-All, Cai et al. 2020, without its learned transform).

`sliced(leaf)` names the tensors that a call uses; `Network.export` copies exactly these, which is
why an exported network computes the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasaug.supernet.leaves import (
    ConvLeaf,
    GlobalAvgPoolLeaf,
    Leaf,
    LinearLeaf,
    MaxPoolLeaf,
    SqueezeLeaf,
)

Sliced = dict[str, Tensor]


class ElasticNorm(nn.Module):
    """Batch norm over the first channels.

    Training uses the batch's statistics and leaves the running ones alone, since each sub-network
    has its own: they are estimated after training, on an export. `momentum` is None except while
    that is done (`nasaug.training.reestimate_batch_norm`).
    """

    running_mean: Tensor
    running_var: Tensor
    EPS = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum: float | None = None

    def sliced(self, channels: int) -> Sliced:
        tensors = {
            "weight": self.weight,
            "bias": self.bias,
            "running_mean": self.running_mean,
            "running_var": self.running_var,
        }
        return {name: _first(tensor, channels) for name, tensor in tensors.items()}

    def forward(self, x: Tensor, channels: int) -> Tensor:
        s = self.sliced(channels)
        if self.training and self.momentum is None:
            return F.batch_norm(x, None, None, s["weight"], s["bias"], True, 0.0, self.EPS)
        return F.batch_norm(
            x,
            s["running_mean"],
            s["running_var"],
            s["weight"],
            s["bias"],
            self.training,
            self.momentum or 0.0,
            self.EPS,
        )


class ElasticConv(nn.Module):
    """Convolution, batch norm and activation; dense or depthwise."""

    def __init__(self, leaf: ConvLeaf) -> None:
        super().__init__()
        shape = (leaf.out_channels, leaf.in_channels // leaf.groups, leaf.kernel, leaf.kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(leaf.out_channels)) if leaf.bias else None
        self.norm = ElasticNorm(leaf.out_channels) if leaf.norm else None

    def sliced(self, leaf: ConvLeaf) -> Sliced:
        inputs = leaf.in_channels // leaf.groups
        tensors = {"weight": _conv_slice(self.weight, leaf.out_channels, inputs, leaf.kernel)}
        if self.bias is not None:
            tensors["bias"] = _first(self.bias, leaf.out_channels)
        if self.norm is not None:
            for name, tensor in self.norm.sliced(leaf.out_channels).items():
                tensors[f"norm.{name}"] = tensor
        return tensors

    def forward(self, x: Tensor, leaf: ConvLeaf) -> Tensor:
        inputs = leaf.in_channels // leaf.groups
        weight = _conv_slice(self.weight, leaf.out_channels, inputs, leaf.kernel)
        bias = None if self.bias is None else _first(self.bias, leaf.out_channels)
        x = F.conv2d(x, weight, bias, leaf.stride, leaf.kernel // 2, 1, leaf.groups)
        if self.norm is not None:
            x = self.norm(x, leaf.out_channels)
        return activate(x, leaf.act)


class ElasticSqueeze(nn.Module):
    """Squeeze-and-excitation: x * hard_sigmoid(W2 relu(W1 mean(x)))."""

    def __init__(self, leaf: SqueezeLeaf) -> None:
        super().__init__()
        self.reduce = ElasticConv(_plain(leaf.channels, leaf.squeeze))
        self.restore = ElasticConv(_plain(leaf.squeeze, leaf.channels))

    def sliced(self, leaf: SqueezeLeaf) -> Sliced:
        reduce = self.reduce.sliced(_plain(leaf.channels, leaf.squeeze))
        restore = self.restore.sliced(_plain(leaf.squeeze, leaf.channels))
        return {f"reduce.{name}": t for name, t in reduce.items()} | {
            f"restore.{name}": t for name, t in restore.items()
        }

    def forward(self, x: Tensor, leaf: SqueezeLeaf) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        scale = F.relu(self.reduce(scale, _plain(leaf.channels, leaf.squeeze)))
        scale = self.restore(scale, _plain(leaf.squeeze, leaf.channels))
        return x * F.hardsigmoid(scale)


class ElasticLinear(nn.Module):
    def __init__(self, leaf: LinearLeaf) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(leaf.out_channels, leaf.in_channels))
        self.bias = nn.Parameter(torch.empty(leaf.out_channels))

    def sliced(self, leaf: LinearLeaf) -> Sliced:
        whole = self.weight.shape[1] == leaf.in_channels
        weight = self.weight if whole else self.weight[:, : leaf.in_channels]
        return {"weight": weight, "bias": self.bias}

    def forward(self, x: Tensor, leaf: LinearLeaf) -> Tensor:
        s = self.sliced(leaf)
        return F.linear(x.flatten(1), s["weight"], s["bias"])


class Pool(nn.Module):
    """Max pooling or the global mean; no weights."""

    def sliced(self, leaf: Leaf) -> Sliced:
        return {}

    def forward(self, x: Tensor, leaf: MaxPoolLeaf | GlobalAvgPoolLeaf) -> Tensor:
        if isinstance(leaf, MaxPoolLeaf):
            return F.max_pool2d(x, leaf.kernel, leaf.stride, leaf.kernel // 2)
        return x.mean((2, 3), keepdim=True)


def build(leaf: Leaf) -> nn.Module:
    """The module that owns the weights of `leaf`, uninitialised."""
    if isinstance(leaf, ConvLeaf):
        return ElasticConv(leaf)
    if isinstance(leaf, SqueezeLeaf):
        return ElasticSqueeze(leaf)
    if isinstance(leaf, LinearLeaf):
        return ElasticLinear(leaf)
    return Pool()


def activate(x: Tensor, act: str) -> Tensor:
    if act == "relu6":
        return F.relu6(x, inplace=True)
    if act == "relu":
        return F.relu(x, inplace=True)
    if act == "hardswish":
        return F.hardswish(x)
    return x


def _first(tensor: Tensor, channels: int) -> Tensor:
    return tensor if tensor.shape[0] == channels else tensor[:channels]


def _conv_slice(weight: Tensor, out: int, inputs: int, kernel: int) -> Tensor:
    if weight.shape[0] != out:
        weight = weight[:out]
    if weight.shape[1] != inputs:
        weight = weight[:, :inputs]
    if weight.shape[2] != kernel:
        start = (weight.shape[2] - kernel) // 2
        weight = weight[:, :, start : start + kernel, start : start + kernel]
    return weight


def _plain(inputs: int, outputs: int) -> ConvLeaf:
    return ConvLeaf("conv", inputs, outputs, norm=False, bias=True)
