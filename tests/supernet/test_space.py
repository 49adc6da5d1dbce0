"""A search space: its members, their names, its graph."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
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
    Skip,
    embed,
    load_target,
    macs,
    published_factors,
    target_names,
)

SpaceOf = Callable[[str], SearchSpace]
FACTORS = st.lists(st.floats(1, 4), max_size=3).map(lambda more: (1.0, *more))
SPACES = st.builds(
    SearchSpace.around,
    st.sampled_from(target_names()).map(lambda name: load_target(name, 10)),
    width=FACTORS,
    expand=FACTORS,
    kernel_growth=st.sets(st.sampled_from([2, 4])).map(lambda more: (0, *sorted(more))),
    extra_depth=st.integers(0, 2).map(lambda most: tuple(range(most + 1))),
    divisor=st.sampled_from([1, 2, 8, 12]),
)
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


def _members(space: SearchSpace) -> Iterator[tuple[Row, ...]]:
    """Every combination of choices that keeps the prefix rule, realised row by row."""
    stages = [row.name.partition(".")[0] for row in space.rows]
    for combination in itertools.product(*(row.choices for row in space.rows)):
        late = any(
            stages[i] == stages[i - 1] and combination[i].present and not combination[i - 1].present
            for i in range(1, len(combination))
        )
        if late:
            continue
        rows: list[Row] = []
        width = space.target.in_channels
        for choices, choice in zip(space.rows, combination, strict=True):
            rows.append(choices.realise(choice, width))
            width = rows[-1].out_channels(width)
        yield tuple(rows)


@settings(max_examples=60, deadline=None)
@given(space=SPACES, seed=SEEDS)
def test_every_member_lies_between_target_and_largest(space: SearchSpace, seed: int) -> None:
    member = space.sample(random.Random(seed))
    assert len(member.rows) == len(space.rows) == len(space.target.rows)
    embed(space.target, member)
    embed(space.target, member.canonical())
    assert embed(member, space.largest).rows == member.rows
    assert macs(space.target) <= macs(member) <= macs(space.largest)


@settings(max_examples=60, deadline=None)
@given(space=SPACES, seed=SEEDS)
def test_path_and_architecture_are_inverse(space: SearchSpace, seed: int) -> None:
    path = space.sample_path(random.Random(seed))
    member = space.architecture(path)
    assert space.path(member) == path
    assert space.path(member.canonical()) == path
    assert space.architecture(space.path(member)).rows == member.rows
    for end in (space.target, space.largest):
        assert space.architecture(space.path(end)) == end


@settings(max_examples=60, deadline=None)
@given(space=SPACES, seed=SEEDS)
def test_path_and_named_decisions_are_inverse(space: SearchSpace, seed: int) -> None:
    path = space.sample_path(random.Random(seed))
    values = space.parameters(path)
    assert values.keys() == space.decisions.keys()
    assert all(value in space.decisions[name] for name, value in values.items())
    assert space.path_of(values) == path


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


def test_extra_rows_are_present_as_a_prefix() -> None:
    space = SearchSpace.around(
        TINY, width=(1,), expand=(1,), kernel_growth=(0,), extra_depth=(0, 1, 2)
    )
    patterns = {tuple(isinstance(row, Skip) for row in rows[3:5]) for rows in _members(space)}
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
def test_count_is_the_number_of_distinct_members(factors: dict[str, Any]) -> None:
    space = SearchSpace.around(TINY, **factors)
    expected = {rows: Architecture(rows, 16) for rows in _members(space)}
    assert space.count() == len(expected) == len({*expected.values()})
    assert all(space.architecture(space.path(a)).rows == r for r, a in expected.items())


def test_count_of_a_named_micro_target_is_the_brute_force_one() -> None:
    space = SearchSpace.around(
        load_target("micro_10k", 10), width=(1, 2), expand=(1, 1.5), kernel_growth=(0,)
    )
    assert space.count() == len({*_members(space)}) == 2**5 * 2**4 * 3**2


def test_graph_is_acyclic_and_its_paths_are_the_members(
    target_name: str, space_of: SpaceOf
) -> None:
    space = space_of(target_name)
    graph = space.graph()
    assert nx.is_directed_acyclic_graph(graph)
    (source,) = [node for node, degree in graph.in_degree() if degree == 0]
    sinks = [node for node, degree in graph.out_degree() if degree == 0]
    assert {graph.nodes[sink]["row"] for sink in sinks} == {len(space.rows)}
    paths = dict.fromkeys(graph, 0) | {source: 1}
    for node in nx.topological_sort(graph):
        for head in graph.successors(node):
            paths[head] += paths[node] * graph.number_of_edges(node, head)
    assert sum(paths[sink] for sink in sinks) == space.count()


def test_graphs_edges_add_up_to_the_macs_of_a_member(target_name: str, space_of: SpaceOf) -> None:
    space = space_of(target_name)
    graph, rng = space.graph(), random.Random(0)
    for _ in range(20):
        node, rows, total = space.source.key, [], 0
        while edges := list(graph.out_edges(node, data=True)):
            _, node, data = rng.choice(edges)
            rows.append(data["row"])
            total += data["macs"]
        member = Architecture(tuple(rows), space.target.resolution)
        assert macs(member) == total
        assert space.path(member)


def test_bounds_are_the_graphs_shortest_and_longest_paths(
    target_name: str, space_of: SpaceOf
) -> None:
    space = space_of(target_name)
    graph = space.graph()
    sinks = {node for node, degree in graph.out_degree() if degree == 0}
    shortest = nx.multi_source_dijkstra_path_length(graph.reverse(), sinks, weight="macs")
    waiting = [space.source]
    bounds = {}
    while waiting:
        node = waiting.pop()
        if node.key not in bounds:
            bounds[node.key] = node.cheapest
            waiting.extend(edge.head for edge in node.edges)
    assert bounds == shortest
    assert space.source.cheapest == macs(space.target)
    longest = nx.dag_longest_path_length(graph, weight="macs")
    assert space.source.dearest == longest == macs(space.largest)


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        ("mbv2_tiny", 334.4, 0.1),
        ("mbv2_w035", 412.2, 0.1),
        ("proxylessnas_w035", 453.5, 0.1),
        ("mcunet", 866.3, 0.1),
        ("mbv3_w035", 360.4, 0.36),
    ],
)
def test_largest_with_the_authors_factors_costs_what_they_quote(
    name: str, millions: float, tolerance: float
) -> None:
    factors = published_factors(name)
    space = SearchSpace.around(
        load_target(name, 1000),
        width=factors.width,
        expand=factors.expand,
        kernel_growth=(0,),
        extra_depth=(0,),
        divisor=1,
    )
    assert macs(space.largest) / 1e6 == pytest.approx(millions, abs=tolerance)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"width": (2,)}, "width factors must be from 1 to 16 with 1 among them"),
        ({"width": ()}, "width factors"),
        ({"width": (0.5, 1)}, r"width factors .* but got \[0.5, 1\]"),
        ({"width": (1, 17)}, "width factors"),
        ({"width": (1, float("nan"))}, "width factors"),
        ({"width": (1, float("inf"))}, "width factors"),
        ({"expand": (1.6,)}, "expand factors must be from 1 to 16"),
        ({"expand": (1, -1)}, "expand factors"),
        ({"kernel_growth": (2,)}, "kernel_growth must be even, from 0 to 8, with 0 among"),
        ({"kernel_growth": (0, 3)}, "kernel_growth must be even"),
        ({"kernel_growth": (-2, 0)}, "kernel_growth must be even"),
        ({"kernel_growth": (0, 10)}, "kernel_growth must be even"),
        ({"extra_depth": (1,)}, r"extra_depth must be 0, 1, 2, ... without a gap"),
        ({"extra_depth": (0, 2)}, "extra_depth"),
        ({"extra_depth": ()}, "extra_depth"),
        ({"extra_depth": range(10)}, "extra_depth"),
        ({"divisor": 0}, "divisor"),
        ({"divisor": -8}, "divisor"),
    ],
)
def test_factors_that_make_no_space_are_errors(factors: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SearchSpace.around(TINY, **factors)


def test_widths_are_multiples_of_the_divisor_or_the_targets_own(space_of: SpaceOf) -> None:
    space, rng = space_of("mbv2_tiny"), random.Random(0)
    for _ in range(50):
        for row, own in zip(space.sample(rng).rows, space.target.rows, strict=True):
            for key in ("mid", "out"):
                value = getattr(row, key, 0)
                assert value % 8 == 0 or value == getattr(own, key)


def test_residual_rows_of_members_keep_their_width(target_name: str, space_of: SpaceOf) -> None:
    space, rng = space_of(target_name), random.Random(0)
    residual = [row.residual and row.downsampling == 1 for row in space.target.rows]
    for _ in range(20):
        member = space.sample(rng)
        for row, width, keeps in zip(member.rows, member.widths_in, residual, strict=True):
            if keeps and not isinstance(row, Skip) and row.shortcut(width) is None:
                assert row.out_channels(width) == width


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
                Bottleneck(mid, out, stride, kernel, act)
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


@settings(max_examples=100, deadline=None)
@given(table=_tables(bottlenecks=False), seed=SEEDS)
def test_any_table_of_mobile_blocks_makes_a_sound_space(table: Architecture, seed: int) -> None:
    _check_space(SearchSpace.around(table, **AROUND), table, seed)


@settings(max_examples=100, deadline=None)
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
    rows = (Conv(3, 2, stem, "relu"), Bottleneck(mid, out), GlobalAvgPool(), Linear(5))
    return Architecture(rows, 16, name="bottleneck")


@pytest.mark.parametrize(
    ("stem", "out", "factor"),
    [
        pytest.param(16, 24, 1.5, id="in-a-member"),  # A stem of 24 meets an output of 24.
        pytest.param(12, 8, 1.39, id="in-the-largest"),  # Both are rounded to 16.
    ],
)
def test_bottlenecks_shortcut_stays_where_widths_meet(stem: int, out: int, factor: float) -> None:
    """The target's shortcut has weights; a member whose shortcut is the identity lacks them."""
    target = _bottleneck(stem, 8, out)
    space = SearchSpace.around(target, width=(1, factor), expand=(1,), extra_depth=(0,))
    assert space.source.cheapest == macs(target)
    for rows in _members(space):
        member = Architecture(rows, 16)
        assert member.rows[1].shortcut(member.widths_in[1]) is not None
        assert embed(target, member)


def test_largest_has_the_largest_values_where_rounding_makes_choices_equal() -> None:
    """(expand 1, width 16) and (expand 1.32, width 16) are the same row: the largest."""
    space = SearchSpace.around(
        _bottleneck(20, 8, 12), width=(1, 1.43), expand=(1, 1.32), extra_depth=(0,)
    )
    assert space.largest.rows[1].out_channels(20) == 16
    assert all(embed(Architecture(rows, 16), space.largest) for rows in _members(space))
