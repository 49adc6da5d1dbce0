"""A sub-network as the whole network with channels masked.

Slices change their shapes with every sub-network, so that nothing of one pass serves the next.
Masks have the same shape whatever they leave over: a pass is the same kernels for all
sub-networks, which a GPU can play back (`nasaug.training.replays`), at the price of computing what
is masked (channel masking, FBNetV2, Wan et al., CVPR 2020, Section 3.1, arXiv 2004.05565).

A channel is masked where its batch norm's weight and bias are 0: then it is 0 after the activation,
and neither what computes it nor what reads it has a gradient. A smaller kernel is the larger one
with its rim masked, an absent row is one whose branch is masked as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.cuts import part_of, standing_in
from nasaug.supernet.leaves import ConvLeaf, Leaf, SqueezeLeaf
from nasaug.supernet.modules import ElasticBoosted, ElasticConv, ElasticSqueeze
from nasaug.supernet.network import Network, PlannedRow

LEAST_KERNEL = 3  # a kernel of 1 is never part of a larger one


@dataclass(frozen=True)
class _Masked:
    """A parameter of which a sub-network uses the elements whose place is below `most(leaf)`."""

    parameter: nn.Parameter
    places: Tensor
    row: int
    leaf: str
    most: Callable[[Any], int]


def maskable(net: Network) -> bool:
    """Whether masks can do for slices: not of boosted networks, nor with kernel transforms."""
    return not any(
        isinstance(module, ElasticBoosted)
        or (isinstance(module, ElasticConv) and bool(module.transforms))
        for module in net.modules()
    )


class ChannelMasks:
    """Of the sub-networks of `net`, one at a time."""

    def __init__(self, net: Network) -> None:
        assert maskable(net)
        self._net = net
        self._masked = masked = [*_masked(net)]
        device = next(net.parameters()).device
        sizes = [each.places.numel() for each in masked]
        self._places = torch.cat([_as_it_lies(each) for each in masked]).to(device)
        self._owners = torch.arange(len(masked)).repeat_interleave(torch.tensor(sizes)).to(device)
        self._limits = torch.zeros(len(masked), dtype=torch.int64, device=device)
        self._sizes = sizes

    def keep(self, sub: Architecture) -> None:
        """From now on mask what is not in `sub`. Raises: ValueError if it is not inside."""
        plan = self._net.plan(sub)
        limits = [_limit(plan[each.row], each) for each in self._masked]
        self._limits.copy_(torch.tensor(limits), non_blocking=True)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Passes of the whole network inside are those of the sub-network."""
        parameters = [each.parameter for each in self._masked]
        parts = [part_of(parameter, ()) for parameter in parameters]
        used = (self._places < self._limits[self._owners]).to(parts[0].dtype)
        masks = [
            mask.as_strided(part.shape, part.stride(), mask.storage_offset())
            for mask, part in zip(used.split(self._sizes), parts, strict=True)
        ]
        with standing_in(dict(zip(parameters, _Product.apply(masks, *parts), strict=True))):
            yield


class _Product(torch.autograd.Function):
    """Parameters times masks: one kernel for all of them, and one for their gradients."""

    @staticmethod
    def forward(ctx: Any, masks: list[Tensor], *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.masks = masks
        return tuple(torch._foreach_mul(parts, masks))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(gradients, ctx.masks)


def _as_it_lies(masked: _Masked) -> Tensor:
    """The places, (elements,), in the order in which the parameter lies in memory."""
    shape, strides = masked.parameter.shape, masked.parameter.stride()
    return (
        torch.empty_strided(shape, strides, dtype=torch.int64)
        .copy_(masked.places)
        .as_strided((masked.parameter.numel(),), (1,))
    )


def _limit(row: PlannedRow, masked: _Masked) -> int:
    if row.absent:
        return 0
    return masked.most(next(leaf for leaf in row.parts if leaf.name == masked.leaf))


def _masked(net: Network) -> Iterator[_Masked]:
    for index, (block, row) in enumerate(zip(net.blocks, net.plan(), strict=True)):
        for leaf in row.parts:
            for parameter, places, most in _of(getattr(block, leaf.name), leaf):
                yield _Masked(parameter, places, index, leaf.name, most)


def _of(
    module: nn.Module, leaf: Leaf
) -> Iterator[tuple[nn.Parameter, Tensor, Callable[[Any], int]]]:
    if isinstance(leaf, SqueezeLeaf):
        assert isinstance(module, ElasticSqueeze)
        for parameter in module.reduce.parameters():
            yield parameter, _channels(parameter), _squeeze
    elif isinstance(leaf, ConvLeaf):
        assert isinstance(module, ElasticConv)
        for parameter in (module.norm or module).parameters():
            yield parameter, _channels(parameter), _width
        if leaf.kernel > LEAST_KERNEL:
            assert module.norm is not None
            yield module.weight, _rings(module.weight), _reach


def _channels(parameter: Tensor) -> Tensor:
    """The place of every element is its output channel."""
    places = torch.arange(parameter.shape[0])
    return places.view(-1, *[1] * (parameter.ndim - 1)).expand(parameter.shape)


def _rings(weight: Tensor) -> Tensor:
    """The place of every element is how far from the kernel's centre it is, in squares."""
    away = (torch.arange(weight.shape[2]) - weight.shape[2] // 2).abs()
    return torch.maximum(away[:, None], away).expand(weight.shape)


def _squeeze(leaf: SqueezeLeaf) -> int:
    return leaf.squeeze


def _width(leaf: ConvLeaf) -> int:
    return leaf.out_channels


def _reach(leaf: ConvLeaf) -> int:
    return leaf.kernel // 2 + 1
