"""The named tiny networks, as tables.

The five published NetAug targets (Cai et al., ICLR 2022, Table 1), any other width of the three
scalable ones (`mbv2_w050`) and of MobileNetV3-Small, four micro networks for 28 to 32 pixel images,
and ResNet-50, the large counter-example. Widths are rounded to multiples of 8; which blocks are
residual is settled at full width, as in the authors' code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from nasaug.supernet.architecture import Architecture, check_classes
from nasaug.supernet.channels import round_channels, squeeze_width
from nasaug.supernet.leaves import Activation
from nasaug.supernet.names import did_you_mean
from nasaug.supernet.notation import read_table
from nasaug.supernet.rows import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Row,
)

TAIL = (GlobalAvgPool(), Linear(1000))
Block = tuple[int, int, int, bool, Activation, int]
"""Of MobileNetV3's tables: kernel, inner width, width, whether it squeezes, activation, stride."""


def load_target(
    name: str | Path,
    num_classes: int = 1000,
    resolution: int | None = None,
    in_channels: int | None = None,
) -> Architecture:
    """A named target, the user's own from a YAML table (a path that ends in .yaml or .yml), or what
    a search down found (its folder, or the best.json in it).

    `resolution` and `in_channels` (1 or 3) replace the target's own where given.

    Raises: ValueError for an unknown name (the nearest is offered), a table or a result that is
        wrong, or a result that is a network to train a target in; FileNotFoundError.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        arch = read_table(Path(text), "target", Architecture.from_dict)
    elif text.endswith(".json"):
        arch = _found(Path(text))
    elif text not in TARGETS and os.path.isdir(text):
        arch = _found(Path(text, "best.json"))
    else:
        arch = _named(text)
    check_classes(num_classes)
    arch = arch.with_classes(num_classes)
    if resolution is not None:
        arch = replace(arch, resolution=resolution)
    if in_channels is not None:
        arch = replace(arch, in_channels=in_channels)
    return arch


@dataclass(frozen=True)
class Factors:
    """NetAug's factors on widths and on expand ratios, 1 among them."""

    width: tuple[float, ...]
    expand: tuple[float, ...]


def published_factors(name: str) -> Factors:
    """The authors' factors for a target; those of mbv2_tiny where none were published."""
    family = name.partition("_")[0]
    return Factors(PUBLISHED_WIDTHS.get(family, (1.0, 1.8, 2.6)), (1.0, 1.6, 2.2, 2.8))


def target_names() -> tuple[str, ...]:
    """The names that stand in tables; those of `SCALABLE` with a width, mbv2_w050, also work."""
    return tuple(TARGETS)


