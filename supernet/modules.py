"""Elastic modules, one for each kind of leaf: they own the largest weights and use a slice.

How much to use is an argument of the call (a leaf, see `leaves.py`), never state on the module.
The first channels of a wide weight belong to the smaller network; a smaller kernel is the centre
crop of a larger one, through a learned transform where there is one (Once-for-All, Cai et al.,
ICLR 2020, Section 3.3).

`sliced(leaf)` names the tensors that a call uses; `Network.export` copies exactly these, which is
why an exported network computes the same numbers.

`bits` on a module, None at first, is how finely it rounds while it trains (`Network.round_to`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasaug.supernet.activations import activate, linearised
from nasaug.supernet.cuts import Index, part_of
from nasaug.supernet.leaves import (
    BoostedLeaf,
    ConvLeaf,
    GlobalAvgPoolLeaf,
    Leaf,
    LinearLeaf,
    MaxPoolLeaf,
    SqueezeLeaf,
)
from nasaug.supernet.norms import ElasticNorm, Sliced, first_channels
from nasaug.supernet.quantised import Bits, rounded_activation, rounded_weight

ALL = slice(None)


class ElasticConv(nn.Module):
    """Convolution, batch norm and activation; dense or depthwise."""

    bits: Bits | None = None

    def __init__(self, leaf: ConvLeaf) -> None:
        super().__init__()
        shape = (leaf.out_channels, leaf.in_channels // leaf.groups, leaf.kernel, leaf.kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(leaf.out_channels)) if leaf.bias else None
        self.norm = ElasticNorm(leaf.out_channels) if leaf.norm else None
        self.own_norm: ElasticNorm | None = None
        self.transforms = nn.ParameterDict()
        self._depthwise = leaf.groups > 1

    def learn_transforms(self) -> None:
        """Have every smaller kernel of a depthwise convolution made from the next larger one by a
        matrix of its own, the same for all channels, which is the identity at first."""
        smaller = range(self.weight.shape[2] - 2, 1, -2) if self._depthwise else ()
        for kernel in smaller:
            matrix = torch.eye(kernel**2, dtype=self.weight.dtype, device=self.weight.device)
            self.transforms[str(kernel)] = nn.Parameter(matrix)

    def _weight(self, leaf: ConvLeaf) -> Tensor:
        first = _first(self.weight, leaf.out_channels, leaf.in_channels // leaf.groups)
        if not self.transforms:
            return part_of(self.weight, _centre(self.weight, leaf.kernel, first))
        weight = part_of(self.weight, first)
        for kernel in range(weight.shape[2] - 2, leaf.kernel - 1, -2):
            crop = weight[_centre(weight, kernel)]
            weight = F.linear(crop.flatten(2), self.transforms[str(kernel)]).view_as(crop)
        return weight

    def _norm(self, leaf: ConvLeaf) -> ElasticNorm | None:
        return self.own_norm if leaf.own_norm else self.norm

    def sliced(self, leaf: ConvLeaf) -> Sliced:
        tensors = {"weight": self._weight(leaf)}
        if self.bias is not None:
            tensors["bias"] = first_channels(self.bias, leaf.out_channels)
        if (norm := self._norm(leaf)) is not None:
            for name, tensor in norm.sliced(leaf.out_channels).items():
                tensors[f"norm.{name}"] = tensor
        return tensors

    def forward(self, x: Tensor, leaf: ConvLeaf, plus: Tensor | None = None) -> Tensor:
        """`plus` is added between the convolution and its norm."""
        bias = None if self.bias is None else first_channels(self.bias, leaf.out_channels)
        x, weight = _rounded(x, self._weight(leaf), self.bits)
        x = F.conv2d(x, weight, bias, leaf.stride, leaf.kernel // 2, 1, leaf.groups)
        if plus is not None:
            x = x + plus
        if (norm := self._norm(leaf)) is not None:
            x = norm(x, leaf.out_channels)
        x = activate(x, leaf.act)
        return x if self.bits is None else rounded_activation(x, self.bits.activations)


class ElasticBoosted(nn.Module):
    """What a 1x1 convolution is while it is boosted: widen, mix, project."""

    def __init__(self, leaf: BoostedLeaf) -> None:
        super().__init__()
        widen, mix, project = leaf.parts
        self.widen = ElasticConv(widen)
        self.mix = ElasticConv(mix)
        self.project = ElasticConv(project)

    def sliced(self, leaf: BoostedLeaf) -> Sliced:
        return {
            f"{part.name}.{name}": tensor
            for part in leaf.parts
            for name, tensor in getattr(self, part.name).sliced(part).items()
        }

    def forward(self, x: Tensor, leaf: BoostedLeaf) -> Tensor:
        widen, mix, project = leaf.parts
        y = linearised(self.widen(x, widen), leaf.act, leaf.slope)
        y = linearised(self.mix(y, mix), leaf.act, leaf.slope)
        return self.project(y, project, plus=x if leaf.shortcut else None)  # type: ignore[no-any-return]


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
    bits: Bits | None = None

    def __init__(self, leaf: LinearLeaf) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(leaf.out_channels, leaf.in_channels))
        self.bias = nn.Parameter(torch.empty(leaf.out_channels))

    def sliced(self, leaf: LinearLeaf) -> Sliced:
        whole = self.weight.shape[1] == leaf.in_channels
        index = () if whole else (ALL, slice(leaf.in_channels))
        return {"weight": part_of(self.weight, index), "bias": part_of(self.bias, ())}

    def forward(self, x: Tensor, leaf: LinearLeaf) -> Tensor:
        s = self.sliced(leaf)
        x, weight = _rounded(x.flatten(1), s["weight"], self.bits)
        return F.linear(x, weight, s["bias"])


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
    if isinstance(leaf, BoostedLeaf):
        return ElasticBoosted(leaf)
    if isinstance(leaf, SqueezeLeaf):
        return ElasticSqueeze(leaf)
    if isinstance(leaf, LinearLeaf):
        return ElasticLinear(leaf)
    return Pool()


def _rounded(x: Tensor, weight: Tensor, bits: Bits | None) -> tuple[Tensor, Tensor]:
    if bits is None:
        return x, weight
    return rounded_activation(x, bits.activations), rounded_weight(weight, bits.weights)


def _first(weight: Tensor, out: int, inputs: int) -> Index:
    if weight.shape[:2] == (out, inputs):
        return ()
    return (slice(out), slice(inputs))


def _centre(weight: Tensor, kernel: int, first: Index = ()) -> Index:
    """The centre of a kernel, of the channels in `first`."""
    if weight.shape[2] == kernel:
        return first
    start = (weight.shape[2] - kernel) // 2
    square = slice(start, start + kernel)
    return (*(first or (ALL, ALL)), square, square)


def _plain(inputs: int, outputs: int) -> ConvLeaf:
    return ConvLeaf("conv", inputs, outputs, norm=False, bias=True)
