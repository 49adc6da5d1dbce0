"""What boosted architectures cost, by torch's and fvcore's counters and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasaug.supernet import (
    Architecture,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Network,
    Row,
    at_slope,
    boost,
    count_with_fvcore,
    load_target,
    macs,
    params,
    peak_memory,
    row_costs,
)

MICRO = load_target("micro_10k", 10)


def _of_rows(*rows: Row, size: int = 9) -> Architecture:
    return Architecture((*rows, GlobalAvgPool(), Linear(4)), size, name="small")


def _counted(arch: Architecture) -> tuple[int, int]:
    net = Network(arch, init=None).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution))
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("every", [1, 2])
def test_costs_are_those_torch_counts(target_name: str, every: int) -> None:
    arch = boost(load_target(target_name, 10), every=every)
    assert (macs(arch), params(arch)) == _counted(arch)
    assert sum(cost.macs for cost in row_costs(arch)) > macs(load_target(target_name, 10))


def test_costs_of_a_strided_convolution_are_those_torch_counts() -> None:
    arch = boost(_of_rows(Conv(1, 2, 3, "relu"), Conv(1, 1, 3, "relu")), every=1)
    assert (macs(arch), params(arch)) == _counted(arch)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_macs_equal_fvcores(published: str, slope: float) -> None:
    arch = at_slope(boost(load_target(published)), slope)
    counts = count_with_fvcore(arch)
    assert counts["conv"] + counts["linear"] == macs(arch)


def test_macs_of_micro_equal_fvcores() -> None:
    counts = count_with_fvcore(boost(MICRO, every=1))
    assert counts["conv"] + counts["linear"] == macs(boost(MICRO, every=1))


@pytest.mark.parametrize(
    ("row", "values"),
    [
        # One position, ratio 4, and what is alive at the peak. 16 channels come in.
        (Conv(1, 1, 8, "relu"), 64 + 64),
        (Conv(1, 1, 16, "relu"), 16 + 64 + 64),
        (Conv(1, 1, 200, "relu"), 64 + 200),
        (InvertedResidual(3, 1, 24, 16, "relu", True), 16 + 64 + 64),
        (DepthwiseSeparable(3, 1, 16, "relu", skip=True), 16 + (16 + 64 + 64)),
        (DepthwiseSeparable(3, 1, 8, "relu"), 64 + 64),
    ],
)
def test_peak_memory_counts_what_is_alive_inside(row: Row, values: int) -> None:
    stem = Conv(3, 1, 16, "relu")
    plain = _of_rows(stem, row, size=5)
    arch = replace(plain, rows=(stem, replace(row, boost=4), *plain.rows[2:]))  # type: ignore[call-arg]
    assert peak_memory(arch) == values * 25
