"""Networks from the weights of torchvision's MobileNetV2 (`mobilenet_v2`, any `width_mult`; Sandler
et al., CVPR 2018) and MobileNetV3 (`mobilenet_v3_large`, `mobilenet_v3_small`; Howard et al., ICCV
2019).

A state dict says every width, kernel and squeeze; strides and activations are those of the papers'
tables (V2's Table 2, V3's Tables 1 and 2), which a state dict does not hold. A network that
torchvision was told to build with other strides, or dilated, cannot be told from the plain one.

torchvision's MobileNetV3 adds 0.001 to the variances of its batch norms, ours adds 0.00001. The
difference goes into the running variances: v' + 0.00001 = v + 0.001, so that the logits are equal.
Statistics that are taken anew, by training or re-estimation, no longer have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.leaves import Activation
from nasaug.supernet.names import did_you_mean
from nasaug.supernet.network import Network
from nasaug.supernet.norms import ElasticNorm
from nasaug.supernet.published import fill
from nasaug.supernet.rows import (
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Row,
)
from nasaug.supernet.targets import load_target

Tensors = dict[str, Tensor]
PLACE = re.compile(r"features\.\d+\..+|classifier\.\d+")


@dataclass(frozen=True)
class Family:
    """What a state dict does not say: every block's stride and activation, that of the ends, the
    names of the linear layers (the last is the classifier), and what is added to variances. `ours`
    is what our targets of it are called."""

    ours: str
    strides: tuple[int, ...]
    acts: tuple[Activation, ...]
    ends: Activation
    linear: tuple[str, ...]
    eps: float


@dataclass(frozen=True)
class Unit:
    """A convolution by its place in torchvision's network, with its batch norm where it has one."""

    place: str
    conv: Tensors
    norm: Tensors | None

    @property
    def weight(self) -> Tensor:
        return self.conv["weight"]

    @property
    def out(self) -> int:
        return self.weight.shape[0]


FAMILIES: dict[str, Family] = {
    "mobilenet_v2": Family(
        ours="mbv2",
        strides=(1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1),
        acts=("relu6",) * 17,
        ends="relu6",
        linear=("classifier.1",),
        eps=1e-5,
    ),
    "mobilenet_v3_large": Family(
        ours="mbv3",
        strides=(1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1),
        acts=("relu",) * 6 + ("hardswish",) * 9,
        ends="hardswish",
        linear=("classifier.0", "classifier.3"),
        eps=1e-3,
    ),
    "mobilenet_v3_small": Family(
        ours="mbv3_small",
        strides=(2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1),
        acts=("relu",) * 3 + ("hardswish",) * 8,
        ends="hardswish",
        linear=("classifier.0", "classifier.3"),
        eps=1e-3,
    ),
}
WIDTHS = range(5, 401, 5)
"""Of `load_target`'s scalable names, hundredths, in the steps that people use."""


def torchvision_networks() -> tuple[str, ...]:
    """The names of torchvision's networks whose weights can be read."""
    return tuple(FAMILIES)


