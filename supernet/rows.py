"""The rows of a network's table, as in the papers' own tables (MobileNetV2, Sandler et al. 2018,
Table 2; MobileNetV3, Howard et al. 2019, Table 1; ResNet, He et al. 2016, Table 1).

A row is a frozen value. `leaves(in_channels)` spells out the primitive operations it stands for;
everything else (modules, slices, costs) is derived from them.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, get_args

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


@dataclass(frozen=True)
class Row:
    """What all rows share. `out_channels` and `leaves` depend on the width that comes in."""

    kind: ClassVar[str]

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        raise NotImplementedError

    def shortcut(self, in_channels: int) -> Leaf | None:
        """The operation on the residual branch; None where it is the identity or absent."""
        return None

    @property
    def residual(self) -> bool:
        """Whether the row's input is added to its output."""
        return False

    @property
    def keeps_shape(self) -> bool:
        """Whether the row is residual over the identity: it can be absent."""
        return self.residual and not getattr(self, "projection", False)

    @property
    def downsampling(self) -> int:
        return getattr(self, "stride", 1)

    def out_channels(self, in_channels: int) -> int:
        return self.leaves(in_channels)[-1].out_channels


@dataclass(frozen=True)
class Boostable(Row):
    """A row with a 1x1 convolution that may be an inverted residual in training (`boosting.py`).

    `boost`: hidden channels for every one that comes in, 0 where it is the plain convolution.
    `slope`: how much of the activations inside is linear, from 0 to 1.

    Raises: ValueError for numbers out of range and for a row that has no such convolution.
    """

    boost: int = field(default=0, kw_only=True)
    slope: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.boost == 0 and self.slope == 0:
            return
        if type(self.boost) is not int or not 0 < self.boost <= 64:
            raise ValueError(f"boost must be an integer from 1 to 64, but got {self.boost!r}")
        if type(self.slope) not in (int, float) or not 0 <= self.slope <= 1:
            raise ValueError(f"slope must be a number from 0 to 1, but got {self.slope!r}")
        if not self.boostable:
            raise ValueError(f"boost needs a 1x1 convolution with a norm or a bias, not {self}")

    @property
    def boostable(self) -> bool:
        return True

    def _pointwise(self, leaf: ConvLeaf, act: Activation) -> Leaf:
        """`leaf`, or what stands for it while it is boosted."""
        if not self.boost:
            return leaf
        return BoostedLeaf(leaf, self.boost, "relu6" if act == "none" else act, self.slope)


@dataclass(frozen=True)
class Conv(Boostable):
    kind = "conv"
    kernel: int
    stride: int
    out: int
    act: Activation
    norm: bool = True
    bias: bool = False

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        leaf = ConvLeaf(
            "conv",
            in_channels,
            self.out,
            self.kernel,
            self.stride,
            act=self.act,
            norm=self.norm,
            bias=self.bias,
        )
        return (self._pointwise(leaf, self.act),)

    @property
    def boostable(self) -> bool:
        """Without a norm or a bias nothing could take up the biases inside."""
        return self.kernel == 1 and (self.norm or self.bias)


@dataclass(frozen=True)
class DepthwiseSeparable(Boostable):
    """Depthwise with activation, squeeze-and-excitation (if `squeeze`), linear 1x1."""

    kind = "depthwise_separable"
    kernel: int
    stride: int
    out: int
    act: Activation
    skip: bool = False
    squeeze: int | None = None

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (
            _depthwise(in_channels, self.kernel, self.stride, self.act),
            *_squeezed(in_channels, self.squeeze),
            self._pointwise(ConvLeaf("project", in_channels, self.out), self.act),
        )

    @property
    def residual(self) -> bool:
        return self.skip


@dataclass(frozen=True)
class InvertedResidual(Boostable):
    """1x1 expansion to `mid`, depthwise, squeeze-and-excitation (if `squeeze`), linear 1x1."""

    kind = "inverted_residual"
    kernel: int
    stride: int
    mid: int
    out: int
    act: Activation
    skip: bool
    squeeze: int | None = None

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (
            self._pointwise(ConvLeaf("expand", in_channels, self.mid, act=self.act), self.act),
            _depthwise(self.mid, self.kernel, self.stride, self.act),
            *_squeezed(self.mid, self.squeeze),
            ConvLeaf("project", self.mid, self.out),
        )

    @property
    def residual(self) -> bool:
        return self.skip


