"""What helps the target? The effect of a candidate's gradient on the target's validation loss.

NetAug (Cai et al., ICLR 2022, Equation 2) adds the gradient of L_train([W_t, W_i]) to the weights
that the target shares with the wider network i. To first order, a step of SGD at learning rate eta
along that gradient lowers the target's validation loss by

    eta <grad L_val(W_t), grad L_train([W_t, W_i])>,

the inner product over the shared weights. `Helpfulness` is this per unit of learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import Architecture, Network
from nasaug.training import Batch


@dataclass(frozen=True)
class Measured:
    """A mean over `batches` training batches and as many of validation, and its standard error."""

    mean: float
    standard_error: float
    batches: int


class Helpfulness:
    """How much one gradient of a candidate lowers the target's validation loss, to first order.

    The first `pairs` batches of `training` and of `validation` are kept, the same for every
    candidate; they should be shuffled. Weights are the supernet's as they are, batch norm uses
    batch statistics as in training, and neither weights, running statistics nor gradients change.
    The training loss is cross entropy with `label_smoothing`, the validation loss without.

    The plain inner product is what a NetAug step adds, longer gradients of larger candidates
    included. With `cosine` both gradients of every pair have length 1 on the shared weights: it
    compares directions only, from -1 to 1.

    Raises: ValueError for fewer than two pairs, too few batches, or a target that is not inside
        the supernet.
    """

    def __init__(
        self,
        supernet: Network,
        target: Architecture,
        training: Iterable[Batch],
        validation: Iterable[Batch],
        pairs: int = 8,
        label_smoothing: float = 0.0,
        cosine: bool = False,
    ) -> None:
        if pairs < 2:
            raise ValueError(f"pairs must be at least 2 for a standard error, but got {pairs}")
        self._supernet, self._target, self._pairs = supernet, target, pairs
        self._smoothing, self._cosine = label_smoothing, cosine
        self._training = _first("training", training, pairs)
        self._validation = _first("validation", validation, pairs)
        self._weights = list(supernet.parameters())

    def __call__(self, arch: Architecture) -> float:
        """The mean of `measure(arch)`."""
        return self.measure(arch).mean

    def measure(self, arch: Architecture) -> Measured:
        """Help of `arch`, a sub-network of the supernet that shares the target's weights.

        Raises: ValueError if `arch` is not inside the supernet.
        """
        shared, references = self._target_gradients
        gradients = torch.stack(
            [
                self._scaled(self._gradient(arch, batch, self._smoothing)[shared])
                for batch in self._training
            ]
        )
        # products[k, b]: validation batch k, training batch b. A batch is in a whole row or
        # column, so the noise is that of the rows' means plus that of the columns'.
        products = (references @ gradients.T).double()
        noise = products.mean(1).var() / self._pairs + products.mean(0).var() / self._pairs
        return Measured(float(products.mean()), math.sqrt(float(noise)), self._pairs)

    @cached_property
    def _target_gradients(self) -> tuple[Tensor, Tensor]:
        """Where the target's weights lie among all weights (S,), and the gradients of its
        validation loss by them, a row a batch (pairs, S)."""
        shared = _places(self._supernet, self._target)
        rows = [
            self._scaled(self._gradient(self._target, batch, 0.0)[shared])
            for batch in self._validation
        ]
        return shared, torch.stack(rows)

    def _gradient(self, arch: Architecture, batch: Batch, smoothing: float) -> Tensor:
        """The gradient of the loss by all weights of the supernet, flat (P,)."""
        images, labels = batch
        was_training = self._supernet.training
        self._supernet.train()
        try:
            logits = self._supernet(images, arch)
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            found = torch.autograd.grad(loss, self._weights, allow_unused=True)
        finally:
            self._supernet.train(was_training)
        return torch.cat(
            [
                torch.zeros_like(weight).flatten() if gradient is None else gradient.flatten()
                for weight, gradient in zip(self._weights, found, strict=True)
            ]
        )

    def _scaled(self, gradient: Tensor) -> Tensor:
        return F.normalize(gradient, dim=0) if self._cosine else gradient


def _places(supernet: Network, target: Architecture) -> Tensor:
    """The indices of the target's weights among the supernet's, flat (S,): an export of a network
    whose weights are their own indices."""
    indices = Network(supernet.arch, init=None).double()
    start = 0
    with torch.no_grad():
        for weight in indices.parameters():
            weight.copy_(torch.arange(start, start + weight.numel()).view_as(weight))
            start += weight.numel()
    found = torch.cat([weight.flatten() for weight in indices.export(target).parameters()])
    return found.detach().long().to(next(supernet.parameters()).device)


def _first(name: str, batches: Iterable[Batch], count: int) -> list[Batch]:
    kept = list(islice(batches, count))
    if len(kept) < count:
        raise ValueError(
            f"help over {count} pairs needs {count} {name} batches, but there are {len(kept)}; "
            "take fewer pairs or smaller batches"
        )
    return kept
