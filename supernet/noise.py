"""Noise that regularises a training pass: dropout, stochastic depth, DropBlock.

Which of them help a network that under-fits is what NetAug is contrasted with. They are an argument
of the pass, as the sub-network is, and never state of a module.

- Dropout (Srivastava et al., 2014): of what the classifier reads.
- Stochastic depth (Huang et al., 2016; arXiv 1603.09382): the branch of the l-th of L residual rows
  is dropped for a sample with probability p_l = (l / L) p, and scaled by 1 / (1 - p_l) otherwise.
- DropBlock (Ghiasi et al., 2018; arXiv 1810.12890): squares of a feature map are zeroed, the rest
  scaled to the same mean. The rate is the share of the map that is zeroed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

RATES = ("dropout", "drop_path", "drop_block")


@dataclass(frozen=True)
class Noise:
    """What a training pass is disturbed by; `Noise()` is nothing. It acts in training mode only.

    `dropout` is the rate on what the classifier reads. `drop_path` is the rate of stochastic depth
    at the last residual row over the identity; it rises linearly with depth, counted over the rows
    of the sub-network that runs. `drop_block` is the rate of DropBlock on the output of every block
    of the last two resolutions (the last two groups of the paper's ResNet), `block_size` the side
    of its squares, cut to the largest odd number that fits into the map. (The paper lets the rate
    rise over the training: pass another `Noise` at every step.)

    The random numbers come from torch's global generator of the device, which the caller seeds.

    Raises: ValueError for a rate outside [0, 1) and for a block size that is even or below 1.
    """

    dropout: float = 0.0
    drop_path: float = 0.0
    drop_block: float = 0.0
    block_size: int = 7

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise ValueError(f"{name} must be a rate from 0 to below 1, but got {rate!r}")
        size = self.block_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"block_size must be an odd integer of at least 1, but got {size!r}")

    @property
    def silent(self) -> bool:
        """Whether it changes nothing."""
        return not (self.dropout or self.drop_path or self.drop_block)


def drop_features(x: Tensor, rate: float) -> Tensor:
    """Dropout of single values, the rest scaled by 1 / (1 - rate)."""
    return F.dropout(x, rate) if rate else x


def drop_branches(branch: Tensor, rate: float) -> Tensor:
    """Stochastic depth: branch (N, C, H, W), zeroed for a sample with probability `rate`."""
    from torchvision.ops import stochastic_depth  # torchvision takes as long to load as torch

    dropped: Tensor = stochastic_depth(branch, rate, "row")
    return dropped


def drop_squares(x: Tensor, rate: float, size: int) -> Tensor:
    """DropBlock: x (N, C, H, W) with squares of side `size` zeroed, or less where none fits."""
    from torchvision.ops import drop_block2d

    size = min(size, *x.shape[2:])
    dropped: Tensor = drop_block2d(x, rate, size - 1 + size % 2)
    return dropped
