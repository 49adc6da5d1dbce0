"""NetAug's helpers: the space from a target up to a largest architecture."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nasaug.supernet import (
    Architecture,
    Conv,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Row,
    SearchSpace,
    embed,
    load_target,
    macs,
    published_factors,
    target_names,
)

SpaceOf = Callable[[str], SearchSpace]
# Explaining a failure takes hypothesis minutes here.
quick = settings(
    max_examples=60, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain]
)
MICRO = load_target("micro_10k", 10)


def _largest(space: SearchSpace, seed: int) -> Architecture:
    return space.sample(random.Random(seed))


def _with(index: int, row: Row, instead: int = 0) -> Architecture:
    """micro_10k with `row` at `index`, in the place of so many."""
    rows = (*MICRO.rows[:index], row, *MICRO.rows[index + instead :])
    return replace(MICRO, rows=rows, name="larger")


def test_searched_largest_is_the_spaces_largest(target_name: str, space_of: SpaceOf) -> None:
    """Random members of the search's space, 200 in all, as a search might hand them over."""
    space, target = space_of(target_name), load_target(target_name, 10)
    rng = random.Random(0)
    for _ in range(25):
        largest = space.sample(rng)
        helpers = SearchSpace.between(target, largest)
        assert helpers.largest == largest
        assert helpers.target == target


@quick
@given(
    name=st.sampled_from(target_names()),
    seed=st.integers(0, 2**32),
    width=st.lists(st.floats(1, 4), max_size=3).map(lambda more: (1, *more)),
    expand=st.lists(st.floats(1, 4), max_size=3).map(lambda more: (1, *more)),
)
def test_helpers_lie_between_target_and_largest(
    space_of: SpaceOf, name: str, seed: int, width: tuple[float, ...], expand: tuple[float, ...]
) -> None:
    """Whatever the steps, which need not be those of the search."""
    target, largest = load_target(name, 10), _largest(space_of(name), seed)
    helpers = SearchSpace.between(target, largest, width, expand)
    assert helpers.source.cheapest == macs(target)
    rng = random.Random(seed)
    for helper in (helpers.target, *(helpers.sample(rng) for _ in range(5)), helpers.largest):
        assert embed(helper, largest)
        assert embed(target, helper)
        assert helpers.architecture(helpers.path(helper)) == helper


@quick
@given(
    seed=st.integers(0, 2**32),
    width=st.lists(st.floats(1.1, 4), min_size=1, max_size=3).map(lambda more: (1, *more)),
    expand=st.lists(st.floats(1.1, 4), min_size=1, max_size=3).map(lambda more: (1, *more)),
)
def test_largests_own_value_is_a_choice_whatever_the_steps(
    space_of: SpaceOf, seed: int, width: tuple[float, ...], expand: tuple[float, ...]
) -> None:
    largest = _largest(space_of("mbv2_tiny"), seed)
    target = load_target("mbv2_tiny", 10)
    assert SearchSpace.between(target, largest, width, expand).largest == largest


def test_largest_of_the_authors_factors_is_reached_by_their_rounding(published: str) -> None:
    _check_published_largest(published, divisor=1)


def test_largest_of_other_rounding_is_reached(published: str) -> None:
    """Inner widths that are no multiples of 8, as the authors' divisor 1 makes them."""
    _check_published_largest(published, divisor=8)


def _check_published_largest(name: str, divisor: int) -> None:
    target, factors = load_target(name, 10), published_factors(name)
    steps = {"width": factors.width, "expand": factors.expand}
    largest = SearchSpace.around(
        target, **steps, kernel_growth=(0,), extra_depth=(0,), divisor=1
    ).largest
    assert SearchSpace.between(target, largest, **steps, divisor=divisor).largest == largest


@pytest.mark.parametrize(
    ("index", "values"),
    [(3, {"mid": 50}), (3, {"mid": 97}), (6, {"out": 65}), (0, {"out": 9}), (5, {"kernel": 9})],
)
def test_users_largest_of_odd_values_is_reached(index: int, values: dict[str, Any]) -> None:
    largest = _with(index, replace(MICRO.rows[index], **values), instead=1)
    assert SearchSpace.between(MICRO, largest).largest == largest


