"""The channels inside a row, which nothing outside it sees: what structured pruning removes.

An inverted residual has `mid` of them, a bottleneck twice `mid`: before and after its spatial
convolution. A channel whose readers are zero does not count, and can be left out of the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nasaug.supernet import Bottleneck, InvertedResidual, Network, Row


@dataclass(frozen=True)
class Inner:
    """`dims`: the tensors of a block that have these channels, and along which dimension; some may
    be absent. `readers`: those that read them, the first of which ranks them."""

    dims: Mapping[str, int]
    readers: tuple[str, ...]

    def importance(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(channels,): the L1 norm of the weights that read each, as `sort_channels` ranks them."""
        return _sums(tensors[self.readers[0]].abs())

    def unread(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(channels,) of truth values: which are multiplied by zeros wherever they are read."""
        read = [_sums(tensors[name] != 0) for name in self.readers if name in tensors]
        return torch.stack(read).sum(0) == 0


def _sums(weight: Tensor) -> Tensor:
    """By input channel, the second dimension."""
    return weight.flatten(2).sum((0, 2))


def _made(name: str) -> dict[str, int]:
    """The tensors of a convolution and its norm that have its output channels."""
    norm = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": 0} | {f"{name}.norm.{part}": 0 for part in norm}


SQUEEZE = {"squeeze.reduce.weight": 1, "squeeze.restore.weight": 0, "squeeze.restore.bias": 0}
INNER: dict[type[Row], tuple[Inner, ...]] = {
    InvertedResidual: (
        Inner(
            _made("expand") | _made("depthwise") | SQUEEZE | {"project.weight": 1},
            ("project.weight", "squeeze.reduce.weight"),
        ),
    ),
    Bottleneck: (
        Inner(_made("reduce") | {"spatial.weight": 1}, ("spatial.weight",)),
        Inner(_made("spatial") | {"restore.weight": 1}, ("restore.weight",)),
    ),
}


def compact(net: Network) -> Network:
    """The smaller network that computes what `net` computes: inner channels that nothing reads are
    left out, and `mid` of every row is what remains, at least 1. Squeeze widths stay.

    `net` is an export of a target after structured pruning. The result owns its memory and is an
    ordinary network, for statistics, evaluation, costs and files.
    """
    rows: list[Row] = []
    blocks: list[dict[str, Tensor]] = []
    for block, row in zip(net.blocks, net.arch.rows, strict=True):
        tensors = block.state_dict()
        if isinstance(row, InvertedResidual | Bottleneck):
            inners = INNER[type(row)]
            unread = [inner.unread(tensors) for inner in inners]
            mid = max(1, *(int((~channels).sum()) for channels in unread))
            for inner, channels in zip(inners, unread, strict=True):
                kept = channels.int().argsort(stable=True)[:mid].sort().values
                for name, dim in inner.dims.items():
                    if name in tensors:
                        tensors[name] = tensors[name].index_select(dim, kept)
            row = replace(row, mid=mid)
        rows.append(row)
        blocks.append(tensors)
    own = next(net.parameters())
    arch = net.arch
    if tuple(rows) != arch.rows:
        arch = replace(arch, rows=tuple(rows), name=f"{arch.name}_pruned")
    small = Network(arch, init=None).to(own.device, own.dtype)
    for block, tensors in zip(small.blocks, blocks, strict=True):
        block.load_state_dict(tensors)
    return small.train(net.training)