def load_torchvision(state_dict: Mapping[str, Any], name: str, resolution: int = 224) -> Network:
    """The network of a state dict of torchvision's `name` (see `FAMILIES`), in eval mode.

    Its architecture is for images of `resolution` pixels. It has the name of the target of ours
    that it is (such as mbv2_w100), or else torchvision's.

    Raises: ValueError for an unknown name, and for tensors that are not of such a network.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown network of torchvision {name!r}: {did_you_mean(name, FAMILIES)}")
    family = FAMILIES[name]
    features, linear = _parts(state_dict, name, family)
    rows: list[Row] = []
    found: Tensors = {}

    def add(row: Row, units: Mapping[str, Unit]) -> None:
        for leaf, unit in units.items():
            found.update(_named(f"blocks.{len(rows)}.{leaf}", unit, family.eps))
        rows.append(row)

    stem, *blocks, head = features
    add(_end(stem, 2, family.ends, name), {"conv": stem[0]})
    width = stem[0].out
    for units, stride, act in zip(blocks, family.strides, family.acts, strict=True):
        row, leaves = _block(units, stride, act, width, name)
        add(row, leaves)
        width = leaves["project"].out
    add(_end(head, 1, family.ends, name), {"conv": head[0]})
    rows.append(GlobalAvgPool())
    *hidden, classifier = linear
    for tensors in hidden:
        weight = tensors["weight"][:, :, None, None]  # a linear layer is a 1x1 convolution of 1 x 1
        row = Conv(1, 1, len(weight), family.ends, norm=False, bias=True)
        add(row, {"conv": Unit("", {**tensors, "weight": weight}, None)})
    found |= {f"blocks.{len(rows)}.linear.{key}": value for key, value in classifier.items()}
    rows.append(Linear(len(classifier["weight"])))
    arch = Architecture(tuple(rows), resolution, stem[0].weight.shape[1], name)
    arch = Architecture.from_dict(arch.to_dict())  # which checks every number
    return fill(Network(_recognised(arch, family.ours), init=None), found)


def _recognised(arch: Architecture, ours: str) -> Architecture:
    """`arch` by the name of the target of ours that it is, if it is one."""
    for width in WIDTHS:
        named = f"{ours}_w{width:03}"
        if load_target(named, arch.num_classes, arch.resolution, arch.in_channels) == arch:
            return replace(arch, name=named)
    return arch


def _parts(
    state_dict: Mapping[str, Any], name: str, family: Family
) -> tuple[list[list[Unit]], list[Tensors]]:
    """The convolutions of every feature (stem, blocks, head), and the linear layers.

    Raises: ValueError.
    """
    modules: dict[str, Tensors] = {}
    by_name = {str(key): value for key, value in state_dict.items()}
    for key in sorted(by_name, key=_in_order):
        value = by_name[key]
        place, _, last = key.rpartition(".")
        if not isinstance(value, Tensor) or not PLACE.fullmatch(place):
            raise ValueError(
                f"{key!r} is not a tensor of torchvision's {name} (features.N..., classifier.N...)"
            )
        if last != "num_batches_tracked":
            modules.setdefault(place, {})[last] = value
    linear = [place for place in modules if place.startswith("classifier.")]
    convolutions = [place for place in modules if place.startswith("features.")]
    numbers = sorted({int(place.split(".")[1]) for place in convolutions})
    expected = len(family.strides) + 2
    if linear != list(family.linear) or numbers != list(range(expected)):
        raise ValueError(
            f"the weights are not of torchvision's {name}: it has {expected} features and the "
            f"linear layers {', '.join(family.linear)}, they have {len(numbers)} and "
            f"{', '.join(linear) or 'none'}"
        )
    for place in linear:
        if {key: tensor.ndim for key, tensor in modules[place].items()} != {"bias": 1, "weight": 2}:
            raise ValueError(f"{place} is not a linear layer with a bias")
    features: list[list[Unit]] = [[] for _ in numbers]
    for place in convolutions:
        units, tensors = features[int(place.split(".")[1])], modules[place]
        if "running_mean" in tensors and units and units[-1].norm is None:
            units[-1] = Unit(units[-1].place, units[-1].conv, tensors)
        elif "weight" in tensors and tensors["weight"].ndim == 4:
            units.append(Unit(place, tensors, None))
        else:
            raise ValueError(f"{place} is neither a convolution nor the batch norm of one")
    return features, [modules[place] for place in linear]


def _block(
    units: Sequence[Unit], stride: int, act: Activation, width: int, name: str
) -> tuple[Row, dict[str, Unit]]:
    """A block's row, and its convolutions by the names of the row's leaves. Raises: ValueError."""
    leaves = SHAPES.get(len(units))
    if leaves is None:
        raise ValueError(
            f"the weights are not of torchvision's {name}: a block at "
            f"{units[0].place if units else 'features'} has {len(units)} convolutions, not one of "
            f"{', '.join(map(str, SHAPES))}"
        )
    named = dict(zip(leaves, units, strict=True))
    depthwise, out = named["depthwise"], named["project"].out
    kernel, skip = depthwise.weight.shape[-1], stride == 1 and width == out
    squeeze = named["squeeze.reduce"].out if "squeeze.reduce" in named else None
    if "expand" not in named:
        return DepthwiseSeparable(kernel, stride, out, act, skip, squeeze), named
    row = InvertedResidual(kernel, stride, depthwise.out, out, act, skip, squeeze)
    return row, named


def _end(units: Sequence[Unit], stride: int, act: Activation, name: str) -> Row:
    """The stem, or the last convolution. Raises: ValueError."""
    if len(units) != 1:
        raise ValueError(
            f"the weights are not of torchvision's {name}: its first and its last feature are one "
            f"convolution each, but here is one of {len(units)}"
        )
    return Conv(units[0].weight.shape[-1], stride, units[0].out, act)


def _named(ours: str, unit: Unit, eps: float) -> Tensors:
    """A convolution's tensors by our names, its variances for our batch norm."""
    tensors = {f"{ours}.{key}": value for key, value in unit.conv.items()}
    for key, value in (unit.norm or {}).items():
        if key == "running_var":
            value = (value.double() + (eps - ElasticNorm.EPS)).to(value.dtype)
        tensors[f"{ours}.norm.{key}"] = value
    return tensors


def _in_order(key: str) -> list[tuple[bool, int, str]]:
    """Numbers in a name by value, so that features.10 comes after features.9."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in key.split(".")
    ]


SHAPES: dict[int, tuple[str, ...]] = {
    2: ("depthwise", "project"),
    3: ("expand", "depthwise", "project"),
    4: ("depthwise", "squeeze.reduce", "squeeze.restore", "project"),
    5: ("expand", "depthwise", "squeeze.reduce", "squeeze.restore", "project"),
}
"""The convolutions of a block by their number."""