def test_target_is_a_largest_of_one_member() -> None:
    space = SearchSpace.between(MICRO, MICRO)
    assert space.count() == 1
    assert space.largest == space.target == MICRO


def test_width_factor_one_keeps_the_targets_widths(published: str, space_of: SpaceOf) -> None:
    """The second half of NetAug's schedule: expansion is still augmented."""
    target, largest = load_target(published, 10), _largest(space_of(published), 5)
    space, rng = SearchSpace.between(target, largest, width=(1,)), random.Random(0)
    assert not any(name.endswith(".width") for name in space.decisions)
    assert any(name.endswith(".expand") for name in space.decisions)
    for _ in range(20):
        helper = space.sample(rng)
        assert helper.widths_in == space.target.widths_in
        assert embed(helper, largest)


def test_expand_factor_one_keeps_the_targets_ratio(published: str, space_of: SpaceOf) -> None:
    target, largest = load_target(published, 10), _largest(space_of(published), 5)
    space = SearchSpace.between(target, largest, expand=(1,))
    assert not any(name.endswith(".expand") for name in space.decisions)
    assert any(name.endswith(".width") for name in space.decisions)
    rng = random.Random(0)
    for _ in range(20):
        helper = space.sample(rng)
        for row, own in zip(helper.rows, space.target.rows, strict=True):
            if isinstance(own, InvertedResidual):
                assert isinstance(row, InvertedResidual)
                assert row.mid >= own.mid


def test_kernels_go_from_the_targets_to_the_largests() -> None:
    largest = _with(3, replace(MICRO.rows[3], kernel=9), instead=1)  # type: ignore[call-arg]
    space = SearchSpace.between(MICRO, largest)
    assert space.decisions["stage2.block2.kernel"] == (3, 5, 7, 9)


def test_rows_that_the_target_lacks_may_be_absent() -> None:
    largest = _with(4, InvertedResidual(5, 1, 96, 12, "relu6", True))
    space = SearchSpace.between(MICRO, largest)
    assert space.decisions["stage2.block3.present"] == (False, True)
    assert space.largest == largest
    assert space.target == MICRO


def test_largest_that_does_not_contain_the_target_is_an_error() -> None:
    smaller = _with(2, replace(MICRO.rows[2], mid=24), instead=1)  # type: ignore[call-arg]
    words = (
        r"larger does not contain micro_10k: row 2 \(stage2.block1\): mid 32 does not fit into 24"
    )
    with pytest.raises(ValueError, match=words):
        SearchSpace.between(MICRO, smaller)


@pytest.mark.parametrize("factors", [{"width": (2,)}, {"expand": ()}, {"width": (1, 99)}])
def test_wrong_factors_are_errors(factors: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="factors must be from 1 to 16"):
        SearchSpace.between(MICRO, MICRO, **factors)


@pytest.mark.parametrize(
    ("target", "largest"),
    [
        pytest.param(
            MICRO, _with(2, InvertedResidual(3, 1, 48, 8, "relu6", True)), id="after-depthwise"
        ),
        pytest.param(
            MICRO, _with(4, InvertedResidual(3, 1, 96, 12, "relu", True)), id="other-activation"
        ),
        pytest.param(
            MICRO, _with(4, InvertedResidual(3, 1, 96, 12, "relu6", True, 24)), id="with-squeeze"
        ),
        pytest.param(
            Architecture((Conv(3, 2, 8, "relu"), GlobalAvgPool(), Linear(4)), 16),
            Architecture(
                (
                    Conv(3, 2, 8, "relu"),
                    InvertedResidual(3, 1, 24, 8, "relu", True),
                    GlobalAvgPool(),
                    Linear(4),
                ),
                16,
            ),
            id="after-stem",
        ),
    ],
)
def test_extra_row_unlike_the_row_before_it_is_reached_or_refused(
    target: Architecture, largest: Architecture
) -> None:
    """`embed` accepts such a largest, since the target may leave the row out."""
    assert embed(target, largest)
    try:
        space = SearchSpace.between(target, largest)
    except ValueError as error:
        assert "row" in str(error)
    else:
        assert space.largest == largest
