"""Structured pruning: whole inner channels go, and what is left is a smaller network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasaug.netaug import (
    Augmentation,
    NetAugOptions,
    PruneOptions,
    compact,
    netaug_step,
    pruning_step,
    sparsity_of,
)
from nasaug.netaug.masks import kept_channels
from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Network,
    count_with_fvcore,
    load_target,
    macs,
    params,
)
from nasaug.training import (
    Batch,
    Losses,
    Recipe,
    RunFolder,
    State,
    fit,
    load_weights,
    plain_step,
    save_weights,
)
from nasaug.training.gradients import Gradients

Weights = dict[str, Tensor]
BOTTLENECKS = Architecture(
    (
        Conv(3, 2, 16, "relu"),
        Bottleneck(32, 32, projection=True),
        Bottleneck(32, 32),
        Bottleneck(24, 64, 2, projection=True),
        GlobalAvgPool(),
        Linear(10),
    ),
    resolution=32,
    name="bottlenecks",
)
RECIPE = Recipe(epochs=2, batch_size=8, lr=0.1, weight_decay=0.01, ema=0.8)


def _target(name: str) -> Architecture:
    if name == "bottlenecks":
        return BOTTLENECKS
    if name == "micro_10k":
        return load_target(name, 10, in_channels=1)
    return load_target(name, 10, resolution=32)


TARGETS = ("micro_10k", "mbv2_tiny", "mbv3_w035", "bottlenecks")


def _network(arch: Architecture, dtype: torch.dtype = torch.float64) -> Network:
    """Weights, norms and running statistics at random."""
    generator = torch.Generator().manual_seed(0)
    net = Network(arch, generator=generator).to(dtype).eval()
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 1:
            drawn = torch.rand(tensor.shape, generator=generator, dtype=dtype)
            tensor.copy_(drawn + 0.5 if name.endswith(("weight", "var")) else drawn - 0.5)
    return net


def _images(arch: Architecture, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (4, arch.in_channels, arch.resolution, arch.resolution)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _nothing(net: Network, batch: Batch, state: State) -> Losses:
    return {}


def _prune(net: Network, target: Architecture, sparsity: float, divisor: int = 8) -> None:
    """To the sparsity, at once."""
    options = PruneOptions(
        kind="structured", sparsity=sparsity, begin=0.5, until=0.51, updates=1, divisor=divisor
    )
    state = State(RECIPE, 50, 100, 10, 0, nullcontext, lambda: [])
    state.gradients = Gradients(net)
    pruning_step(_nothing, target, options)(net, (torch.zeros(0), torch.zeros(0)), state)


def _mids(arch: Architecture) -> list[int]:
    return [row.mid for row in arch.rows if isinstance(row, InvertedResidual | Bottleneck)]


def _weights(net: Network) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


# How many channels stay.


def test_kept_channels_by_hand() -> None:
    for channels, sparsity, divisor, expected in (
        (48, 0.5, 8, 24),
        (48, 0.4, 8, 32),  # 28.8 is nearer to 32 than to 24
        (48, 0.9, 8, 8),
        (48, 0.99, 8, 8),
        (48, 0.99, 1, 1),
        (50, 0.5, 1, 25),
        (6, 0.5, 8, 6),
        (48, 0.01, 8, 48),
    ):
        assert kept_channels(channels, sparsity, divisor) == expected


@given(st.integers(1, 5000), st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.integers(1, 64))
def test_kept_channels_are_multiples_near_what_was_asked(
    channels: int, one: float, other: float, divisor: int
) -> None:
    few, many = (
        kept_channels(channels, sparsity, divisor) for sparsity in sorted((one, other))[::-1]
    )
    assert 1 <= few <= many <= channels
    for kept, sparsity in ((few, max(one, other)), (many, min(one, other))):
        assert kept == channels or kept % divisor == 0
        wanted = channels * (1 - sparsity)
        assert kept in (divisor, channels) or abs(kept - wanted) <= divisor
        assert kept >= min(channels, 0.9 * wanted - 1e-9)


# Which channels go.


@pytest.mark.parametrize("name", TARGETS)
def test_the_least_read_channels_go_with_all_that_belongs_to_them(name: str) -> None:
    target = _target(name)
    net = _network(target)
    before = _weights(net)
    _prune(net, target, 0.5)
    after = _weights(net)
    expected = {key: tensor.clone() for key, tensor in before.items()}
    for index, row in enumerate(target.rows):
        if not isinstance(row, InvertedResidual | Bottleneck):
            continue
        inner = [("expand", "depthwise", "project")]
        if isinstance(row, Bottleneck):
            inner = [("reduce", "spatial"), ("spatial", "restore")]
        for leaves in inner:
            *made, reader = (f"blocks.{index}.{leaf}" for leaf in leaves)
            importance = before[f"{reader}.weight"].abs().sum((0, 2, 3))
            kept = max(8, int(row.mid / 16 + 0.5) * 8)
            gone = importance.sort(stable=True).indices[: row.mid - kept]
            assert 0 < len(gone) < row.mid
            expected[f"{reader}.weight"][:, gone] = 0
            for leaf in made:
                for part in ("weight", "norm.weight", "norm.bias"):
                    expected[f"{leaf}.{part}"][gone] = 0
            if getattr(row, "squeeze", None):
                expected[f"blocks.{index}.squeeze.reduce.weight"][:, gone] = 0
                expected[f"blocks.{index}.squeeze.restore.weight"][gone] = 0
                expected[f"blocks.{index}.squeeze.restore.bias"][gone] = 0
    assert [key for key in after if not torch.equal(after[key], expected[key])] == []


def test_a_target_without_inner_channels_is_refused() -> None:
    rows = (Conv(3, 2, 8, "relu"), GlobalAvgPool(), Linear(10))
    target = Architecture(rows, 32, name="plain")
    message = (
        "structured pruning removes the inner channels of inverted residuals and bottlenecks, but "
        "plain has none; use kind unstructured"
    )
    with pytest.raises(ValueError, match=message):
        pruning_step(plain_step, target, PruneOptions(kind="structured"))


# The smaller network.


@pytest.mark.parametrize("divisor", [1, 8])
@pytest.mark.parametrize("name", TARGETS)
def test_compact_network_computes_what_the_pruned_one_does(name: str, divisor: int) -> None:
    """In eval mode and on batch statistics."""
    target = _target(name)
    net = _network(target)
    before = net(_images(target))
    _prune(net, target, 0.4, divisor)
    small = compact(net)
    assert not small.training
    for training in (False, True):
        with torch.no_grad():
            expected = net.train(training)(_images(target))
            found = small.train(training)(_images(target))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(expected, before)
    for row, mid in zip(_mids(target), _mids(small.arch), strict=True):
        assert mid < row
        assert mid % divisor == 0


@pytest.mark.parametrize("name", TARGETS)
def test_compact_network_in_float32(name: str) -> None:
    target = _target(name)
    net = _network(target, torch.float32)
    _prune(net, target, 0.5)
    images = _images(target, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(compact(net)(images), net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_compact_network_is_truly_smaller(name: str, tmp_path: Path) -> None:
    """Its costs are those that fvcore and its own parameters say; it is saved and loaded."""
    target = _target(name)
    net = _network(target, torch.float32)
    _prune(net, target, 0.5)
    small = compact(net)
    assert sum(p.numel() for p in small.parameters()) == params(small.arch) < params(target)
    counted = count_with_fvcore(small.arch)
    assert counted["conv"] + counted["linear"] == macs(small.arch) < macs(target)
    assert sparsity_of(small) == 0 < sparsity_of(net)
    save_weights(tmp_path / "small.safetensors", small)
    loaded = load_weights(tmp_path / "small.safetensors")
    assert loaded.arch == small.arch
    assert loaded.arch.name == f"{target.name}_pruned"
    images = _images(target, torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(images), small(images))


def test_half_of_micro_by_hand(micro: Architecture) -> None:
    """Rows of 32, 48, 48 and 64 inner channels that are read at 14, 7, 7 and 4 pixels."""
    net = _network(micro)
    _prune(net, micro, 0.5)
    small = compact(net).arch
    assert _mids(micro) == [32, 48, 48, 64]
    assert _mids(small) == [16, 24, 24, 32]
    rows = 32 * (8 * 14**2 + (9 + 12) * 7**2) + 48 * (12 + 9 + 12) * 7**2
    rows += 48 * (12 * 7**2 + (9 + 16) * 4**2) + 64 * (16 + 9 + 16) * 4**2
    assert macs(micro) - macs(small) == rows // 2
    # A channel has its weights and two norms of two values.
    channels = 32 * (8 + 9 + 12 + 4) + 48 * (12 + 9 + 12 + 4) + 48 * (12 + 9 + 16 + 4)
    assert params(micro) - params(small) == (channels + 64 * (16 + 9 + 16 + 4)) // 2


def test_squeeze_widths_stay() -> None:
    target = _target("mbv3_w035")
    net = _network(target)
    _prune(net, target, 0.5)
    squeezes = [getattr(row, "squeeze", None) for row in target.rows]
    assert [getattr(row, "squeeze", None) for row in compact(net).arch.rows] == squeezes
    assert any(squeezes)


def test_network_that_was_not_pruned_is_copied(micro: Architecture) -> None:
    net = _network(micro).train()
    small = compact(net)
    assert small.arch == micro and small.arch.name == micro.name
    assert small.training
    own = net.state_dict()
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert tensor.data_ptr() != own[name].data_ptr()


def test_channel_that_only_the_squeeze_reads_stays() -> None:
    """It still decides how the others are scaled."""
    target = _target("mbv3_w035")
    net = _network(target)
    index = next(i for i, row in enumerate(target.rows) if getattr(row, "squeeze", None))
    with torch.no_grad():
        dict(net.named_parameters())[f"blocks.{index}.project.weight"][:, :5] = 0
        small = compact(net)
        assert small.arch == target
        torch.testing.assert_close(small(_images(target)), net(_images(target)))


@pytest.mark.parametrize("name", ["micro_10k", "bottlenecks"])
def test_row_that_nothing_reads_keeps_a_channel(name: str) -> None:
    target = _target(name)
    net = _network(target)
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if key.startswith("blocks.2."):
                weight.zero_()
        small = compact(net)
        assert _mids(small.arch).count(1) == 1
        torch.testing.assert_close(small(_images(target)), net(_images(target)))


def test_bottleneck_keeps_as_many_as_the_fuller_of_its_two_widths() -> None:
    net = _network(BOTTLENECKS)
    with torch.no_grad():
        own = dict(net.named_parameters())
        own["blocks.1.spatial.weight"][:, :10] = 0
        own["blocks.1.restore.weight"][:, 5:9] = 0
        small = compact(net)
        assert _mids(small.arch) == [28, 32, 24]
        images = _images(BOTTLENECKS)
        torch.testing.assert_close(small(images), net(images))


# Training.


class Batches:
    """The same eight batches of random images in every epoch."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self._batches = [
            (
                torch.randn(8, 1, 16, 16, generator=generator),
                torch.randint(0, 10, (8,), generator=generator),
            )
            for _ in range(8)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from self._batches[start:]


