"""The one network class.

`Network(arch)` owns the weights of `arch`. Called with a smaller architecture it runs that
sub-network on slices of the weights; called without, it is a plain static network. The supernet of
the search, the augmented network of NetAug and the exported target are all this class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nasaug.supernet.architecture import BLOCKS, Architecture, embed
from nasaug.supernet.leaves import ConvLeaf, Leaf
from nasaug.supernet.modules import ElasticConv, ElasticLinear, build
from nasaug.supernet.noise import Noise, drop_branches, drop_features, drop_squares
from nasaug.supernet.norms import ElasticNorm
from nasaug.supernet.quantised import Bits, rounded_activation
from nasaug.supernet.rows import Row, Skip

Init = Literal["kaiming_uniform", "fan_out"]


class Output(NamedTuple):
    """logits (N, num_classes); embedding (N, width), what the classifier reads, before dropout."""

    logits: Tensor
    embedding: Tensor


class Block(nn.Module):
    """One row: its leaves in sequence, and the residual addition."""

    bits: Bits | None = None

    def __init__(self, row: Row, in_channels: int) -> None:
        super().__init__()
        for leaf in row.leaves(in_channels):
            self.add_module(leaf.name, build(leaf))
        if (shortcut := row.shortcut(in_channels)) is not None:
            self.add_module(shortcut.name, build(shortcut))

    def forward(self, x: Tensor, row: PlannedRow, noise: Noise | None = None) -> Tensor:
        y = x
        for leaf in row.leaves:
            y = self._modules[leaf.name](y, leaf)  # type: ignore[misc]
        if row.residual:
            if noise is not None and noise.drop_path and row.depth:
                y = drop_branches(y, noise.drop_path * row.depth)
            if row.shortcut is not None:
                x = self._modules[row.shortcut.name](x, row.shortcut)  # type: ignore[misc]
            y = nn.functional.relu(y + x) if row.act_after_sum else y + x
            if self.bits is not None:
                y = rounded_activation(y, self.bits.activations)
        if noise is not None and noise.drop_block and row.late:
            y = drop_squares(y, noise.drop_block, noise.block_size)
        return y


class PlannedRow:
    """What one row of a sub-network asks of its block, worked out once per sub-network.

    `depth` is a residual row's place among those over the identity, 1 at the last, 0 for all other
    rows; `late` says whether the row is a block of the last two resolutions.
    """

    depth: float = 0.0
    late: bool = False

    def __init__(self, row: Row, in_channels: int, own_norms: bool = False) -> None:
        self.leaves = tuple(_of_norms(leaf, own_norms) for leaf in row.leaves(in_channels))
        shortcut = row.shortcut(in_channels)
        self.shortcut = None if shortcut is None else _of_norms(shortcut, own_norms)
        self.residual = row.residual
        self.act_after_sum = row.kind == "bottleneck"
        self.absent = isinstance(row, Skip)

    @property
    def parts(self) -> tuple[Leaf, ...]:
        """All leaves, that of the shortcut last."""
        return self.leaves if self.shortcut is None else (*self.leaves, self.shortcut)


class Network(nn.Module):
    """The weights of `arch`, initialised from `generator` (torch's default one if None).

    `init` is the scheme: "kaiming_uniform" (a = sqrt 5; NetAug's choice for augmented networks),
    "fan_out" (normal, for plain targets), or None to leave the memory as it is.
    """

    def __init__(
        self,
        arch: Architecture,
        init: Init | None = "kaiming_uniform",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.arch = arch
        self._with_own_norms: Architecture | None = None
        widths = arch.widths_in
        self.blocks = nn.ModuleList(
            Block(row, width) for row, width in zip(arch.rows, widths, strict=True)
        )
        if init is not None:
            initialise(self, init, generator)

    def forward(
        self, x: Tensor, sub: Architecture | None = None, noise: Noise | None = None
    ) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes), of the sub-network `sub` if given.

        `noise` disturbs the pass in training mode; see `Noise` for where its numbers come from.

        Raises: ValueError if `sub` is not inside this network.
        """
        return self.outputs(x, sub, noise).logits

    def outputs(
        self, x: Tensor, sub: Architecture | None = None, noise: Noise | None = None
    ) -> Output:
        """As a call, with what the classifier read: one pass for whoever needs both."""
        noise = self._heard(noise)
        plan = self.plan(sub)
        features = self._run(x, plan, 0, len(plan) - 1, noise)
        read = features if noise is None else drop_features(features, noise.dropout)
        return Output(self._run(read, plan, len(plan) - 1, len(plan)), features.flatten(1))

    def features(
        self, x: Tensor, sub: Architecture | None = None, noise: Noise | None = None
    ) -> Tensor:
        """x (N, in_channels, H, W) -> what the classifier reads, (N, width, 1, 1)."""
        plan = self.plan(sub)
        return self._run(x, plan, 0, len(plan) - 1, self._heard(noise))

    def feature_maps(
        self, x: Tensor, rows: Sequence[int], sub: Architecture | None = None
    ) -> list[Tensor]:
        """x (N, in_channels, H, W) -> what leaves each of `rows`, (N, width, H / stride, ...).

        `rows` are indices of this network's own rows, in ascending order; after one that `sub`
        lacks the features are as before it. No row behind the last of them is run.
        """
        plan, maps, start = self.plan(sub), [], 0
        for row in rows:
            x = self._run(x, plan, start, row + 1)
            maps.append(x)
            start = row + 1
        return maps

    def keep_rows(self, stop: int) -> None:
        """Drop the blocks from row `stop` on: what is left is a backbone for `feature_maps`."""
        for index in range(stop, len(self.blocks)):
            self.blocks[index] = nn.Identity()

    def export(self, sub: Architecture | None = None) -> Network:
        """A static network of its own memory that computes what `self(x, sub)` computes."""
        assert isinstance(self.blocks[-1], Block), "a backbone has no classifier to export"
        sub = self.arch if sub is None else sub
        own = next(self.parameters())
        small = Network(sub.canonical(), init=None).to(own.device, own.dtype)
        self.give(small, sub)
        return small.train(self.training)

    def give(self, small: Network, sub: Architecture) -> None:
        """Have `small`, a network of `sub`, compute what `self(x, sub)` does; rows that either of
        the two has dropped are passed over."""
        with torch.no_grad():
            for mine, theirs in self._pairs(small, sub):
                theirs.copy_(mine)

    def take(self, small: Network, sub: Architecture) -> None:
        """The other way: have `self(x, sub)` compute what `small`, a network of `sub`, does."""
        assert not any(isinstance(m, ElasticConv) and m.transforms for m in self.modules())
        with torch.no_grad():
            for mine, theirs in self._pairs(small, sub):
                mine.copy_(theirs)

    def _pairs(self, small: Network, sub: Architecture) -> Iterator[tuple[Tensor, Tensor]]:
        """The part of every tensor that `sub` uses, and the tensor of `small` that it is there."""
        present = iter(small.blocks)
        for block, row in zip(self.blocks, self.plan(sub), strict=True):
            if row.absent:
                continue
            other = next(present)
            if not isinstance(block, Block) or not isinstance(other, Block):
                continue
            tensors = other.state_dict(keep_vars=True)
            for leaf in row.parts:
                for name, tensor in getattr(block, leaf.name).sliced(leaf).items():
                    yield tensor, tensors[f"{leaf.name}.{name}"]

    def separate_norms(self, target: Architecture) -> None:
        """Give the sub-network `target` batch norms of its own, equal to the shared ones for now.

        Convolutions stay shared. All other sub-networks, and the whole, use the shared norms.

        Raises: ValueError if `target` is not inside this network, or all of it.
        """
        if target == self.arch:
            raise ValueError(f"{target.name} is the whole network: its norms are its own")
        self.plan(target)
        self._with_own_norms = target
        for module in self.modules():
            if isinstance(module, ElasticConv) and module.norm is not None:
                module.own_norm = copy.deepcopy(module.norm)

    def has_own_norms(self, sub: Architecture) -> bool:
        """Whether it is the sub-network that `separate_norms` was called with."""
        return sub == self._with_own_norms

    def learn_kernel_transforms(self) -> None:
        """Have smaller depthwise kernels made from larger ones by learned matrices, rather than by
        the centre crop alone, which they equal for now (Once-for-All, Cai et al., ICLR 2020)."""
        for module in self.modules():
            if isinstance(module, ElasticConv):
                module.learn_transforms()

    def round_to(self, bits: Bits | None) -> None:
        """Have every sub-network compute with numbers as coarse as those of its int8 version; None
        ends it. An export, and what a checkpoint keeps, knows nothing of it."""
        for module in self.modules():
            if isinstance(module, Block | ElasticConv | ElasticLinear):
                module.bits = bits

    @property
    def rounds(self) -> bool:
        """Whether it computes with coarse numbers; see `round_to`."""
        return any(getattr(module, "bits", None) is not None for module in self.modules())

    def plan(self, sub: Architecture | None = None) -> tuple[PlannedRow, ...]:
        """What a sub-network asks of each block. Raises: ValueError if it is not inside."""
        sub = self.arch if sub is None else sub
        return _plan_rows(_ByRows(sub), _ByRows(self.arch), self.has_own_norms(sub))

    def _heard(self, noise: Noise | None) -> Noise | None:
        """None where nothing would be disturbed, so that such a pass is the plain one."""
        return None if noise is None or noise.silent or not self.training else noise

    def _run(
        self,
        x: Tensor,
        plan: tuple[PlannedRow, ...],
        start: int,
        stop: int,
        noise: Noise | None = None,
    ) -> Tensor:
        for index in range(start, stop):
            if not plan[index].absent:
                x = self.blocks[index](x, plan[index], noise)
        return x


def initialise(net: Network, init: Init, generator: torch.Generator | None = None) -> None:
    """Convolutions by `init`, the classifier truncated normal (std 0.02), norms 1 and 0."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, ElasticConv):
                if init == "kaiming_uniform":
                    nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ElasticLinear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, ElasticNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _of_norms(leaf: Leaf, own: bool) -> Leaf:
    return replace(leaf, own_norm=True) if own and isinstance(leaf, ConvLeaf) else leaf


class _ByRows:
    """A cache key that, unlike architectures, tells an aligned table from its canonical form."""

    def __init__(self, arch: Architecture) -> None:
        self.arch = arch

    def __hash__(self) -> int:
        return hash(self.arch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _ByRows):
            return False
        return self.arch == other.arch and self.arch.rows == other.arch.rows


@lru_cache(maxsize=4096)
def _plan_rows(sub: _ByRows, whole: _ByRows, own_norms: bool) -> tuple[PlannedRow, ...]:
    aligned = sub.arch
    if aligned is not whole.arch:
        aligned = embed(aligned, whole.arch)
    widths = aligned.widths_in
    plan = tuple(
        PlannedRow(row, width, own_norms) for row, width in zip(aligned.rows, widths, strict=True)
    )
    _place_noise(aligned.rows, plan)
    return plan


def _place_noise(rows: tuple[Row, ...], plan: tuple[PlannedRow, ...]) -> None:
    """Where stochastic depth and DropBlock act: `depth` and `late` of every planned row."""
    droppable = [planned for row, planned in zip(rows, plan, strict=True) if row.keeps_shape]
    for count, planned in enumerate(droppable, 1):
        planned.depth = count / len(droppable)
    stride, strides = 1, {}
    for row, planned in zip(rows, plan, strict=True):
        stride *= row.downsampling
        if isinstance(row, BLOCKS):
            strides[planned] = stride
    last_two = sorted(set(strides.values()))[-2:]
    for planned, stride in strides.items():
        planned.late = stride in last_two
