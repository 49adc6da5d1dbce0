"""What a target is trained inside."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nasaug.netaug import Augmentation
from nasaug.supernet import (
    Architecture,
    Factors,
    SearchSpace,
    embed,
    load_target,
    macs,
    published_factors,
)


def test_published_factors_give_the_published_largest() -> None:
    """334.4M MACs with 1000 classes and the authors' rounding, to multiples of 1."""
    target = load_target("mbv2_tiny")
    augmentation = Augmentation.by_factors(target, published_factors("mbv2_tiny"), divisor=1)
    assert round(macs(augmentation.largest) / 1e6, 1) == 334.4


@pytest.mark.parametrize("divisor", [1, 8])
def test_helpers_of_factors_reach_from_the_target_to_the_largest(divisor: int) -> None:
    """The target's own widths stay exact; kernels and depth are not augmented."""
    target = load_target("mbv2_tiny", 10)
    factors = Factors((1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8))
    augmentation = Augmentation.by_factors(target, factors, divisor)
    assert augmentation.target == target
    assert augmentation.helpers.source.cheapest == macs(target)
    kinds = {name.rpartition(".")[2] for name in augmentation.helpers.decisions}
    assert kinds == {"width", "expand"}
    values = augmentation.helpers.decisions["stem.width"]
    assert values == {1: (16, 29, 42), 8: (16, 32, 40)}[divisor]


def test_narrow_helpers_have_the_targets_widths_and_all_expand_ratios(
    micro: Architecture, augmentation: Augmentation
) -> None:
    rng = random.Random(0)
    for _ in range(20):
        helper = augmentation.narrow.sample(rng)
        assert helper.canonical().widths_in == micro.widths_in
        assert embed(micro, helper)
        assert augmentation.helpers.embed(helper)
    expands = [
        {name: v for name, v in space.decisions.items() if name.endswith("expand")}
        for space in (augmentation.narrow, augmentation.helpers)
    ]
    assert expands[0] == expands[1] != {}


def test_helpers_of_a_searched_largest_reach_up_to_it(micro: Architecture) -> None:
    """Kernels and extra rows included, in both phases."""
    searched = SearchSpace.around(micro).largest
    augmentation = Augmentation.inside(micro, searched, Factors((1, 1.8, 2.6), (1, 1.6, 2.2, 2.8)))
    assert augmentation.largest == searched
    assert augmentation.target == augmentation.narrow.target == micro
    for space in (augmentation.helpers, augmentation.narrow):
        kinds = {name.rpartition(".")[2] for name in space.decisions}
        assert {"present", "kernel", "expand"} <= kinds
        rng = random.Random(0)
        for _ in range(20):
            helper = space.sample(rng)
            assert embed(micro, helper)
            assert embed(helper, searched)


def test_largest_that_lacks_the_target_is_refused_by_its_row(micro: Architecture) -> None:
    row = micro.rows[3]
    smaller = replace(
        micro,
        rows=(*micro.rows[:3], replace(row, mid=40), *micro.rows[4:]),  # type: ignore[call-arg]
        name="searched",
    )
    with pytest.raises(
        ValueError, match=r"searched does not contain micro_10k: row 3 \(stage2\.block2\): mid 48"
    ):
        Augmentation.inside(micro, smaller, Factors((1, 2), (1, 2)))


@pytest.mark.parametrize(
    "factors", [Factors((), (1,)), Factors((1,), (2,)), Factors((0.5, 1), (1,))]
)
def test_factors_that_leave_the_target_out_are_refused(
    factors: Factors, micro: Architecture
) -> None:
    with pytest.raises(ValueError, match="factors must be from 1 to 16 with 1 among them"):
        Augmentation.by_factors(micro, factors)
