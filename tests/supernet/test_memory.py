"""Activation memory against what torch runs, traced, and against ExecuTorch's memory planner."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Network,
    Row,
    SearchSpace,
    flash_size,
    load_target,
    peak_memory,
    row_costs,
)

Members = Callable[[str, int], list[Architecture]]
# What int8 kernels do while they write a convolution's or a sum's result.
FUSED = ("batch_norm", "relu", "hardtanh", "clamp", "hardswish", "hardsigmoid")


class _Ran(NamedTuple):
    """An operation as torch ran it: tensors by number, and a channel's size if it is depthwise."""

    name: str
    reads: list[int]
    made: int
    channel: int | None


class _Tracer(TorchDispatchMode):
    """Writes down every operation on activations. Views and what is in place make no tensor; nor
    does what `fused` names, which is part of the operation before."""

    def __init__(self, image: torch.Tensor, fused: tuple[str, ...]) -> None:
        super().__init__()
        self.sizes, self.ran = [image.numel()], list[_Ran]()
        self._fused, self._kept = fused, [image]
        self._numbers = {_place(image): 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [one for one in tree_flatten(args)[0] if isinstance(one, torch.Tensor)]
        reads = [self._numbers[_place(one)] for one in given if _place(one) in self._numbers]
        made = result[0] if isinstance(result, tuple) else result
        if reads and _place(made) not in self._numbers:
            self._kept.append(made)  # a place is not used twice while its tensor lives
            number = reads[0]
            if not any(name in str(func) for name in self._fused):
                self.sizes.append(made.numel())
                number = len(self.sizes) - 1
                self.ran.append(_Ran(str(func), reads, number, _channel(func, args)))
            self._numbers[_place(made)] = number
        return result


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _channel(func: Any, args: Any) -> int | None:
    if "convolution" not in str(func):
        return None
    image, weight, groups = args[0], args[1], args[8]
    alone = groups == image.shape[1] == weight.shape[0]
    return image[0, 0].numel() if alone else None


def _traced(arch: Architecture, fused: tuple[str, ...] = FUSED) -> tuple[int, int]:
    """The peaks, in values, of what torch runs for `arch`: nothing in place, and in place."""
    arch = arch.canonical()
    with torch.device("meta"):
        net = Network(arch, init=None).eval()
        image = torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution)
    with torch.no_grad(), _Tracer(image, fused) as tracer:
        net(image)
    last = {tensor: step for step, ran in enumerate(tracer.ran) for tensor in ran.reads}
    born = {ran.made: step for step, ran in enumerate(tracer.ran)} | {0: 0}
    plain = in_place = 0
    for step, ran in enumerate(tracer.ran):
        others = [
            size
            for tensor, size in enumerate(tracer.sizes)
            if tensor != ran.made and born[tensor] <= step <= last.get(tensor, len(tracer.ran))
        ]
        size = tracer.sizes[ran.made]
        spares = [size]
        dying = [one for one in ran.reads if last[one] == step and tracer.sizes[one] >= size]
        if dying and any(name in ran.name for name in ("aten.add.", "aten.mul.")):
            spares.append(0)
        if dying and ran.channel is not None:
            spares.append(ran.channel)
        plain = max(plain, sum(others) + size)
        in_place = max(in_place, sum(others) + min(spares))
    return plain, in_place


def _computed(arch: Architecture) -> tuple[int, int]:
    return peak_memory(arch), peak_memory(arch, in_place=True)


def test_peaks_of_every_target_are_the_traced_ones(target_name: str) -> None:
    for arch in (load_target(target_name), load_target(target_name, 10, 50, in_channels=1)):
        assert _computed(arch) == _traced(arch)


def test_peaks_of_members_are_the_traced_ones(space_name: str, members_of: Members) -> None:
    for member in members_of(space_name, 4):
        assert _computed(member) == _traced(member)


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(["mbv3_w035", "mcunet"]), seed=st.integers(0, 10**6))
def test_peaks_of_any_member_are_the_traced_ones(
    space_of: Callable[[str], SearchSpace], name: str, seed: int
) -> None:
    member = space_of(name).sample(random.Random(seed))
    assert _computed(member) == _traced(member)