def _found(path: Path) -> Architecture:
    """The network in a search's best.json. Raises: as `load_target`."""
    if path.name == "best.json" and path.parent.is_dir() and not path.exists():
        raise ValueError(
            f"{path.parent} holds no search's result: there is no best.json; name the folder of a "
            "finished nasaug search --direction down"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not isinstance(data.get("architecture"), dict):
            raise ValueError("it has no architecture")
        arch = Architecture.from_dict(data["architecture"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a search's result: {error}") from None
    if data.get("direction") != "down":
        raise ValueError(
            f"{path} is a network to train {data.get('target', 'a target')} in, not a target; "
            "name that target, and this file by --largest"
        )
    return arch


def _named(name: str) -> Architecture:
    if name in TARGETS:
        return replace(TARGETS[name](), name=name)
    scaled = re.fullmatch(rf"({'|'.join(SCALABLE)})_w(\d{{3}})", name)
    if scaled and 5 <= int(scaled[2]) <= 400:
        width = Fraction(int(scaled[2]), 100)
        return Architecture(SCALABLE[scaled[1]](width), 224, name=name)
    if scaled:
        raise ValueError(f"the width in {name!r} must be from 005 to 400 (hundredths)")
    raise ValueError(
        f"unknown target {name!r}: {did_you_mean(name, TARGETS)} "
        f"(also mbv2_w050 and other widths of {', '.join(SCALABLE)}; a YAML table's path; or the "
        "folder of a nasaug search --direction down)"
    )


def _inverted(
    in_channels: int, blocks: Iterable[tuple[int, int, int, int]], act: Activation = "relu6"
) -> tuple[Row, ...]:
    """Rows from (kernel, mid, out, stride); stride 1 and an unchanged width make one residual."""
    rows = []
    for kernel, mid, out, stride in blocks:
        skip = stride == 1 and out == in_channels
        rows.append(InvertedResidual(kernel, stride, mid, out, act, skip))
        in_channels = out
    return tuple(rows)


def _mobilenet_v2(width: Fraction, head: int | None = None) -> tuple[Row, ...]:
    """MobileNetV2 (Sandler et al., 2018), Table 2; the head is widened but never narrowed."""
    scale = _scaler(width)
    rows: list[Row] = [
        Conv(3, 2, scale(32), "relu6"),
        DepthwiseSeparable(3, 1, scale(16), "relu6"),
    ]
    stages = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    in_channels = scale(16)
    for out, blocks, stride in stages:
        for block in range(blocks):
            rows.append(
                InvertedResidual(
                    kernel=3,
                    stride=1 if block else stride,
                    mid=6 * in_channels,
                    out=scale(out),
                    act="relu6",
                    skip=block > 0,
                )
            )
            in_channels = scale(out)
    return (*rows, Conv(1, 1, head or scale(1280, at_least=1280), "relu6"), *TAIL)


def _mobilenet_v3(width: Fraction) -> tuple[Row, ...]:
    """MobileNetV3-Large (Howard et al., 2019), Table 1."""
    scale = _scaler(width)
    table: tuple[Block, ...] = (
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hardswish", 2),
        (3, 200, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 480, 112, True, "hardswish", 1),
        (3, 672, 112, True, "hardswish", 1),
        (5, 672, 160, True, "hardswish", 2),
        (5, 960, 160, True, "hardswish", 1),
        (5, 960, 160, True, "hardswish", 1),
    )
    first = DepthwiseSeparable(3, 1, scale(16), "relu", skip=True)
    return _v3(scale, first, table, head=960, feature=1280)


def _mobilenet_v3_small(width: Fraction) -> tuple[Row, ...]:
    """MobileNetV3-Small (Howard et al., 2019), Table 2; the layer after the pooling is widened but
    never narrowed."""
    scale = _scaler(width)
    table: tuple[Block, ...] = (
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    )
    squeeze = round_channels(Fraction(scale(16), 4))
    first = DepthwiseSeparable(3, 2, scale(16), "relu", squeeze=squeeze)
    return _v3(scale, first, table, head=576, feature=1024)


def _v3(
    scale: Callable[..., int], first: Row, table: Iterable[Block], head: int, feature: int
) -> tuple[Row, ...]:
    """The rows of a MobileNetV3, whose blocks are residual as they are at full width."""
    rows: list[Row] = [Conv(3, 2, scale(16), "hardswish"), first]
    full_width = 16
    for kernel, mid, out, squeeze, act, stride in table:
        skip = stride == 1 and out == full_width
        full_width = out
        inner = scale(mid)
        se = squeeze_width(inner) if squeeze else None
        rows.append(InvertedResidual(kernel, stride, inner, scale(out), act, skip, se))
    last = Conv(1, 1, scale(feature, at_least=feature), "hardswish", norm=False, bias=True)
    return (*rows, Conv(1, 1, scale(head), "hardswish"), GlobalAvgPool(), last, Linear(1000))


def _proxylessnas(width: Fraction) -> tuple[Row, ...]:
    """ProxylessNAS-Mobile (Cai et al., 2019), Figure 4: (kernel, expand ratio) of every block."""
    scale = _scaler(width)
    stages = (
        (32, 2, ((5, 3), (3, 3))),
        (40, 2, ((7, 3), (3, 3), (5, 3), (5, 3))),
        (80, 2, ((7, 6), (5, 3), (5, 3), (5, 3))),
        (96, 1, ((5, 6), (5, 3), (5, 3), (5, 3))),
        (192, 2, ((7, 6), (7, 6), (7, 3), (7, 3))),
        (320, 1, ((7, 6),)),
    )
    rows: list[Row] = [
        Conv(3, 2, scale(32), "relu6"),
        DepthwiseSeparable(3, 1, scale(16), "relu6"),
    ]
    in_channels = scale(16)
    for out, stride, blocks in stages:
        for block, (kernel, ratio) in enumerate(blocks):
            mid = ratio * in_channels
            first = block == 0
            rows.append(
                InvertedResidual(
                    kernel, stride if first else 1, mid, scale(out), "relu6", not first
                )
            )
            in_channels = scale(out)
    return (*rows, Conv(1, 1, scale(1280, at_least=1280), "relu6"), *TAIL)


def _mcunet() -> Architecture:
    """MCUNet (Lin et al., 2020), the ImageNet model for 320 KB of SRAM and 1 MB of flash."""
    blocks = (
        (7, 24, 16, 2), (3, 80, 16, 1), (7, 80, 16, 1), (5, 64, 16, 1),
        (5, 80, 24, 2), (5, 120, 24, 1), (5, 120, 24, 1),
        (3, 120, 40, 2), (7, 240, 40, 1), (5, 160, 40, 1),
        (5, 200, 48, 1), (7, 240, 48, 1), (3, 240, 48, 1),
        (3, 288, 96, 2), (7, 480, 96, 1), (3, 384, 96, 1),
        (7, 480, 160, 1),
    )  # fmt: skip
    stem = (Conv(3, 2, 16, "relu6"), DepthwiseSeparable(3, 1, 8, "relu6"))
    return Architecture((*stem, *_inverted(8, blocks), *TAIL), 176)


def _micro(
    stem: int, first: int, blocks: Iterable[tuple[int, int, int, int]], head: int
) -> Architecture:
    """For images of 28 to 32 pixels: three strides, so that 4 x 4 positions reach the head."""
    return Architecture(
        (
            Conv(3, 2, stem, "relu6"),
            DepthwiseSeparable(3, 1, first, "relu6"),
            *_inverted(first, blocks),
            Conv(1, 1, head, "relu6"),
            *TAIL,
        ),
        resolution=28,
    )


def _resnet50() -> Architecture:
    """ResNet-50 (He et al., 2016), Table 1, with the stride on the 3x3 convolutions."""
    rows: list[Row] = [Conv(7, 2, 64, "relu"), MaxPool(3, 2)]
    for mid, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            rows.append(Bottleneck(mid, 4 * mid, 1 if block else stride, projection=block == 0))
    return Architecture((*rows, *TAIL), 224)


def _scaler(width: Fraction) -> Callable[..., int]:
    def scale(channels: int, at_least: int = 0) -> int:
        return max(at_least, round_channels(channels * width))

    return scale


PUBLISHED_WIDTHS = {"mcunet": (1.0, 1.6, 2.2), "mbv3": (1.0, 2.0, 3.0)}
W035 = Fraction(35, 100)
SCALABLE: dict[str, Callable[[Fraction], tuple[Row, ...]]] = {
    "mbv2": _mobilenet_v2,
    "mbv3": _mobilenet_v3,
    "mbv3_small": _mobilenet_v3_small,
    "proxylessnas": _proxylessnas,
}
TARGETS: dict[str, Callable[[], Architecture]] = {
    "mbv2_tiny": lambda: Architecture(_mobilenet_v2(W035, head=448), 144),
    "mbv2_w035": lambda: Architecture(_mobilenet_v2(W035), 160),
    "mbv3_w035": lambda: Architecture(_mobilenet_v3(W035), 160),
    "proxylessnas_w035": lambda: Architecture(_proxylessnas(W035), 160),
    "mcunet": _mcunet,
    "micro_3k": lambda: _micro(
        4, 4, ((3, 16, 6, 2), (3, 18, 6, 1), (3, 24, 8, 2), (3, 24, 8, 1)), 32
    ),
    "micro_10k": lambda: _micro(
        8, 8, ((3, 32, 12, 2), (3, 48, 12, 1), (3, 48, 16, 2), (3, 64, 16, 1)), 64
    ),
    "micro_40k": lambda: _micro(
        16, 16, ((3, 64, 24, 2), (3, 96, 24, 1), (3, 96, 32, 2), (3, 192, 32, 1)), 192
    ),
    # Most of its parameters work on 4 x 4 positions, where they cost the fewest MACs.
    "micro_150k": lambda: _micro(
        16,
        16,
        ((3, 64, 24, 2), (3, 96, 24, 1), (3, 144, 64, 2), (3, 384, 64, 1), (3, 384, 64, 1)),
        256,
    ),
    "resnet50": _resnet50,
}