@pytest.mark.parametrize("inside", [False, True])
def test_training_ends_in_a_smaller_network(
    inside: bool,
    micro: Architecture,
    augmentation: Augmentation,
    tmp_path: Path,
) -> None:
    """Alone and with sampled larger networks; a channel that is off stays off."""
    arch = augmentation.largest.canonical() if inside else micro
    step = netaug_step(augmentation, NetAugOptions()) if inside else plain_step
    options = PruneOptions(kind="structured", sparsity=0.5, begin=0.5, until=0.9, divisor=4)
    net = Network(arch, generator=torch.Generator().manual_seed(0))
    widths, gone = [], []

    def watch(*_: object) -> None:
        exported = net.export(micro)
        widths.append(_mids(compact(exported).arch))
        weights = _weights(exported)
        gone.append({k: w == 0 for k, w in weights.items() if k.endswith("project.weight")})

    used = fit(
        net,
        pruning_step(step, micro, options),
        Batches(),  # type: ignore[arg-type]
        RECIPE,
        RunFolder(tmp_path),
        watch=watch,
    )
    assert widths[0] == widths[11] == [32, 48, 48, 64]
    assert widths[-1] == [16, 24, 24, 32]
    assert len({tuple(mids) for mids in widths}) > 3
    for before, after in pairwise(gone):
        assert all(after[name][mask].all() for name, mask in before.items())
    exported = used.export(micro)
    small = compact(exported)
    assert _mids(small.arch) == [16, 24, 24, 32]
    with torch.no_grad():
        images = _images(micro, torch.float32)
        expected = exported.eval()(images)
        torch.testing.assert_close(small.eval()(images), expected, rtol=1e-4, atol=1e-5)


def test_removed_channels_are_off_in_every_larger_network(
    micro: Architecture, augmentation: Augmentation
) -> None:
    """What the larger network has beside the target's slice of such a channel does not count."""
    net = _network(augmentation.largest.canonical())
    _prune(net, micro, 0.5)
    images = _images(micro)
    own = dict(net.named_parameters())
    project = _weights(net.export(micro))["blocks.3.project.weight"]
    removed = (project == 0).all(0).flatten().nonzero().flatten()
    assert len(removed) == 24
    with torch.no_grad():
        before = net(images)
        for leaf, dim in (("expand", 0), ("depthwise", 0), ("project", 1)):
            weight = own[f"blocks.3.{leaf}.weight"]
            beside = (weight != 0).index_select(dim, removed)
            assert beside.any() == (leaf != "depthwise")
            weight.index_add_(dim, removed, beside * torch.tensor(7.0).double())
        assert torch.equal(net(images), before)
        own["blocks.3.expand.norm.bias"][removed] = 1.0
        own["blocks.3.depthwise.weight"][removed] = 1.0
        own["blocks.3.depthwise.norm.weight"][removed] = 1.0
        assert not torch.allclose(net(images), before)
