"""Flash against the weights of networks as they are; whether a network fits, in words."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from nasaug.supernet import (
    Architecture,
    Conv,
    GlobalAvgPool,
    Linear,
    Network,
    SearchSpace,
    boost,
    check_fit,
    flash_size,
    in_kb,
    load_target,
    peak_memory,
    row_costs,
)
from nasaug.supernet.modules import ElasticConv, ElasticLinear

Members = Callable[[str, int], list[Architecture]]


def _shipped(arch: Architecture) -> tuple[int, int]:
    """int8 and float32 bytes of the network's own tensors once its norms are folded away."""
    net = Network(arch.canonical(), init=None)
    small = large = 0
    for module in net.modules():
        if isinstance(module, ElasticConv | ElasticLinear):
            weights, channels = module.weight.numel(), len(module.weight)
            folded = isinstance(module, ElasticConv) and module.norm is not None
            biases = channels if folded or module.bias is not None else 0
            small += weights + 4 * biases + 4 * channels
            large += 4 * weights + 4 * biases
    return small, large


def test_flash_of_targets_is_that_of_their_weights(target_name: str) -> None:
    arch = load_target(target_name)
    assert (flash_size(arch), flash_size(arch, 32)) == _shipped(arch)
    assert flash_size(arch) == sum(row.flash for row in row_costs(arch))
    assert flash_size(boost(arch)) == _shipped(boost(arch))[0]


def test_flash_of_a_path_is_that_of_its_weights(
    space_name: str, space_of: Callable[[str], SearchSpace], members_of: Members
) -> None:
    space = space_of(space_name)
    for member in members_of(space_name, 3):
        path = space.path(member)
        assert space.flash(path) == space.costs(path)["flash"] == _shipped(member)[0]


def test_flash_by_hand() -> None:
    """A convolution with a norm has biases when that is folded; one with neither has none."""
    rows = (Conv(3, 2, 8, "relu"), Conv(1, 1, 4, "none", norm=False))
    arch = Architecture((*rows, GlobalAvgPool(), Linear(2)), 16)
    weights = 3 * 9 * 8, 8 * 4, 4 * 2
    assert flash_size(arch) == sum(weights) + 4 * (8 + 2) + 4 * (8 + 4 + 2)
    assert flash_size(arch, bits=32) == 4 * sum(weights) + 4 * (8 + 2)


def test_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in 8 bits \(int8\) or 32 \(float32\), but got 4"):
        flash_size(load_target("micro_10k"), bits=4)


def test_what_fits_and_by_how_much() -> None:
    arch = load_target("micro_10k", 10)
    memory, flash = peak_memory(arch), flash_size(arch)
    fit = check_fit(arch, memory, flash)
    assert fit.fits
    assert fit.spare == {"memory": 0, "flash": 0}
    assert not check_fit(arch, memory - 1, flash).fits
    assert not check_fit(arch, memory, flash - 1).fits
    tight = check_fit(arch, memory - 1)
    assert tight.spare == {"memory": -1}
    assert str(tight) == "memory 7.7 KB of 7.7 KB, 1 byte too much"
    assert str(check_fit(arch, max_flash=2 * flash)).endswith(f"{in_kb(flash)} to spare")
    nothing = check_fit(arch)
    assert (nothing.fits, str(nothing)) == (True, "no limit")
    assert (nothing.memory, nothing.flash) == (memory, flash)


def test_float32_takes_four_times_the_memory() -> None:
    arch = load_target("micro_10k", 10)
    assert check_fit(arch, bits=32).memory == 4 * peak_memory(arch)
    assert check_fit(arch, bits=32).flash == flash_size(arch, 32)


def test_in_place_is_what_is_asked_for() -> None:
    arch = load_target("mcunet")
    room = 320 * 1024
    assert check_fit(arch, room, in_place=True).fits
    assert not check_fit(arch, room).fits


@pytest.mark.parametrize("limit", ["max_memory", "max_flash"])
def test_limits_without_room_are_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be at least 1 byte, but got 0"):
        check_fit(load_target("micro_10k"), **{limit: 0})


def test_sizes_for_people() -> None:
    rng = random.Random(0)
    assert [in_kb(size) for size in (1, 1023, 1024, 1536)] == [
        "1 byte", "1,023 bytes", "1.0 KB", "1.5 KB"
    ]  # fmt: skip
    for _ in range(100):
        size = rng.randrange(1024, 10**9)
        number = float(in_kb(size).removesuffix(" KB").replace(",", ""))
        assert abs(number * 1024 - size) <= 52
