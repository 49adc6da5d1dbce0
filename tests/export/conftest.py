"""What the tests of this room share: networks with every kind of row, and an own PyTorch reading of
them, batch norm unfolded, to compare exports with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.export import Description
from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    ElasticNorm,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Network,
    Skip,
)
from nasaug.training import reestimate_batch_norm

MIXED = Architecture(
    rows=(
        Conv(3, 2, 8, "relu"),
        MaxPool(3, 2),
        DepthwiseSeparable(5, 1, 8, "relu6", skip=True),
        DepthwiseSeparable(3, 1, 8, "hardswish", squeeze=6),
        Skip(),
        InvertedResidual(3, 1, 24, 8, "hardswish", skip=True, squeeze=16),
        InvertedResidual(5, 2, 24, 13, "none", skip=False),
        Bottleneck(6, 20, 2, projection=True),
        Bottleneck(6, 20),
        Conv(1, 1, 10, "none", norm=False),
        GlobalAvgPool(),
        Conv(1, 1, 20, "hardswish", norm=False, bias=True),
        Linear(7),
    ),
    resolution=37,
    in_channels=1,
    name="mixed",
)
DESCRIBED = Description(
    "mixed", "the run tests", (0.286,), (0.353,), tuple(f"class {index}" for index in range(7))
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers."""
    torch.set_num_threads(1)


def random_network(arch: Architecture, seed: int = 0) -> Network:
    """Random weights and norms, in eval mode. The running statistics are those of random images:
    with made-up ones, the logits of a deep network hardly depend on what it is shown, and would
    agree whatever happened to the layers in between."""
    generator = torch.Generator().manual_seed(seed)
    net = Network(arch, generator=generator).eval()
    for module in net.modules():
        if isinstance(module, ElasticNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    reestimate_batch_norm(net, [(images_for(arch, 8), None)])
    classifier = net.blocks[-1].get_submodule("linear").get_parameter("weight")
    torch.nn.init.normal_(classifier, 0, 0.5, generator=generator)
    return net


def describe(arch: Architecture) -> Description:
    """As a run on images of the architecture's channels would."""
    statistics = {1: ((0.286,), (0.353,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
    return Description(arch.name.replace("-", "_"), "the run tests", *statistics[arch.in_channels])


def images_for(arch: Architecture, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    size = (count, arch.in_channels, arch.resolution, arch.resolution)
    images = torch.randn(size, generator=generator)
    return images * torch.rand(count, 1, 1, 1, generator=generator) + torch.randn(
        count, arch.in_channels, 1, 1, generator=generator
    )


def by_hand(arch: Architecture, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits in float64, row by row from the papers' tables, batch norm as a layer of its own.

    Knows the names of the weights and nothing else of the package's networks.
    """
    state = {name: tensor.double() for name, tensor in state.items()}
    x = x.double()

    def conv(
        x: Tensor, name: str, stride: int = 1, act: str = "none", deep: bool = False
    ) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] if deep else 1
        x = F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[2] // 2, 1, groups)
        if f"{name}.norm.weight" in state:
            n = SimpleNamespace(**{k: state[f"{name}.norm.{k}"][:, None, None] for k in NORM})
            x = (x - n.running_mean) / (n.running_var + 1e-5).sqrt() * n.weight + n.bias
        acts: dict[str, Callable[[Tensor], Tensor]] = {
            "none": lambda y: y,
            "relu": lambda y: y.clamp(min=0),
            "relu6": lambda y: y.clamp(0, 6),
            "hardswish": lambda y: y * (y + 3).clamp(0, 6) / 6,
        }
        return acts[act](x)

    def squeezed(x: Tensor, at: str) -> Tensor:
        gate = conv(x.mean((2, 3), keepdim=True), f"{at}.squeeze.reduce", 1, "relu")
        return x * (conv(gate, f"{at}.squeeze.restore") / 6 + 0.5).clamp(0, 1)

    for index, row in enumerate(arch.rows):
        at, y, r = f"blocks.{index}", x, SimpleNamespace(**vars(row))
        if row.kind == "conv":
            x = conv(x, f"{at}.conv", r.stride, r.act)
        elif row.kind == "depthwise_separable":
            y = conv(x, f"{at}.depthwise", r.stride, r.act, deep=True)
            y = conv(squeezed(y, at) if r.squeeze else y, f"{at}.project")
            x = y + x if r.skip else y
        elif row.kind == "inverted_residual":
            y = conv(x, f"{at}.expand", 1, r.act)
            y = conv(y, f"{at}.depthwise", r.stride, r.act, deep=True)
            y = conv(squeezed(y, at) if r.squeeze else y, f"{at}.project")
            x = y + x if r.skip else y
        elif row.kind == "bottleneck":
            y = conv(x, f"{at}.reduce", 1, r.act)
            y = conv(conv(y, f"{at}.spatial", r.stride, r.act), f"{at}.restore")
            x = (y + (conv(x, f"{at}.shortcut", r.stride) if r.projection else x)).clamp(min=0)
        elif row.kind == "max_pool":
            x = F.max_pool2d(x, r.kernel, r.stride, r.kernel // 2)
        elif row.kind == "global_avg_pool":
            x = x.mean((2, 3), keepdim=True)
        elif row.kind == "linear":
            x = x.flatten(1) @ state[f"{at}.linear.weight"].T + state[f"{at}.linear.bias"]
    return x


NORM = ("weight", "bias", "running_mean", "running_var")


def far_apart(ours: Tensor, reference: Tensor) -> float:
    """Largest difference, in standard deviations of the reference from image to image."""
    ours, reference = ours.detach(), reference.detach().double()
    return float((ours.double() - reference).abs().max() / reference.std(0).mean())


@pytest.fixture
def own() -> Any:
    """The helpers above, for tests that are files of their own."""
    return SimpleNamespace(
        MIXED=MIXED,
        DESCRIBED=DESCRIBED,
        describe=describe,
        random_network=random_network,
        images_for=images_for,
        by_hand=by_hand,
        far_apart=far_apart,
    )
