"""The primitive operations a row is made of, as values.

One description serves three readers: the network builds its modules from it, the elastic forward
pass reads from it how much of each weight to use, and the costs are computed from it. So the
three cannot disagree. Costs are per image (batch 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["none", "relu", "relu6", "hardswish"]


@dataclass(frozen=True)
class ConvLeaf:
    """Convolution, then batch norm (if `norm`), then `act`; zero padding of half the kernel."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: Activation = "none"
    norm: bool = True
    bias: bool = False

    def out_size(self, size: int) -> int:
        return (size - 1) // self.stride + 1

    def macs(self, size: int) -> int:
        return self.out_size(size) ** 2 * self._weights

    @property
    def params(self) -> int:
        return self._weights + 2 * self.out_channels * self.norm + self.out_channels * self.bias

    @property
    def _weights(self) -> int:
        return self.kernel**2 * (self.in_channels // self.groups) * self.out_channels


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


Leaf = ConvLeaf | SqueezeLeaf | MaxPoolLeaf | GlobalAvgPoolLeaf | LinearLeaf
