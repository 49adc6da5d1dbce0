"""The parts of parameters that sub-networks use, as leaves of the graph.

Autograd gives the gradient of a slice back as a full tensor of zeros with the slice filled in, and
adds that to the parameter's: three or four kernels a parameter, which take longer to launch than
the convolution itself where networks are tiny. Inside `cutting` a slice is a leaf of its own, and
`Cuts.settle` adds their gradients to the parameters': one kernel for a slice with gaps (of input
channels, or of a kernel's centre), a few for all others together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Of a parameter, one a dimension; () is all of it.
Index = tuple[slice, ...]


class Cuts:
    """What was cut since `clear` was last called."""

    def __init__(self) -> None:
        self._cuts: list[tuple[nn.Parameter, Index, Tensor]] = []

    def cut(self, parameter: nn.Parameter, index: Index) -> Tensor:
        part = parameter.detach()
        if index:
            part = part[index]
        part.requires_grad_(parameter.requires_grad)
        self._cuts.append((parameter, index, part))
        return part

    def settle(self) -> None:
        """Move the gradients that there are to those of the parameters. A cut whose graph is not
        gone yet may have more of them later."""
        together = _Sums()
        with torch.no_grad():
            for parameter, index, part in self._cuts:
                if part.grad is not None:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    whole = parameter.grad
                    together.add(parameter, whole[index] if index else whole, part.grad)
                    part.grad = None
            together.flush()

    def clear(self) -> None:
        """Forget what was cut: its graphs are gone."""
        self._cuts.clear()


class _Sums:
    """Additions that are done together. Of one parameter they are done in their order, one at a
    time: a GPU works on all that it is given at once."""

    def __init__(self) -> None:
        self._parameters: set[int] = set()
        self._sums: list[Tensor] = []
        self._terms: list[Tensor] = []

    def add(self, parameter: nn.Parameter, part: Tensor, term: Tensor) -> None:
        """Of `term` to `part`, which is a part of the parameter's gradient."""
        if id(parameter) in self._parameters:
            self.flush()
        if part.stride() != term.stride() or not _is_dense(part):
            part.add_(term)
            return
        self._parameters.add(id(parameter))
        self._sums.append(part)
        self._terms.append(term)

    def flush(self) -> None:
        if self._sums:
            torch._foreach_add_(self._sums, self._terms)
        self._parameters, self._sums, self._terms = set(), [], []


def part_of(tensor: Tensor, index: Index) -> Tensor:
    """A slice of a parameter, or of another tensor; where there is no index all of it, or what
    stands in for it."""
    if not index and _stand_ins and (given := _stand_ins[-1].get(tensor)) is not None:
        return given
    cuts = _active[-1] if _active else None
    if cuts is not None and isinstance(tensor, nn.Parameter) and torch.is_grad_enabled():
        return cuts.cut(tensor, index)
    return tensor[index] if index else tensor


@contextmanager
def cutting(cuts: Cuts | None) -> Iterator[None]:
    """Passes inside use cuts; with None they are as ever."""
    if cuts is None:
        yield
        return
    _active.append(cuts)
    try:
        yield
    finally:
        _active.pop()


@contextmanager
def standing_in(values: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Passes inside that use all of a parameter use the value that is given for it."""
    _stand_ins.append(values)
    try:
        yield
    finally:
        _stand_ins.pop()


_active: list[Cuts] = []
_stand_ins: list[Mapping[Tensor, Tensor]] = []


def _is_dense(tensor: Tensor) -> bool:
    """Whether it lies in memory without a gap, in whatever order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))
