"""Magnitude pruning while training: the smallest weights of the target go, little by little.

What is left out is decided by magnitude (Han et al., NeurIPS 2015) and grows on the gradual
schedule of Zhu and Gupta ("To prune, or not to prune", arXiv 1710.01878, Equation 1, from 0):

    s(t) = s (1 - (1 - (t - t_begin) / (t_until - t_begin))^3)

at `updates` evenly spaced points; between them what is zero stays zero. It works alone and inside
NetAug: of shared weights only the target's slice is pruned.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from nasaug.netaug.masks import (
    Pruner,
    SingleWeights,
    Slices,
    WholeChannels,
    kept_channels,
    shapes_of,
    zero,
)
from nasaug.netaug.options import Options
from nasaug.supernet import Architecture, Bottleneck, InvertedResidual, Network
from nasaug.training import Batch, Losses, State, Step


class PruneOptions(Options):
    """kind: single weights (unstructured) or whole inner channels (structured; see `compact`).
    sparsity: the share that is zero in the end, in every pruned layer or row. begin, until: the
    shares of training between which it grows, in `updates` steps. divisor: (structured) widths that
    stay are multiples of it, as device kernels like; 1 meets the sparsity most closely.

    Channel sorting moves channels, pruned ones too, out of the target: with `sort_channels`,
    `begin` must be at least `width_until`.
    """

    kind: Literal["unstructured", "structured"] = "unstructured"
    sparsity: float = Field(0.5, gt=0, lt=1)
    begin: float = Field(0.5, ge=0, lt=1)
    until: float = Field(0.8, gt=0, le=1)
    updates: int = Field(100, ge=1, le=1_000_000)
    divisor: int = Field(8, ge=1, le=1024)

    @model_validator(mode="after")
    def _in_order(self) -> PruneOptions:
        if self.begin >= self.until:
            raise ValueError(
                f"begin must be below until, but got {self.begin} and {self.until}; "
                "pruning needs a share of training to grow in"
            )
        return self


def sparsity_at(options: PruneOptions, progress: float) -> float:
    """The share of weights or channels to be zero when this share of training is done."""
    passed = min(1.0, max(0.0, (progress - options.begin) / (options.until - options.begin)))
    # What rounding has taken from a whole number of updates is given back.
    grown = math.floor(passed * options.updates + 1e-9) / options.updates
    return options.sparsity * (1 - (1 - grown) ** 3)


def pruning_step(step: Step, target: Architecture, options: PruneOptions) -> Step:
    """`step`, with the weights of `target` pruned before it and their gradients after it.

    For a network of `target` or of an architecture that contains it. A pruned weight, its gradient,
    momentum and moving average are exact zeros, and an optimizer step leaves them so. When to prune
    follows from the state's step, and what was pruned from the weights.

    Raises: ValueError for structured pruning of a target without inner channels, or that would
        remove none.
    """
    shapes = shapes_of(target)
    pruner: Pruner = SingleWeights(shapes)
    if options.kind == "structured":
        pruner = WholeChannels(target, shapes, options.divisor)
        _check_removes(target, options)
    slices = Slices(target, {name: shapes[name] for name in pruner.names})

    def pruned(net: Network, batch: Batch, state: State) -> Losses:
        sparsity = _sparsity(options, state.step, state.steps)
        if sparsity == 0:
            return step(net, batch, state)
        weights = slices.of(dict(net.named_parameters()), net.arch)
        if state.part == 0 and sparsity > _sparsity(options, state.step - 1, state.steps):
            masks = pruner.smallest(weights, sparsity)
            zero(weights, masks)
            for tensors in state.companions():
                zero(slices.of(tensors, net.arch), masks)
        losses = step(net, batch, state)
        masks = pruner.removed(weights)
        for gradients in state.gradient_sets():
            zero(slices.of(gradients, net.arch), masks)
        return losses

    return pruned


def _check_removes(target: Architecture, options: PruneOptions) -> None:
    mids = [row.mid for row in target.rows if isinstance(row, InvertedResidual | Bottleneck)]
    if all(kept_channels(mid, options.sparsity, options.divisor) == mid for mid in mids):
        raise ValueError(
            f"pruning to a sparsity of {options.sparsity} in multiples of {options.divisor} "
            f"channels removes none of {target.name}'s; raise prune.sparsity or lower prune.divisor"
        )


def sparsity_of(net: Network) -> float:
    """The share of zeros among all weights of convolutions and of the classifier, in [0, 1].

    Layers that pruning leaves out count, so it is below the sparsity that was asked for.
    """
    weights = [p for p in net.parameters() if p.ndim > 1]
    zeros = sum(int((p.detach() == 0).sum()) for p in weights)
    return zeros / sum(p.numel() for p in weights)


def _sparsity(options: PruneOptions, step: int, steps: int) -> float:
    """What must be zero at the end of this step; the last step ends with all of training done."""
    if step / steps < options.begin and step + 1 < steps:
        return 0.0
    return sparsity_at(options, (step + 1) / steps)