@dataclass(frozen=True)
class Bottleneck(Boostable):
    """ResNet's bottleneck with the stride on the 3x3 (v1.5, as torchvision's resnet50).

    `projection`: the shortcut is a 1x1 convolution, for a block that changes the shape.
    """

    kind = "bottleneck"
    mid: int
    out: int
    stride: int = 1
    projection: bool = False
    kernel: int = 3
    act: Activation = "relu"

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (
            self._pointwise(ConvLeaf("reduce", in_channels, self.mid, act=self.act), self.act),
            ConvLeaf("spatial", self.mid, self.mid, self.kernel, self.stride, act=self.act),
            ConvLeaf("restore", self.mid, self.out),
        )

    def shortcut(self, in_channels: int) -> Leaf | None:
        if not self.projection:
            return None
        return ConvLeaf("shortcut", in_channels, self.out, stride=self.stride)

    @property
    def residual(self) -> bool:
        return True


@dataclass(frozen=True)
class MaxPool(Row):
    kind = "max_pool"
    kernel: int = 3
    stride: int = 2

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (MaxPoolLeaf("pool", in_channels, self.kernel, self.stride),)


@dataclass(frozen=True)
class GlobalAvgPool(Row):
    """Mean over the feature map; what follows sees 1 x 1."""

    kind = "global_avg_pool"

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (GlobalAvgPoolLeaf("pool", in_channels),)


@dataclass(frozen=True)
class Linear(Row):
    kind = "linear"
    out: int

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return (LinearLeaf("linear", in_channels, self.out),)


@dataclass(frozen=True)
class Skip(Row):
    """An absent row: the identity. It keeps members of a space aligned, row by row."""

    kind = "skip"

    def leaves(self, in_channels: int) -> tuple[Leaf, ...]:
        return ()

    def out_channels(self, in_channels: int) -> int:
        return in_channels


# What of a row's weights a smaller row has the first or the middle part of.
NESTED = ("kernel", "mid", "out", "squeeze")
ROW_KINDS: dict[str, type[Row]] = {
    row.kind: row
    for row in (
        Conv,
        DepthwiseSeparable,
        InvertedResidual,
        Bottleneck,
        MaxPool,
        GlobalAvgPool,
        Linear,
        Skip,
    )
}


def row_to_dict(row: Row) -> dict[str, Any]:
    """The row as plain data, defaults left out; the inverse of `row_from_dict`."""
    defaults = {field.name: field.default for field in fields(row)}
    values = {k: v for k, v in asdict(row).items() if v != defaults[k]}
    return {"kind": row.kind, **values}


def row_from_dict(data: dict[str, Any]) -> Row:
    """Raises: ValueError for an unknown kind or key, a missing key, a value of a wrong type."""
    if not isinstance(data, dict):
        raise ValueError(f"a row must be a table with a kind, but got {data!r}")
    values = dict(data)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in ROW_KINDS:
        raise ValueError(f"row kind must be one of {', '.join(ROW_KINDS)}, but got {kind!r}")
    known = {field.name: field for field in fields(ROW_KINDS[kind])}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{kind} has no key {key!r}; it has {', '.join(known) or 'none'}")
        check_value(kind, key, value)
    try:
        return ROW_KINDS[kind](**values)
    except TypeError:
        missing = [k for k, f in known.items() if k not in values and f.default is MISSING]
        raise ValueError(f"{kind} needs {', '.join(missing)}") from None


def check_value(kind: str, key: str, value: object) -> None:
    """Raises: ValueError if a row of `kind` cannot have `value` for `key`."""
    if key == "act":
        allowed = get_args(Activation)
        if value not in allowed:
            raise ValueError(f"{kind}: act must be one of {', '.join(allowed)}, but got {value!r}")
    elif key in ("skip", "norm", "bias", "projection"):
        if not isinstance(value, bool):
            raise ValueError(f"{kind}: {key} must be true or false, but got {value!r}")
    elif key in ("boost", "slope") or (key == "squeeze" and value is None):
        pass  # A row checks the first two itself.
    elif not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 65536:
        raise ValueError(f"{kind}: {key} must be an integer from 1 to 65,536, but got {value!r}")


def _depthwise(channels: int, kernel: int, stride: int, act: Activation) -> ConvLeaf:
    return ConvLeaf("depthwise", channels, channels, kernel, stride, groups=channels, act=act)


def _squeezed(channels: int, squeeze: int | None) -> tuple[SqueezeLeaf, ...]:
    return () if squeeze is None else (SqueezeLeaf("squeeze", channels, squeeze),)
