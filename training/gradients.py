"""The gradients of one optimizer step: one set, or two that are merged without conflict.

Backward passes add up in `parameter.grad`, the base set. Passes inside `auxiliary()` add up in a
second set, which `merge` adds to the base after removing what works against it (gradient surgery,
PCGrad, Yu et al., NeurIPS 2020, arXiv 2001.06782, Algorithm 1 for the auxiliary gradient alone).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nasaug.training.distributed import Workers, average


class Gradients:
    """Every parameter has a gradient every step (zeros outside the sampled slice), so that momentum
    and decay act alike everywhere. A gradient has its parameter's strides, as the fused optimizer
    needs."""

    def __init__(self, net: nn.Module) -> None:
        self._parameters = dict(net.named_parameters())
        self._second: dict[str, Tensor] | None = None
        self.clear()

    def clear(self) -> None:
        """Zero both sets where they lie, since recordings remember where that is."""
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        torch._foreach_zero_([gradient for each in self.sets() for gradient in each.values()])

    @contextmanager
    def auxiliary(self) -> Iterator[None]:
        """Backward passes inside fill the second set."""
        if self._second is None:
            self._second = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        base = self._exchange(self._second)
        try:
            yield
        finally:
            self._second = self._exchange(base)

    def sets(self) -> list[dict[str, Tensor]]:
        """By parameter name: the base set, and the second where there is one. Live tensors."""
        second = [] if self._second is None else [self._second]
        return [self._base(), *second]

    def average(self, group: Workers, parts: int, losses: Mapping[str, Tensor]) -> None:
        """All sets and `losses`, in place: sums over `parts` batches to means over these and the
        workers, by one all-reduce."""
        gradients = [gradient for each in self.sets() for gradient in each.values()]
        average([*gradients, *losses.values()], group, parts)

    def merge(self) -> None:
        """Add the second set to the base, its part that opposes the base projected out."""
        if self._second is None:
            return
        base, second = [*self._base().values()], [*self._second.values()]
        product = _inner(base, second)
        share = (product / _inner(base, base)).clamp(max=0).nan_to_num(0.0, 0.0, 0.0)
        torch._foreach_mul_(base, 1 - share)
        torch._foreach_add_(base, second)

    def _base(self) -> dict[str, Tensor]:
        return {name: _present(p.grad) for name, p in self._parameters.items()}

    def _exchange(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put `given` in place of the gradients; returns those."""
        before = self._base()
        for name, parameter in self._parameters.items():
            parameter.grad = given[name]
        return before


def _inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    return torch.stack([each.sum() for each in torch._foreach_mul(first, second)]).sum()


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient
