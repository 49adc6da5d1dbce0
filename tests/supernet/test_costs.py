"""Closed-form costs against independent counters: torch's FlopCounterMode, fvcore and the weights
themselves. Memory and flash have `test_memory.py`."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nasaug.supernet import (
    Architecture,
    Network,
    SearchSpace,
    count_with_fvcore,
    load_target,
    macs,
    params,
    round_channels,
    row_costs,
)

Members = Callable[[str, int], list[Architecture]]


def _counted_by_torch(arch: Architecture) -> tuple[int, int]:
    """MACs and parameters of the network itself, batch 1. What its weights hold does not matter;
    on the CPU the counter is twice as fast as on the meta device."""
    net = Network(arch.canonical(), init=None).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution))
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


def test_costs_of_a_path_are_those_torch_counts(
    published: str, space_of: Callable[[str], SearchSpace], members_of: Members
) -> None:
    space = space_of(published)
    members = [*members_of(published, 50), space.target]
    for member in members:
        path = space.path(member)
        assert (space.macs(path), space.params(path)) == _counted_by_torch(member)
    assert len({*members}) == 51


def test_costs_of_a_path_are_those_of_its_architecture(
    target_name: str, space_of: Callable[[str], SearchSpace], members_of: Members
) -> None:
    space = space_of(target_name)
    for member in members_of(target_name, 20):
        path = space.path(member)
        assert space.macs(path) == macs(member) == macs(member.canonical())
        assert space.params(path) == params(member) == params(member.canonical())


def test_costs_of_targets_are_those_torch_counts(target_name: str) -> None:
    for arch in (load_target(target_name), load_target(target_name, 10, 50, in_channels=1)):
        assert (macs(arch), params(arch)) == _counted_by_torch(arch)


def _agrees_with_fvcore(arch: Architecture) -> bool:
    counts = count_with_fvcore(arch)
    return counts["conv"] + counts["linear"] == macs(arch)


def test_fvcore_agrees_on_some_members(published: str, members_of: Members) -> None:
    assert all(_agrees_with_fvcore(member) for member in members_of(published, 5))


@pytest.mark.slow
def test_fvcore_agrees_on_fifty_members(published: str, members_of: Members) -> None:
    assert all(_agrees_with_fvcore(member) for member in members_of(published, 50))


@pytest.mark.parametrize("name", ["micro_10k", "resnet50"])
def test_fvcore_agrees_on_other_targets(name: str) -> None:
    assert _agrees_with_fvcore(load_target(name))


def test_fvcores_linear_count_is_the_classifier() -> None:
    assert count_with_fvcore(load_target("micro_10k", 10))["linear"] == 64 * 10


def test_counting_draws_no_random_numbers() -> None:
    """A run that counts must draw the same numbers as one that does not."""
    state = torch.get_rng_state()
    count_with_fvcore(load_target("micro_10k"))
    assert torch.equal(torch.get_rng_state(), state)


def test_ten_classes_cost_what_the_design_quotes() -> None:
    assert macs(load_target("mbv2_tiny", 10)) == 23_055_632


def test_costs_add_up_row_by_row(target_name: str) -> None:
    target = load_target(target_name)
    rows = row_costs(target)
    assert len(rows) == len(target.rows)
    assert sum(row.macs for row in rows) == macs(target)
    assert sum(row.params for row in rows) == params(target)


@given(value=st.fractions(1, 5000), divisor=st.integers(1, 64))
def test_rounded_channels_are_the_nearest_multiple_that_loses_little(
    value: Fraction, divisor: int
) -> None:
    rounded = round_channels(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= divisor
    assert rounded >= Fraction(9, 10) * value
    nearest = min(range(0, rounded + 2 * divisor, divisor), key=lambda m: (abs(m - value), -m))
    assert rounded in (max(divisor, nearest), nearest + divisor)
    if nearest >= max(divisor, Fraction(9, 10) * value):
        assert rounded == nearest


def test_rounding_twice_changes_nothing() -> None:
    rng = random.Random(0)
    for divisor in (1, 4, 8, 16):
        for _ in range(100):
            rounded = round_channels(rng.uniform(1, 999), divisor)
            assert round_channels(rounded, divisor) == rounded
