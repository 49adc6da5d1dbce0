"""The primitive operations a row is made of, as values.

One description serves three readers: the network builds its modules from it, the elastic forward
pass reads from it how much of each weight to use, and the costs are computed from it. So the
three cannot disagree. Costs are per image (batch 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

Activation = Literal["none", "relu", "relu6", "hardswish"]


@dataclass(frozen=True)
class ConvLeaf:
    """Convolution, then batch norm (if `norm`), then `act`; zero padding of half the kernel.

    `own_norm`: the batch norm is the one that the target has for itself (see `separate_norms`).
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: Activation = "none"
    norm: bool = True
    bias: bool = False
    own_norm: bool = False

    def out_size(self, size: int) -> int:
        return (size - 1) // self.stride + 1

    def macs(self, size: int) -> int:
        return self.out_size(size) ** 2 * self.weights

    @property
    def params(self) -> int:
        return self.weights + 2 * self.out_channels * self.norm + self.out_channels * self.bias

    @property
    def weights(self) -> int:
        return self.kernel**2 * (self.in_channels // self.groups) * self.out_channels


@dataclass(frozen=True)
class BoostedLeaf:
    """A 1x1 convolution that is an inverted residual while it trains (see `boosting.py`).

    `parts`: 1x1 to `ratio` times the channels, norm, `act`; depthwise of kernel 1, norm, `act`; 1x1
    to the channels of `conv`, then the norm and activation that `conv` has anyway. Where the shape
    stays (`shortcut`), the input is added before that norm, so that all of it can become `conv`.
    `slope` is how much of the two activations is linear, from 0 to 1.
    """

    conv: ConvLeaf
    ratio: int
    act: Activation
    slope: float = 0.0

    @property
    def name(self) -> str:
        return self.conv.name

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels

    @cached_property
    def parts(self) -> tuple[ConvLeaf, ConvLeaf, ConvLeaf]:
        """widen, mix, project; the two activations in between are not theirs."""
        hidden = self.ratio * self.conv.in_channels
        return (
            ConvLeaf("widen", self.conv.in_channels, hidden, stride=self.conv.stride),
            ConvLeaf("mix", hidden, hidden, groups=hidden),
            replace(self.conv, name="project", in_channels=hidden, stride=1),
        )

    @property
    def shortcut(self) -> bool:
        return self.conv.stride == 1 and self.conv.in_channels == self.conv.out_channels

    def out_size(self, size: int) -> int:
        return self.conv.out_size(size)

    def macs(self, size: int) -> int:
        widen, mix, project = self.parts
        inner = self.out_size(size)
        return widen.macs(size) + mix.macs(inner) + project.macs(inner)

    @property
    def params(self) -> int:
        return sum(part.params for part in self.parts)


@dataclass(frozen=True)
class SqueezeLeaf:
    """Squeeze-and-excitation as in MobileNetV3: mean, 1x1, ReLU, 1x1, hard sigmoid, scale."""

    name: str
    channels: int
    squeeze: int

    @property
    def out_channels(self) -> int:
        return self.channels

    def out_size(self, size: int) -> int:
        return size

    def macs(self, size: int) -> int:
        return 2 * self.channels * self.squeeze

    @property
    def params(self) -> int:
        return 2 * self.channels * self.squeeze + self.channels + self.squeeze


@dataclass(frozen=True)
class MaxPoolLeaf:
    name: str
    out_channels: int
    kernel: int
    stride: int

    def out_size(self, size: int) -> int:
        return (size - 1) // self.stride + 1

    def macs(self, size: int) -> int:
        return 0

    params = 0


@dataclass(frozen=True)
class GlobalAvgPoolLeaf:
    name: str
    out_channels: int

    def out_size(self, size: int) -> int:
        return 1

    def macs(self, size: int) -> int:
        return 0

    params = 0


@dataclass(frozen=True)
class LinearLeaf:
    name: str
    in_channels: int
    out_channels: int

    def out_size(self, size: int) -> int:
        return 1

    def macs(self, size: int) -> int:
        return self.in_channels * self.out_channels

    @property
    def params(self) -> int:
        return (self.in_channels + 1) * self.out_channels


Leaf = ConvLeaf | BoostedLeaf | SqueezeLeaf | MaxPoolLeaf | GlobalAvgPoolLeaf | LinearLeaf
