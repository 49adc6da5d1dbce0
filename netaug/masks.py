"""What of a target's weights is pruned: the smallest of every layer, or whole inner channels.

Nothing is remembered: what was pruned is what is zero. A mask is a tensor of truth values, true
where a tensor of the same name is pruned, and broadcasts to its shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from nasaug.netaug.inner_channels import INNER, Inner
from nasaug.supernet import Architecture, Network, Skip, embed, round_channels

Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Masks = list[tuple[str, Tensor]]


def shapes_of(target: Architecture) -> Shapes:
    """The shapes of the target's parameters, by their names in a network of its own."""
    with torch.device("meta"):
        alone = Network(target.canonical(), init=None)
    return {name: tuple(p.shape) for name, p in alone.named_parameters()}


class Slices:
    """Where a target's parameters, of the given names and shapes, lie in a network around it."""

    def __init__(self, target: Architecture, shapes: Shapes) -> None:
        self._target, self._shapes = target, shapes
        self._rows: dict[Architecture, list[int]] = {}

    def of(self, tensors: Tensors, arch: Architecture) -> dict[str, Tensor]:
        """Views of the target's parts of `tensors`, under the names of the target's parameters.

        `tensors` are parameters of a network of `arch`, or tensors of the same names and shapes; a
        name that is missing there is missing in the result.

        Raises: ValueError if `arch` does not contain the target.
        """
        if arch not in self._rows:
            rows = embed(self._target, arch).rows
            present = [index for index, row in enumerate(rows) if not isinstance(row, Skip)]
            self._rows[arch] = present
        present = self._rows[arch]
        views = {}
        for name, shape in self._shapes.items():
            blocks, index, rest = name.split(".", 2)
            tensor = tensors.get(f"{blocks}.{present[int(index)]}.{rest}")
            if tensor is not None:
                views[name] = _part(tensor.detach(), shape)
        return views


class Pruner(Protocol):
    """What a kind of pruning removes from a target's weights, given by their names. `names`: all
    that it may touch."""

    names: list[str]

    def smallest(self, weights: Tensors, sparsity: float) -> Masks:
        """What to remove for this sparsity. What is zero already comes first."""

    def removed(self, weights: Tensors) -> Masks:
        """What has been removed."""


class SingleWeights:
    """The smallest magnitudes, at the same sparsity in every layer (Zhu and Gupta, 2017).

    Pruned are dense convolutions (squeezes too) and the classifier. As in their MobileNet the first
    convolution and the depthwise ones are left out, which hold few of the weights and need them;
    biases and norms too.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.names = [
            name
            for name, shape in shapes.items()
            if len(shape) > 1 and ".depthwise." not in name and not name.startswith("blocks.0.")
        ]

    def smallest(self, weights: Tensors, sparsity: float) -> Masks:
        return [(name, _smallest(weights[name], sparsity)) for name in self.names]

    def removed(self, weights: Tensors) -> Masks:
        return [(name, weights[name] == 0) for name in self.names]


class WholeChannels:
    """The inner channels that are read with the smallest weights, at the same sparsity in every
    inverted residual and bottleneck, in whole multiples of `divisor`.

    All tensors of a removed channel are zero, its norm's bias too, so that it is off in every
    network that shares the weights.

    Raises: ValueError for a target without such rows.
    """

    def __init__(self, target: Architecture, shapes: Shapes, divisor: int) -> None:
        self._divisor = divisor
        self._inner = [
            (f"blocks.{index}.", inner)
            for index, row in enumerate(target.canonical().rows)
            for inner in INNER.get(type(row), ())
        ]
        if not self._inner:
            raise ValueError(
                "structured pruning removes the inner channels of inverted residuals and "
                f"bottlenecks, but {target.name} has none; use kind unstructured"
            )
        touched = [prefix + name for prefix, inner in self._inner for name in inner.dims]
        self.names = [name for name in touched if name in shapes]

    def smallest(self, weights: Tensors, sparsity: float) -> Masks:
        masks: Masks = []
        for prefix, inner in self._inner:
            importance = inner.importance(_readers(prefix, inner, weights))
            kept = kept_channels(len(importance), sparsity, self._divisor)
            removed = torch.ones_like(importance, dtype=torch.bool)
            removed[importance.argsort(descending=True, stable=True)[:kept]] = False
            masks += _of_channels(prefix, inner, removed, weights)
        return masks

    def removed(self, weights: Tensors) -> Masks:
        masks: Masks = []
        for prefix, inner in self._inner:
            removed = inner.unread(_readers(prefix, inner, weights))
            masks += _of_channels(prefix, inner, removed, weights)
        return masks


def kept_channels(channels: int, sparsity: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to what the sparsity leaves (never less than nine tenths of
    that), at least one `divisor`; all channels where there are fewer."""
    return min(channels, round_channels(channels * (1 - sparsity), divisor))


def zero(tensors: Tensors, masks: Iterable[tuple[str, Tensor]]) -> None:
    """In place. A name that is missing is passed over."""
    for name, mask in masks:
        if name in tensors:
            tensors[name].masked_fill_(mask, 0)


def _part(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first channels, and the centre of the kernel."""
    view = tensor[tuple(slice(size) for size in shape[:2])]
    if len(shape) > 2:
        start = (tensor.shape[2] - shape[2]) // 2
        view = view[:, :, start : start + shape[2], start : start + shape[3]]
    return view


def _smallest(weight: Tensor, sparsity: float) -> Tensor:
    """At least one weight of a layer stays."""
    count = min(round(sparsity * weight.numel()), weight.numel() - 1)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.abs().flatten().argsort(stable=True)[:count]] = True
    return mask.view(weight.shape)


def _readers(prefix: str, inner: Inner, weights: Tensors) -> dict[str, Tensor]:
    """The tensors of one block that read its channels, by their names in it."""
    return {name: weights[prefix + name] for name in inner.readers if prefix + name in weights}


def _of_channels(prefix: str, inner: Inner, removed: Tensor, weights: Tensors) -> Masks:
    """For every tensor that has the channels, `removed` along their dimension."""
    masks: Masks = []
    for name, dim in inner.dims.items():
        if (weight := weights.get(prefix + name)) is not None:
            shape = [1] * weight.ndim
            shape[dim] = -1
            masks.append((prefix + name, removed.view(shape)))
    return masks
