"""Our targets with the methods that timm's training programs and feature extractors call.

`TimmNetwork` is a classifier, `FeatureMaps` what of it makes feature maps. Both have the tensors of
our weights.safetensors by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import FeatureInfo, checkpoint
from torch import Tensor, nn

from nasaug.plain_network import plain_blocks
from nasaug.supernet import (
    Architecture,
    Conv,
    GlobalAvgPool,
    Network,
    did_you_mean,
    load_target,
)

POOLS = ("avg", "max", "avgmax", "catavgmax")


class Rows(nn.Module):
    """Rows of a target up to some row. Loads weights of the whole target, and passes over those
    that it has no place for.

    Raises: ValueError for an output stride that is not the target's own.
    """

    pretrained_cfg: dict[str, Any]
    """Set by timm, when it has built the network."""

    def __init__(
        self, cfg: str, in_chans: int, stop: int | None, output_stride: int | None
    ) -> None:
        super().__init__()
        arch = load_target(cfg, in_channels=in_chans)
        strides = _strides(arch)
        if output_stride not in (None, strides[-1]):
            raise ValueError(
                f"output_stride of {cfg} is {strides[-1]}, and no row can be dilated in place of "
                f"striding, but got {output_stride}; leave it out"
            )
        fresh = Network(arch, "fan_out").state_dict()
        self.in_chans = in_chans
        self.grad_checkpointing = False
        self.whole = frozenset(fresh)
        self.blocks = plain_blocks(arch.rows[:stop], in_chans)
        self.load_state_dict(fresh)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's. What of the whole target has no place here is passed over."""
        own = self.state_dict()
        # The one tensor of torch's batch norms that ours do not have.
        ours = {name: name.replace("num_batches_tracked", "running_mean") for name in state_dict}
        fitting = {
            name: tensor
            for name, tensor in state_dict.items()
            if name in own or ours[name] not in self.whole
        }
        return super().load_state_dict(fitting, strict, assign)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: what is inside a block is computed anew in the backward pass."""
        self.grad_checkpointing = enable

    def _maps(self, x: Tensor, stop: int, taken: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """What leaves the last of the first `stop` rows, and those `taken`, in their order."""
        maps = {}
        for index in range(stop):
            block = self.blocks[index]
            recomputed = self.grad_checkpointing and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x) if recomputed else block(x)
            if index in taken:
                maps[index] = x
        return x, [maps[index] for index in taken]


class TimmNetwork(Rows):
    """The target named `cfg`, as timm's classifiers are: images (N, in_chans, H, W) -> logits.

    `global_pool` is one of `POOLS` (catavgmax is twice as wide), or "" without a classifier;
    `num_classes` 0 is without a classifier.

    Raises: ValueError for what the target cannot have.
    """

    def __init__(
        self,
        cfg: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int | None = None,
    ) -> None:
        super().__init__(cfg, in_chans, None, output_stride)
        arch = load_target(cfg, in_channels=in_chans)
        self.feature_info = feature_info(arch)
        self.drop_rate = drop_rate
        self._pool = pool_index(arch)
        self._last = len(arch.rows) - 1
        self._width = arch.widths_in[-1]
        self.num_features = arch.widths_in[self._pool]
        self.reset_classifier(num_classes, global_pool)

    @property
    def global_pool(self) -> Any:
        return self.blocks[self._pool]

    def get_classifier(self) -> nn.Module:
        return self.blocks[self._last].get_submodule("linear")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, and another pooling in front of it where one is given.

        Raises: ValueError for a pooling that is unknown or that the rows after it cannot read.
        """
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        if pool and pool not in POOLS:
            raise ValueError(f"unknown global_pool {pool!r}: {did_you_mean(pool, POOLS)}")
        if not pool and num_classes > 0:
            raise ValueError(
                "without pooling (global_pool '') there is no classifier; use num_classes=0, or "
                f"one of {', '.join(POOLS)}"
            )
        if pool == "catavgmax" and self._last > self._pool + 1:
            raise ValueError(
                "global_pool catavgmax is twice as wide as the convolution after it reads; use "
                "avg, max or avgmax"
            )
        self.num_classes = num_classes
        self.blocks[self._pool] = SelectAdaptivePool2d(pool_type=pool).train(self.training)
        self.head_hidden_size = self._width * self.global_pool.feat_mult()
        classifier: nn.Module = nn.Identity()
        if num_classes > 0:
            like = next(self.parameters())
            made = nn.Linear(self.head_hidden_size, num_classes).to(like.device, like.dtype)
            nn.init.trunc_normal_(made.weight, std=0.02)
            nn.init.zeros_(made.bias)
            classifier = made
        self.blocks[self._last].add_module("linear", classifier.train(self.training))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """images -> what the pooling reads (N, num_features, H / stride, W / stride)."""
        return self._maps(x, self._pool)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gave -> logits; with `pre_logits` what the classifier reads."""
        for index in range(self._pool, self._last):
            x = self.blocks[index](x)
        if self.global_pool.pool_type:
            x = x.flatten(1)
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The feature maps `indices` (all if None, the last n if an integer), and beside them what
        `forward_features` gives, unless `intermediates_only`.

        Raises: ValueError for an unknown index and for another format than NCHW.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, but got {output_fmt!r}")
        rows = [self.feature_info[i]["row"] for i in taken(len(self.feature_info), indices)]
        stop = max(rows) + 1 if stop_early and intermediates_only else self._pool
        x, maps = self._maps(x, stop, rows)
        return maps if intermediates_only else (x, maps)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters belong together, for learning rates that differ by depth."""
        return {"stem": r"^blocks\.0", "blocks": r"^blocks\.(\d+)"}


