"""Spaces around users' own tables, where blocks mix in ways that no published target has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Row,
    SearchSpace,
    embed,
    macs,
)

Enumerate = Callable[[SearchSpace], Iterator[tuple[Row, ...]]]
# Explaining a failure takes hypothesis minutes here.
quick = settings(
    max_examples=60, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain]
)
SEEDS = st.integers(0, 2**32)
ACTS = st.sampled_from(["none", "relu", "relu6", "hardswish"])
KERNELS = st.sampled_from([1, 3, 5])


def _tables(bottlenecks: bool) -> st.SearchStrategy[Architecture]:
    """Tables as a user might write them: any mix of blocks that fits together."""

    @st.composite
    def table(draw: st.DrawFn) -> Architecture:
        width = draw(st.sampled_from([8, 12, 16, 20]))
        rows: list[Row] = [Conv(draw(KERNELS), draw(st.integers(1, 2)), width, draw(ACTS))]
        for _ in range(draw(st.integers(0, 5))):
            out, stride = draw(st.sampled_from([width, 8, 12, 24])), draw(st.integers(1, 2))
            skip = stride == 1 and out == width and draw(st.booleans())
            kernel, act, mid = draw(KERNELS), draw(ACTS), draw(st.sampled_from([3, 10, 24]))
            choices: list[Row] = [
                InvertedResidual(
                    kernel, stride, mid, out, act, skip, draw(st.sampled_from([None, 8]))
                ),
                DepthwiseSeparable(kernel, stride, out, act, skip),
                Conv(kernel, stride, out, act),
            ]
            rows.append(
                Bottleneck(mid, out, stride, stride == 2 or out != width, kernel, act)
                if bottlenecks
                else draw(st.sampled_from(choices))
            )
            width = out
        return Architecture((*rows, GlobalAvgPool(), Linear(5)), 16, name="table")

    return table()


def _check_space(space: SearchSpace, table: Architecture, seed: int) -> None:
    names = [row.name for row in space.rows]
    assert len({*names}) == len(names)
    assert space.target == table
    assert space.source.cheapest == macs(table)
    assert space.source.dearest == macs(space.largest)
    rng = random.Random(seed)
    for _ in range(3):
        path = space.sample_path(rng)
        member = space.architecture(path)
        assert embed(table, member)
        assert embed(member, space.largest).rows == member.rows
        assert space.path(member.canonical()) == path
        assert space.path_of(space.parameters(path)) == path


AROUND = {"width": (1, 1.39, 1.62), "expand": (1, 1.32), "extra_depth": (0, 1, 2)}


@quick
@given(table=_tables(bottlenecks=False), seed=SEEDS)
def test_any_table_of_mobile_blocks_makes_a_sound_space(table: Architecture, seed: int) -> None:
    _check_space(SearchSpace.around(table, **AROUND), table, seed)


@quick
@given(table=_tables(bottlenecks=True), seed=SEEDS)
def test_any_table_of_bottlenecks_makes_a_sound_space(table: Architecture, seed: int) -> None:
    _check_space(SearchSpace.around(table, **AROUND), table, seed)


def test_row_names_are_unique_where_a_convolution_splits_a_stage() -> None:
    """stage1.block1, head, stage1.block2: the extra row must not be called stage1.block2 too."""
    block = InvertedResidual(3, 1, 24, 8, "relu", True)
    rows = (Conv(3, 2, 8, "relu"), block, Conv(1, 1, 8, "relu"), block, GlobalAvgPool(), Linear(5))
    names = [row.name for row in SearchSpace.around(Architecture(rows, 16)).rows]
    assert len({*names}) == len(names)


def _bottleneck(stem: int, mid: int, out: int) -> Architecture:
    rows = (
        Conv(3, 2, stem, "relu"),
        Bottleneck(mid, out, projection=True),
        GlobalAvgPool(),
        Linear(5),
    )
    return Architecture(rows, 16, name="bottleneck")


@pytest.mark.parametrize(
    ("stem", "out", "factor"),
    [
        pytest.param(16, 24, 1.5, id="in-a-member"),  # A stem of 24 meets an output of 24.
        pytest.param(12, 8, 1.39, id="in-the-largest"),  # Both are rounded to 16.
    ],
)
def test_bottlenecks_shortcut_stays_where_widths_meet(
    enumerate_members: Enumerate, stem: int, out: int, factor: float
) -> None:
    """The target's shortcut has weights; a member whose shortcut is the identity lacks them."""
    target = _bottleneck(stem, 8, out)
    space = SearchSpace.around(target, width=(1, factor), expand=(1,), extra_depth=(0,))
    assert space.source.cheapest == macs(target)
    for rows in enumerate_members(space):
        member = Architecture(rows, 16)
        assert member.rows[1].shortcut(member.widths_in[1]) is not None
        assert embed(target, member)


def test_largest_has_the_largest_values_where_rounding_makes_choices_equal(
    enumerate_members: Enumerate,
) -> None:
    """(expand 1, width 16) and (expand 1.32, width 16) are the same row: the largest."""
    space = SearchSpace.around(
        _bottleneck(20, 8, 12), width=(1, 1.43), expand=(1, 1.32), extra_depth=(0,)
    )
    assert space.largest.rows[1].out_channels(20) == 16
    assert all(embed(Architecture(rows, 16), space.largest) for rows in enumerate_members(space))