NUMBER, KERNEL, STRIDE = st.integers(1, 40), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2])
ACT = st.sampled_from(["none", "relu", "relu6", "hardswish"])


@st.composite
def _architectures(draw: st.DrawFn) -> Architecture:
    rows: list[Row] = []
    width = channels = draw(st.sampled_from([1, 3]))
    for _ in range(draw(st.integers(1, 6))):
        kernel, act, out, mid = draw(KERNEL), draw(ACT), draw(NUMBER), draw(NUMBER)
        stride, skip, squeeze = draw(STRIDE), draw(st.booleans()), draw(st.none() | NUMBER)
        if skip:
            stride, out = 1, width
        kinds: dict[str, Row] = {
            "conv": Conv(kernel, stride, out, act),
            "bare": Conv(kernel, stride, out, act, norm=False),
            "separable": DepthwiseSeparable(kernel, stride, out, act, skip, squeeze),
            "inverted": InvertedResidual(kernel, stride, mid, out, act, skip, squeeze),
            "bottleneck": Bottleneck(mid, out, stride, projection=not skip, kernel=kernel),
            "pool": MaxPool(kernel, stride),
        }
        row = kinds[draw(st.sampled_from(sorted(kinds)))]
        boosted = draw(st.booleans()) and getattr(row, "boostable", False)
        rows.append(replace(row, boost=4) if boosted else row)  # type: ignore[call-arg]
        width = rows[-1].out_channels(width)
    ends = (GlobalAvgPool(), Linear(draw(st.integers(2, 60))))
    return Architecture((*rows, *ends), draw(st.integers(1, 20)), channels, "drawn")


@settings(max_examples=80, deadline=None)
@given(arch=_architectures())
def test_peaks_of_any_network_are_the_traced_ones(arch: Architecture) -> None:
    assert _computed(arch) == _traced(arch)


def test_the_peak_is_the_largest_of_the_rows(target_name: str) -> None:
    target, rows = load_target(target_name), row_costs(load_target(target_name))
    assert peak_memory(target) == max(row.memory for row in rows)
    assert peak_memory(target, in_place=True) == max(row.memory_in_place for row in rows)
    assert all(row.memory_in_place <= row.memory for row in rows)
    assert peak_memory(target, bytes_each=4) == 4 * peak_memory(target)


def test_peak_memory_of_a_strided_block_by_hand() -> None:
    """mbv2_tiny's peak is its second block's depthwise, 48 channels at 72 x 72 in, 36 x 36 out; in
    place that takes one channel more than its input, and the 8 channels that become 48 more."""
    arch = load_target("mbv2_tiny")
    assert peak_memory(arch) == 48 * 72**2 + 48 * 36**2
    assert peak_memory(arch, in_place=True) == (8 + 48) * 72**2


def test_mcunet_fits_the_device_that_it_was_made_for() -> None:
    """320 KB of SRAM and 1 MB of flash, only with in-place depthwise (Lin et al., NeurIPS 2020)."""
    arch = load_target("mcunet")
    assert peak_memory(arch, in_place=True) <= 320 * 1024 < peak_memory(arch)
    assert flash_size(arch) <= 2**20


@pytest.mark.parametrize(
    ("name", "memory", "flash"), [("mbv2_tiny", 308, 862), ("mcunet", 293, 897)]
)
def test_tinyengine_measures_what_its_own_buffers_and_program_add(
    name: str, memory: int, flash: int
) -> None:
    """kB on an STM32F746, from the README of mit-han-lab/mcunet (mbv2-320kB, mcunet-320kB)."""
    arch = load_target(name)
    assert 0.8 * memory < peak_memory(arch, in_place=True) / 1024 < memory
    assert 0.8 * flash < flash_size(arch) / 1024 < flash


def _of_rows(*rows: Row, size: int) -> Architecture:
    return Architecture((*rows, GlobalAvgPool(), Linear(2)), size, name="small")


def test_squeeze_and_excitation_keeps_its_input_and_its_scale() -> None:
    """16 channels at 4 x 4: what is scaled, the 16 scales, and what comes of it (or nothing)."""
    row = InvertedResidual(3, 1, 16, 2, "relu", False, squeeze=4)
    (_, cost, *_) = row_costs(_of_rows(Conv(1, 1, 2, "relu"), row, size=4))
    assert cost.memory == 16 * 16 + 16 + 16 * 16
    assert cost.memory_in_place == max(16 * 16 + 16, 2 * 16 + 16 * 16, 17 * 16)


