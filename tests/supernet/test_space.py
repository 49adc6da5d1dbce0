"""A search space: its members, their paths and their named decisions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nasaug.supernet import (
    Architecture,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Row,
    SearchSpace,
    Skip,
    embed,
    load_space,
    load_target,
    macs,
    space_names,
    target_names,
)

Enumerate = Callable[[SearchSpace], Iterator[tuple[Row, ...]]]
SpaceOf = Callable[[str], SearchSpace]
# Explaining a failure takes hypothesis minutes here.
quick = settings(
    max_examples=60, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain]
)
FACTORS = st.lists(st.floats(1, 4), max_size=3).map(lambda more: (1.0, *more))
AROUND = st.builds(
    SearchSpace.around,
    st.sampled_from(target_names()).map(lambda name: load_target(name, 10)),
    width=FACTORS,
    expand=FACTORS,
    kernel_growth=st.sets(st.sampled_from([2, 4])).map(lambda more: (0, *sorted(more))),
    extra_depth=st.integers(0, 2).map(lambda most: tuple(range(most + 1))),
    divisor=st.sampled_from([1, 2, 8, 12]),
)
SPACES = AROUND | st.sampled_from([load_space(name, 10) for name in space_names()])
SEEDS = st.integers(0, 2**32)
TINY = Architecture(
    (
        Conv(3, 2, 8, "relu6"),
        DepthwiseSeparable(3, 1, 8, "relu6"),
        InvertedResidual(3, 2, 24, 12, "relu6", False),
        Conv(1, 1, 32, "relu6"),
        GlobalAvgPool(),
        Linear(4),
    ),
    resolution=16,
    name="tiny",
)


@quick
@given(space=SPACES, seed=SEEDS)
def test_every_member_lies_between_target_and_largest(space: SearchSpace, seed: int) -> None:
    member = space.sample(random.Random(seed))
    assert len(member.rows) == len(space.rows) == len(space.target.rows)
    embed(space.target, member)
    embed(space.target, member.canonical())
    assert embed(member, space.largest).rows == member.rows
    assert macs(space.target) <= macs(member) <= macs(space.largest)


@quick
@given(space=SPACES, seed=SEEDS)
def test_path_and_architecture_are_inverse(space: SearchSpace, seed: int) -> None:
    path = space.sample_path(random.Random(seed))
    member = space.architecture(path)
    assert space.path(member) == path
    assert space.path(member.canonical()) == path
    assert space.architecture(space.path(member)).rows == member.rows
    for end in (space.target, space.largest):
        assert space.architecture(space.path(end)) == end


@quick
@given(space=SPACES, seed=SEEDS)
def test_path_and_named_decisions_are_inverse(space: SearchSpace, seed: int) -> None:
    path = space.sample_path(random.Random(seed))
    values = space.parameters(path)
    assert values.keys() == space.decisions.keys()
    assert all(value in space.decisions[name] for name, value in values.items())
    assert space.path_of(values) == path


@quick
@given(space=SPACES, seed=SEEDS)
def test_any_decisions_of_absent_rows_mean_the_same_path(space: SearchSpace, seed: int) -> None:
    rng = random.Random(seed)
    path = space.sample_path(rng)
    values = space.parameters(path)
    for row, choice in zip(space.rows, path, strict=True):
        if not row.choices[choice].present:
            for name, options in row.decisions.items():
                if not name.endswith(".present"):
                    values[name] = rng.choice(options)
    assert space.path_of(values) == path
    assert space.parameters(space.path_of(values)) == space.parameters(path)


@quick
@given(space=SPACES, data=st.data())
def test_any_assignment_is_a_path_or_breaks_the_prefix_rule(
    space: SearchSpace, data: st.DataObject
) -> None:
    """Equal choices (rounding makes some) are normalised to the first of them."""
    values = {n: data.draw(st.sampled_from(options)) for n, options in space.decisions.items()}
    try:
        path = space.path_of(values)
    except ValueError as error:
        assert "cannot be present when the row before it is absent" in str(error)
        return
    member = space.architecture(path)
    assert space.path(member) == path
    widths = {n: v for n, v in values.items() if n.endswith(".width")}
    chosen = dict(zip([row.name for row in space.rows], member.rows, strict=True))
    assert all(chosen[n.removesuffix(".width")].out == v for n, v in widths.items())  # type: ignore[attr-defined]


def test_decisions_are_named_by_row_and_kind() -> None:
    space = SearchSpace.around(load_target("micro_10k", 10), width=(1, 2), expand=(1, 2))
    assert space.decisions["stem.width"] == (8, 16)
    assert space.decisions["stage2.block1.kernel"] == (3, 5)
    assert space.decisions["stage2.block2.expand"] == (1, 2)
    assert space.decisions["stage2.block3.present"] == (False, True)
    assert "stage2.block2.width" not in space.decisions  # It keeps the width that it reads.
    assert not any(name.startswith(("pool", "classifier")) for name in space.decisions)


def test_missing_decision_is_a_key_error() -> None:
    space = SearchSpace.around(TINY)
    values = space.parameters(space.path(space.target))
    del values["stem.width"]
    with pytest.raises(KeyError, match=r"stem\.width"):
        space.path_of(values)


def test_extra_rows_are_present_as_a_prefix(enumerate_members: Enumerate) -> None:
    space = SearchSpace.around(
        TINY, width=(1,), expand=(1,), kernel_growth=(0,), extra_depth=(0, 1, 2)
    )
    patterns = {
        tuple(isinstance(row, Skip) for row in rows[3:5]) for rows in enumerate_members(space)
    }
    assert patterns == {(True, True), (False, True), (False, False)}
    assert space.count() == 3
    values = {"stage2.block2.present": False, "stage2.block3.present": True}
    with pytest.raises(ValueError, match=r"stage2\.block3 cannot be present"):
        space.path_of(values)
    with pytest.raises(ValueError, match="is no path of the space: row 4"):
        space.edges_of((0, 0, 0, 0, 1, 0, 0, 0))


def test_path_of_wrong_length_is_an_error() -> None:
    space = SearchSpace.around(TINY)
    path = space.path(space.target)
    with pytest.raises(ValueError, match="a path has 7 choices, but got 6"):
        space.architecture(path[:-1])
    with pytest.raises(ValueError, match="is no path of the space: row 7"):
        space.architecture((*path, 0))


def test_architecture_that_is_no_member_is_an_error() -> None:
    space = SearchSpace.around(TINY, width=(1, 2))
    rows = (Conv(3, 2, 12, "relu6"), *TINY.rows[1:])
    with pytest.raises(ValueError, match="between is not in the space: stem is Conv"):
        space.path(Architecture(rows, 16, name="between"))
    with pytest.raises(ValueError, match="does not contain micro_10k"):
        space.path(load_target("micro_10k", 10, resolution=16))


@pytest.mark.parametrize(
    "factors",
    [
        {"width": (1, 2), "expand": (1, 2), "extra_depth": (0, 1)},
        {"width": (1,), "expand": (1, 1.5, 2), "extra_depth": (0, 1, 2)},
        # 8 x 1.1 and 8 x 1.2 round to 8, so that some choices are equal.
        {"width": (1, 1.1, 1.2, 2), "expand": (1, 1.05, 2), "extra_depth": (0,)},
    ],
)
def test_count_is_the_number_of_distinct_members(
    enumerate_members: Enumerate, factors: dict[str, Any]
) -> None:
    space = SearchSpace.around(TINY, **factors)
    expected = {rows: Architecture(rows, 16) for rows in enumerate_members(space)}
    assert space.count() == len(expected) == len({*expected.values()})
    assert all(space.architecture(space.path(a)).rows == r for r, a in expected.items())


def test_count_of_a_named_micro_target_is_the_brute_force_one(enumerate_members: Enumerate) -> None:
    space = SearchSpace.around(
        load_target("micro_10k", 10), width=(1, 2), expand=(1, 1.5), kernel_growth=(0,)
    )
    assert space.count() == len({*enumerate_members(space)}) == 2**5 * 2**4 * 3**2


def test_widths_are_multiples_of_the_divisor_or_the_targets_own(space_of: SpaceOf) -> None:
    space, rng = space_of("mbv2_tiny"), random.Random(0)
    for _ in range(50):
        for row, own in zip(space.sample(rng).rows, space.target.rows, strict=True):
            for key in ("mid", "out"):
                value = getattr(row, key, 0)
                assert value % 8 == 0 or value == getattr(own, key)


def test_residual_rows_of_members_keep_their_width(space_name: str, space_of: SpaceOf) -> None:
    space, rng = space_of(space_name), random.Random(0)
    residual = [row.keeps_shape for row in space.largest.rows]
    assert any(residual)
    for _ in range(20):
        member = space.sample(rng)
        for row, width, keeps in zip(member.rows, member.widths_in, residual, strict=True):
            assert not keeps or row.out_channels(width) == width


def test_squeeze_widths_follow_the_inner_width(space_of: SpaceOf) -> None:
    """A quarter of the inner width in multiples of 8, at least 16; the target's own stay."""
    space, rng = space_of("mbv3_w035"), random.Random(0)
    seen = 0
    for _ in range(50):
        for row, own in zip(space.sample(rng).rows, space.target.rows, strict=True):
            if not isinstance(row, InvertedResidual) or row.squeeze is None:
                continue
            seen += 1
            assert row.squeeze % 8 == 0
            assert row.squeeze >= max(16, 0.9 * row.mid / 4)
            if isinstance(own, InvertedResidual) and row.mid == own.mid:
                assert row.squeeze == own.squeeze
    assert seen > 100
