"""NetBooster: expand a tiny network to train it, then contract it again (Yu et al., DAC 2023;
arXiv 2306.13586).

A tiny network under-fits. Some of its 1x1 convolutions are made inverted residuals, which learn
more, and whose activations are then driven linear step by step,

    act_a(x) = a x + (1 - a) act(x),    slope a from 0 to 1.

At slope 1 everything inside is linear, with running statistics of batch norm even a matrix, and the
block is exactly a 1x1 convolution again. With s and t the scale and shift of the two norms inside,
E, d, P the weights of its three convolutions and I the shortcut where the shape stays,

    W = P diag(s_2 d s_1) E + I,    b = P (s_2 d t_1 + t_2).

The convolution in the target has no bias; b goes into the running mean of the norm that follows it
(or into its bias, where it has one instead of a norm). The norm is the target's own and is not
inside, which is why W and b suffice.

    boosted = boost(target)                          # an Architecture: the slope is part of it
    net = Network(boosted)
    net(x, at_slope(boosted, 0.37))                  # the same weights
    export = net.export(at_slope(boosted, 1.0))      # then re-estimate its batch norm
    contract(export)                                 # Network(target)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.leaves import BoostedLeaf
from nasaug.supernet.modules import ElasticBoosted, ElasticConv
from nasaug.supernet.network import Network
from nasaug.supernet.norms import ElasticNorm
from nasaug.supernet.rows import Boostable, Row


def boost(arch: Architecture, ratio: int = 6, every: int = 2) -> Architecture:
    """`arch` with inverted residuals, at slope 0, in the first and every `every`-th later row that
    has a 1x1 convolution to give: an inverted residual's expansion, a depthwise separable row's
    projection, a bottleneck's reduction, a plain 1x1 convolution with a norm or a bias.

    ratio: hidden channels for every channel that comes in. The activation inside is the row's own,
    ReLU6 where it has none.

    Raises: ValueError for a ratio outside 1 to 64, an `every` below 1, an architecture that is
    boosted already or has no such row.
    """
    for name, value, most in (("ratio", ratio, 64), ("every", every, 65536)):
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{name} must be an integer from 1 to {most:,}, but got {value!r}")
    if is_boosted(arch):
        raise ValueError(f"{arch.name} is boosted already; boost the target it was made from")
    places = [i for i, row in enumerate(arch.rows) if isinstance(row, Boostable) and row.boostable]
    if not places:
        raise ValueError(
            "boosting needs a row with a 1x1 convolution that a norm or a bias follows, but "
            f"{arch.name} has none; choose another target or train it without boosting"
        )
    chosen = set(places[::every])
    rows = [
        replace(row, boost=ratio) if index in chosen and isinstance(row, Boostable) else row
        for index, row in enumerate(arch.rows)
    ]
    return replace(arch, rows=tuple(rows))


def at_slope(arch: Architecture, slope: float) -> Architecture:
    """The boosted `arch` with activations inside its boosted rows that are linear by `slope`.

    Raises: ValueError for a slope outside 0 to 1, and for an architecture that is not boosted.
    """
    _check_boosted(arch)
    rows = [replace(row, slope=slope) if _is_boosted(row) else row for row in arch.rows]
    return replace(arch, rows=tuple(rows))


def is_boosted(arch: Architecture) -> bool:
    """Whether a row of `arch` is boosted."""
    return any(_is_boosted(row) for row in arch.rows)


def contract(net: Network) -> Network:
    """The plain network of the target that computes in evaluation what the boosted `net` does.

    The merging is done in float64 from the running statistics, so they must be those of slope 1:
    export at that slope and re-estimate first. What is returned has memory of its own.

    Raises: ValueError for a network that is not boosted or whose slope is not 1.
    """
    _check_boosted(net.arch)
    slopes = {row.slope for row in net.arch.rows if _is_boosted(row)}
    if slopes != {1}:
        raise ValueError(
            f"only at slope 1 is a boosted network linear inside, but {net.arch.name} has slope "
            f"{min(slopes):g}; export it with at_slope(arch, 1) and re-estimate its batch norm"
        )
    rows = [replace(row, boost=0, slope=0.0) if _is_boosted(row) else row for row in net.arch.rows]
    own = next(net.parameters())
    plain = Network(replace(net.arch, rows=tuple(rows)), init=None).to(own.device, own.dtype)
    with torch.no_grad():
        for index, (row, width) in enumerate(zip(net.arch.rows, net.arch.widths_in, strict=True)):
            leaves = {leaf.name: leaf for leaf in row.leaves(width)}
            for name, module in net.blocks[index].named_children():
                leaf, target = leaves.get(name), getattr(plain.blocks[index], name)
                if isinstance(leaf, BoostedLeaf) and isinstance(module, ElasticBoosted):
                    _merge(module, leaf.shortcut, target)
                else:
                    target.load_state_dict(module.state_dict())
    return plain.train(net.training)


def _is_boosted(row: Row) -> TypeGuard[Boostable]:
    return isinstance(row, Boostable) and row.boost > 0


def _check_boosted(arch: Architecture) -> None:
    if not is_boosted(arch):
        raise ValueError(
            f"{arch.name} must be a boosted architecture, but no row of it is; boost it"
        )


def _merge(boosted: ElasticBoosted, shortcut: bool, plain: ElasticConv) -> None:
    """Write the convolution and the norm that `boosted` is at slope 1 into `plain`."""
    widened, mixed, own = boosted.widen.norm, boosted.mix.norm, boosted.project
    assert widened is not None
    assert mixed is not None
    scale, shift = _affine(widened)
    weight = scale[:, None] * boosted.widen.weight.double().flatten(1)
    scale, added = _affine(mixed)
    mix = scale * boosted.mix.weight.double().flatten()
    project = own.weight.double().flatten(1)
    weight = project @ (mix[:, None] * weight)
    offset = project @ (mix * shift + added)
    if shortcut:
        weight += torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    plain.load_state_dict(own.state_dict() | {"weight": weight[:, :, None, None]})
    if plain.norm is not None and own.norm is not None:
        plain.norm.running_mean.copy_(own.norm.running_mean.double() - offset)
    else:
        assert plain.bias is not None
        assert own.bias is not None
        plain.bias.copy_(own.bias.double() + offset)


def _affine(norm: ElasticNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift, each (channels,), of what `norm` does in evaluation."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.EPS).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale
