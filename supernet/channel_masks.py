"""A sub-network as the whole network with channels masked.

Slices change their shapes with every sub-network, so that nothing of one pass serves the next.
Masks have the same shape whatever they leave over: a pass is the same kernels for all
sub-networks, which a GPU can play back (`nasaug.training.replays`), at the price of computing what
is masked (channel masking, FBNetV2, Wan et al., CVPR 2020, Section 3.1, arXiv 2004.05565).

A channel is masked where its batch norm's weight and bias are 0: then it is 0 after the activation,
and neither what computes it nor what reads it has a gradient. A smaller kernel is the larger one
with its rim masked, an absent row is one whose branch is masked as a whole. `maskable` says of
which networks this holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.cuts import part_of, standing_in
from nasaug.supernet.leaves import ConvLeaf, Leaf, SqueezeLeaf
from nasaug.supernet.modules import ElasticBoosted, ElasticConv, ElasticSqueeze
from nasaug.supernet.network import Network, PlannedRow
from nasaug.supernet.rows import Bottleneck, Conv, GlobalAvgPool, Linear, MaxPool, Row, Skip


@dataclass(frozen=True)
class _Masked:
    """A parameter of which a sub-network uses the elements whose place is below `most(leaf)`."""

    parameter: nn.Parameter
    places: Tensor
    row: int
    leaf: str
    most: Callable[[Any], int]


def maskable(net: Network) -> bool:
    """Whether masks can do for slices: not in networks that are boosted, nor with kernel
    transforms, nor where a larger kernel has no norm, nor where an absent row is not the identity.
    """
    return _rows_can_be_masked(net.arch.rows) and all(
        _can_be_masked(module) for module in net.modules()
    )


class ChannelMasks:
    """Of the sub-networks of `net`, one at a time. Nothing is made of them before they are used."""

    def __init__(self, net: Network) -> None:
        assert maskable(net)
        self._net = net

    @cached_property
    def _masked(self) -> tuple[_Masked, ...]:
        return tuple(_masked(self._net))

    @cached_property
    def _sizes(self) -> list[int]:
        return [each.places.numel() for each in self._masked]

    @cached_property
    def _places(self) -> Tensor:
        """Of the elements of all masked parameters, (elements,)."""
        return torch.cat([_as_it_lies(each) for each in self._masked]).to(self._device)

    @cached_property
    def _owners(self) -> Tensor:
        """Which of the masked parameters each of these elements is of."""
        owners = torch.arange(len(self._sizes)).repeat_interleave(torch.tensor(self._sizes))
        return owners.to(self._device)

    @cached_property
    def _limits(self) -> Tensor:
        return torch.zeros(len(self._sizes), dtype=torch.int64, device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self._net.parameters()).device

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


def _can_be_masked(module: nn.Module) -> bool:
    if isinstance(module, ElasticConv):
        return not module.transforms and (module.norm is not None or module.weight.shape[2] == 1)
    return not isinstance(module, ElasticBoosted)


def _rows_can_be_masked(rows: Sequence[Row]) -> bool:
    """Whether every row that may be absent leaves what it reads as it is when its branch is 0: a
    bottleneck, whose ReLU comes after the sum, does where nothing is negative. And whether there is
    a row with anything to mask."""
    positive, any_masked = False, False
    for row in rows:
        if isinstance(row, Bottleneck):
            if row.keeps_shape and not positive:
                return False
            positive = True
        elif isinstance(row, Conv):
            positive = row.act in ("relu", "relu6")
        elif not isinstance(row, MaxPool | Skip):
            positive = False
        any_masked |= not isinstance(row, MaxPool | Skip | GlobalAvgPool | Linear)
    return any_masked


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
        if leaf.kernel > 1:
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
