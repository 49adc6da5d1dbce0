"""A network as plain torch modules, under the names that our weights have.

`Network` is elastic: its batch norms leave running statistics alone while it trains, since every
sub-network has its own. Training programs of others expect `nn.BatchNorm2d`, whose running
statistics move, which can be frozen or synchronised, and layers that they can find by their type.
A network is made so from the same leaves, one module a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nasaug.supernet import Row
from nasaug.supernet.leaves import (
    Activation,
    BoostedLeaf,
    ConvLeaf,
    GlobalAvgPoolLeaf,
    Leaf,
    LinearLeaf,
    MaxPoolLeaf,
    SqueezeLeaf,
)

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


class ConvNormAct(nn.Conv2d):
    """Convolution, batch norm (where the leaf has one), activation."""

    def __init__(self, leaf: ConvLeaf) -> None:
        super().__init__(
            leaf.in_channels,
            leaf.out_channels,
            leaf.kernel,
            leaf.stride,
            leaf.kernel // 2,
            groups=leaf.groups,
            bias=leaf.bias,
        )
        self.norm = nn.BatchNorm2d(leaf.out_channels) if leaf.norm else nn.Identity()
        self.act = ACTIVATIONS[leaf.act]()

    def forward(self, input: Tensor) -> Tensor:
        x: Tensor = self.act(self.norm(super().forward(input)))
        return x


class Squeeze(nn.Module):
    """x * hard_sigmoid(W2 relu(W1 mean(x)))."""

    def __init__(self, leaf: SqueezeLeaf) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(leaf.channels, leaf.squeeze, 1)
        self.act = nn.ReLU()
        self.restore = nn.Conv2d(leaf.squeeze, leaf.channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.reduce(x.mean((2, 3), keepdim=True))
        scale = self.gate(self.restore(self.act(scale)))
        return x * scale


class PlainBlock(nn.Module):
    """One row: its leaves in sequence, and the residual addition.

    Raises: ValueError for a row that is boosted.
    """

    def __init__(self, row: Row, in_channels: int) -> None:
        super().__init__()
        leaves, shortcut = row.leaves(in_channels), row.shortcut(in_channels)
        self.residual = row.residual
        self._leaves = tuple(leaf.name for leaf in leaves)
        self._shortcut = None if shortcut is None else shortcut.name
        self._ends_in_relu = row.kind == "bottleneck"
        for leaf in (*leaves, *(() if shortcut is None else (shortcut,))):
            self.add_module(leaf.name, _module(leaf))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        for name in self._leaves:
            y = getattr(self, name)(y)
        if self.residual:
            y = y + (x if self._shortcut is None else getattr(self, self._shortcut)(x))
            if self._ends_in_relu:
                y = nn.functional.relu(y)
        return y


def plain_blocks(rows: Sequence[Row], in_channels: int) -> nn.ModuleList:
    """A module for each of `rows`; the tensors of row i are named `i.LEAF...`, as in a `Network`.

    Raises: ValueError for a row that is boosted.
    """
    blocks, width = nn.ModuleList(), in_channels
    for row in rows:
        blocks.append(PlainBlock(row, width))
        width = row.out_channels(width)
    return blocks


def _module(leaf: Leaf) -> nn.Module:
    if isinstance(leaf, ConvLeaf):
        return ConvNormAct(leaf)
    if isinstance(leaf, SqueezeLeaf):
        return Squeeze(leaf)
    if isinstance(leaf, LinearLeaf):
        return nn.Linear(leaf.in_channels, leaf.out_channels)
    if isinstance(leaf, MaxPoolLeaf):
        return nn.MaxPool2d(leaf.kernel, leaf.stride, leaf.kernel // 2)
    if isinstance(leaf, GlobalAvgPoolLeaf):
        return nn.AdaptiveAvgPool2d(1)
    assert isinstance(leaf, BoostedLeaf)
    raise ValueError(
        f"{leaf.name} is boosted, which is a network in training; contract it first (see "
        "nasaug.supernet.contract)"
    )