def test_the_input_of_a_residual_depthwise_is_not_written_over() -> None:
    stem, kept = Conv(1, 1, 8, "relu"), DepthwiseSeparable(3, 1, 8, "relu", skip=True)
    (_, cost, *_) = row_costs(_of_rows(stem, kept, size=5))
    assert cost == replace(cost, memory=3 * 8 * 25, memory_in_place=3 * 8 * 25)
    (_, free, *_) = row_costs(_of_rows(stem, replace(kept, skip=False), size=5))
    assert (free.memory, free.memory_in_place) == (2 * 8 * 25, 2 * 8 * 25)


@pytest.mark.parametrize(("channels", "takes"), [(2, 2 * 36 + 2 * 9), (8, 9 * 36)])
def test_a_depthwise_is_in_place_only_where_that_saves(channels: int, takes: int) -> None:
    """With stride 2 a channel of the input is as large as four of the result."""
    narrow = DepthwiseSeparable(3, 2, 1, "relu")
    (_, cost, *_) = row_costs(_of_rows(Conv(1, 1, channels, "relu"), narrow, size=6))
    assert cost.memory_in_place == takes


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 6),
    size=st.integers(1, 9),
    kernel=KERNEL,
    stride=STRIDE,
    seed=st.integers(0, 99),
)
def test_a_depthwise_can_write_over_its_input(
    channels: int, size: int, kernel: int, stride: int, seed: int
) -> None:
    """Done in one buffer as large as the input and one as large as its channel, pixel by pixel with
    the channels together (as TinyEngine lays it out), for both strides."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(channels, size, size, generator=generator)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator)
    expected = torch.conv2d(image, weight, None, stride, kernel // 2, 1, channels)
    buffer, scratch = image.permute(1, 2, 0).flatten().clone(), torch.empty(size**2)
    for channel in range(channels):
        scratch.copy_(buffer[channel::channels])
        plane = scratch.view(1, size, size)
        made = torch.conv2d(plane, weight[channel : channel + 1], None, stride, kernel // 2)
        buffer[channel::channels][: made.numel()] = made.flatten()
    result = buffer[: expected.numel()].view(*expected.shape[1:], channels).permute(2, 0, 1)
    torch.testing.assert_close(result, expected)


@pytest.fixture(scope="module")
def planned() -> Callable[[Architecture], int]:
    """Bytes that ExecuTorch's planner sets aside for a network's activations, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exir = pytest.importorskip(
            "executorch.exir",
            reason="ExecuTorch is not installed: its memory planner is NOT compared with ours",
        )

    def plan(arch: Architecture) -> int:
        image = torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(Network(arch).eval(), (image,))
            program = exir.to_edge(exported).to_executorch().executorch_program
        return sum(program.execution_plan[0].non_const_buffer_sizes)

    return plan


def _bare(arch: Architecture) -> Architecture:
    """`arch` without norms and activations, which ExecuTorch's portable kernels do not fuse."""
    rows = [Conv(3, 2, 8, "none", norm=False), Conv(1, 1, 48, "none", norm=False)]
    return replace(arch, rows=(*rows, Conv(3, 2, 16, "none", norm=False), *arch.rows[-2:]))


def test_executorch_plans_the_same_for_bare_convolutions(
    planned: Callable[[Architecture], int],
) -> None:
    for size in (28, 32, 44):
        arch = _bare(load_target("micro_10k", 10, size))
        assert planned(arch) == peak_memory(arch, bytes_each=4)


@pytest.mark.parametrize("name", ["micro_10k", "mbv3_w035"])
def test_executorch_plans_what_is_traced_when_nothing_is_fused(
    name: str, planned: Callable[[Architecture], int]
) -> None:
    """A norm and an activation out of the convolution have tensors of their own there, and nothing
    is in place. A tensor takes a multiple of 16 bytes: all large ones of these do anyway."""
    arch = load_target(name, 10)
    unfused = 4 * _traced(arch, fused=())[0]
    assert planned(arch) == unfused
    assert unfused >= peak_memory(arch, bytes_each=4)