class FeatureMaps(Rows):
    """images (N, in_chans, H, W) -> a list of feature maps, one for each of `out_indices`.

    `feature_info` says their channels and strides. No row behind the last of them is kept.

    Raises: ValueError for an unknown index, and for an output stride that is not the target's own.
    """

    def __init__(
        self,
        cfg: str,
        in_chans: int = 3,
        out_indices: int | Sequence[int] | None = None,
        output_stride: int | None = None,
    ) -> None:
        arch = load_target(cfg, in_channels=in_chans)
        info = feature_info(arch)
        indices = taken(len(info), out_indices)
        self._stop = max(info[i]["row"] for i in indices) + 1
        super().__init__(cfg, in_chans, self._stop, output_stride)
        self.feature_info = FeatureInfo(info, tuple(indices))
        self._rows = [info[i]["row"] for i in indices]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self._maps(x, self._stop, self._rows)[1]


def feature_info(arch: Architecture) -> list[dict[str, Any]]:
    """For every stride the last row that makes maps of it, but for the 1x1 convolution behind the
    blocks; as timm's own MobileNetV2 and ResNet do."""
    stop = pool_index(arch)
    while isinstance(arch.rows[stop - 1], Conv) and stop > 1:
        stop -= 1
    strides = _strides(arch)[:stop]
    last = {stride: row for row, stride in enumerate(strides)}
    return [
        {
            "num_chs": arch.widths_in[row + 1],
            "reduction": stride,
            "module": f"blocks.{row}",
            "row": row,
        }
        for stride, row in last.items()
    ]


def taken(count: int, indices: int | Sequence[int] | None) -> list[int]:
    """Indices of feature maps: all `count` if None, the last n if an integer; below 0 from the end.

    Raises: ValueError for one that is not there.
    """
    if isinstance(indices, int):
        indices = range(-indices, 0)
    chosen = list(range(count) if indices is None else indices)
    wrong = [index for index in chosen if not -count <= index < count]
    if wrong or not chosen:
        raise ValueError(
            f"there are {count} feature maps, 0 to {count - 1}, but out_indices asks for "
            f"{wrong[0] if wrong else 'none'}"
        )
    return [index % count for index in chosen]


def pool_index(arch: Architecture) -> int:
    """The row of the global pooling."""
    return next(i for i, row in enumerate(arch.rows) if isinstance(row, GlobalAvgPool))


def _strides(arch: Architecture) -> list[int]:
    """The total stride after each row."""
    return list(accumulate((row.downsampling for row in arch.rows), mul))
