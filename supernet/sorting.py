"""Channel sorting: the most important inner channels first.

A target inside a wider network uses the first channels. Sorting the inner channels of every
inverted residual by the L1 norm of the projection weights that read them (Once-for-All; NetAug
does so at the start of every epoch of its first half) hands the target the most important ones.
The whole network computes the same function before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nasaug.supernet.network import Network
from nasaug.supernet.rows import InvertedResidual

# The tensors of a block that have an inner channel dimension, and which it is.
OF_A_NORM = ("weight", "bias", "running_mean", "running_var")
INNER = {
    **{
        f"{conv}.{norm}.{tensor}": 0
        for conv in ("expand", "depthwise")
        for norm in ("norm", "own_norm")
        for tensor in OF_A_NORM
    },
    "expand.weight": 0,
    "depthwise.weight": 0,
    "squeeze.reduce.weight": 1,
    "squeeze.restore.weight": 0,
    "squeeze.restore.bias": 0,
    "project.weight": 1,
}
SQUEEZED = {"squeeze.reduce.weight": 0, "squeeze.reduce.bias": 0, "squeeze.restore.weight": 1}


def sort_channels(net: Network, companions: Sequence[Mapping[str, Tensor]] = ()) -> None:
    """Sort in place, stably, so that sorting twice changes nothing more.

    Boosted rows are passed over: no target shares them. `companions` are mappings from parameter
    names to tensors that must move along: momentum buffers, averaged weights. A name that is
    missing there is passed over.
    """
    with torch.no_grad():
        for index, (block, row) in enumerate(zip(net.blocks, net.arch.rows, strict=True)):
            if not isinstance(row, InvertedResidual) or row.boost:
                continue
            _permute(block, f"blocks.{index}.", "project.weight", INNER, companions)
            if row.squeeze:
                _permute(block, f"blocks.{index}.", "squeeze.restore.weight", SQUEEZED, companions)


def _permute(
    block: nn.Module,
    prefix: str,
    reader: str,
    dims: Mapping[str, int],
    companions: Sequence[Mapping[str, Tensor]],
) -> None:
    """Order the channels that `reader` reads (its dimension 1) by their L1 norm, largest first."""
    own = block.state_dict(keep_vars=True)
    importance = own[reader].abs().sum(dim=(0, 2, 3))
    order = importance.argsort(descending=True, stable=True)
    for name, dim in dims.items():
        moved = [own.get(name), *(mapping.get(prefix + name) for mapping in companions)]
        for tensor in moved:
            if tensor is not None:
                tensor.copy_(tensor.index_select(dim, order))
