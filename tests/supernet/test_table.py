"""Spaces from tables of choices, against an enumeration that knows the notation and no graph."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    ChoicePath,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Limits,
    Linear,
    MaxPool,
    Network,
    Row,
    SearchSpace,
    embed,
    macs,
)

Data = dict[str, Any]
Reading = tuple[tuple[Row, ...], int]
# Explaining a failure takes hypothesis minutes here.
quick = settings(
    max_examples=60, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain]
)
CLASSES = 5
TAIL: list[Data] = [{"kind": "global_avg_pool"}, {"kind": "linear"}]
SMALL: Data = {
    "name": "small",
    "resolution": 24,
    "rows": [
        {"kind": "conv", "kernel": 3, "stride": 2, "out": [8, 12], "act": "relu6"},
        {
            "kind": "inverted_residual",
            "depth": [1, 2, 3],
            "kernel": [3, 5],
            "stride": 2,
            "expand": [2, 3],
            "out": [12, 16],
            "act": "relu",
            "squeeze": True,
        },
        {"kind": "conv", "kernel": 1, "stride": 1, "out": 24, "act": "relu6"},
        *TAIL,
    ],
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _make_divisible(value: float, divisor: int) -> int:
    """Once-for-all's, from its source."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _readings(entry: Data, width: int, divisor: int) -> Iterator[Reading]:
    """All that one entry of a table may stand for after `width` channels."""
    if "depth" not in entry:
        yield from _row_readings(entry, width, divisor)
        return
    rows = entry.get("rows")
    if rows is None:
        first = {key: value for key, value in entry.items() if key != "depth"}
        dropped = ("out", "skip", "projection")
        later = {k: v for k, v in first.items() if k not in dropped} | {"stride": 1}
        rows = [first] + [later] * 9
    for depth in _listed(entry["depth"]):
        found: list[Reading] = [((), width)]
        for row in rows[:depth]:
            found = [
                (before + after, out)
                for before, own in found
                for after, out in _row_readings(row, own, divisor)
            ]
        yield from found


def _row_readings(row: Data, width: int, divisor: int) -> Iterator[Reading]:
    kind, act = row["kind"], row.get("act")
    if kind == "max_pool":
        yield (MaxPool(row["kernel"], row["stride"]),), width
    elif kind == "global_avg_pool":
        yield (GlobalAvgPool(),), width
    elif kind == "linear":
        yield (Linear(CLASSES),), CLASSES
    lists = [_listed(row.get("kernel", 3)), _listed(row.get("out", width))]
    stride = row.get("stride", 1)
    skip = row.get("skip", "out" not in row)
    for kernel, out in itertools.product(*lists):
        if kind == "conv":
            yield (Conv(kernel, stride, out, act),), out
        elif kind == "depthwise_separable":
            yield (DepthwiseSeparable(kernel, stride, out, act, skip),), out
        elif kind in ("inverted_residual", "bottleneck"):
            outer = width if kind == "inverted_residual" else out
            inner = [_make_divisible(outer * e, divisor) for e in _listed(row.get("expand", []))]
            for mid in inner or [row["mid"]]:
                if kind == "bottleneck":
                    projection = row.get("projection", False)
                    yield (Bottleneck(mid, out, stride, projection, kernel, act),), out
                    continue
                squeeze = max(16, _make_divisible(mid / 4, 8)) if row.get("squeeze") else None
                yield (InvertedResidual(kernel, stride, mid, out, act, skip, squeeze),), out


def _members(data: Data) -> set[tuple[Row, ...]]:
    """The rows of all members, absent ones left out."""
    found: set[Reading] = {((), data.get("in_channels", 3))}
    for entry in data["rows"]:
        found = {
            (before + after, out)
            for before, width in found
            for after, out in _readings(entry, width, data.get("divisor", 8))
        }
    return {rows for rows, _ in found}


def _paths(space: SearchSpace) -> list[ChoicePath]:
    """All paths of the space's graph."""
    found: list[tuple[ChoicePath, Any]] = [((), space.source)]
    for _ in space.rows:
        found = [((*path, edge.choice), edge.head) for path, node in found for edge in node.edges]
    return [path for path, _ in found]


def _choices(*options: Any) -> st.SearchStrategy[Any]:
    """One of `options`, or a list of some of them in any order."""
    one, some = (
        st.sampled_from(options),
        st.lists(st.sampled_from(options), min_size=1, unique=True),
    )
    return one | some


@st.composite
def tables(draw: st.DrawFn) -> Data:
    """Small tables with every kind of row and stage that a user may write."""
    kernel, expand, out = _choices(1, 3, 5), _choices(1, 1.5, 2, 3), _choices(8, 12, 20)
    stride, act = st.sampled_from([1, 2]), st.sampled_from(["relu", "relu6", "hardswish", "none"])
    depth = st.sampled_from([1, 2, [1, 2], [2, 1, 3]])

    def block(keeps: bool) -> Data:
        kind = draw(st.sampled_from(["inverted_residual", "depthwise_separable", "bottleneck"]))
        row: Data = {"kind": kind, "kernel": draw(kernel), "act": draw(act)}
        row |= {"stride": 1} if keeps else {"stride": draw(stride), "out": draw(out)}
        if kind == "bottleneck":
            row |= {"expand": draw(expand)} | ({} if keeps else {"projection": True})
        elif kind == "inverted_residual":
            row |= {"squeeze": True} if draw(st.booleans()) else {}
            row |= {"mid": 16} if draw(st.booleans()) else {"expand": draw(expand)}
        return row

    rows: list[Data] = [
        {"kind": "conv", "kernel": draw(kernel), "stride": 2, "out": draw(out), "act": draw(act)}
    ]
    if draw(st.booleans()):
        rows.append({"kind": "max_pool", "kernel": 3, "stride": 2})
    if draw(st.booleans()):
        rows.append({**block(keeps=True), "depth": draw(st.sampled_from([[0, 1], [0, 1, 2], 1]))})
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            rows.append({**block(keeps=False), "depth": draw(depth)})
        else:
            stage = [block(keeps=False), block(keeps=True)]
            rows.append({"depth": draw(st.sampled_from([2, [1, 2]])), "rows": stage})
    rows.append({"kind": "conv", "kernel": 1, "stride": 1, "out": draw(out), "act": draw(act)})
    divisor = draw(st.sampled_from([1, 4, 8]))
    return {"resolution": 16, "in_channels": 1, "divisor": divisor, "rows": [*rows, *TAIL]}


@quick
@given(data=tables())
def test_members_of_any_table_are_those_of_a_plain_enumeration(data: Data) -> None:
    space = _space(data)
    assume(space.count() <= 3000)
    expected = _members(data)
    found = [space.architecture(path).canonical() for path in _paths(space)]
    assert space.count() == len(found) == len(expected)
    assert {arch.rows for arch in found} == expected
    costs = [macs(arch) for arch in found]
    assert (space.source.cheapest, space.source.dearest) == (min(costs), max(costs))


@quick
@given(data=tables(), seed=st.integers(0, 2**32))
def test_any_table_makes_a_sound_space(data: Data, seed: int) -> None:
    space, rng = _space(data), random.Random(seed)
    names = tuple(row.name for row in space.rows)
    assert len({*names}) == len(names)
    assert space.largest.row_names == names
    assert space.source.cheapest == macs(space.target)
    assert space.source.dearest == macs(space.largest)
    for _ in range(3):
        path = space.sample_path(rng)
        member = space.architecture(path)
        assert embed(space.target, member)
        assert embed(member.canonical(), space.largest).rows == member.rows
        assert space.path(member.canonical()) == path
        assert space.path_of(space.parameters(path)) == path


@settings(max_examples=15, deadline=None)
@given(data=tables(), seed=st.integers(0, 2**32))
def test_every_member_runs_as_its_export_does(data: Data, seed: int) -> None:
    space = _space(data)
    net = Network(space.largest, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    rng = random.Random(seed)
    with torch.no_grad():
        for sub in (space.target, space.sample(rng), space.sample(rng)):
            assert torch.equal(net(x, sub), net.export(sub)(x))


def _space(data: Data) -> SearchSpace:
    """The space of `data`; a table may happen to hold no choice."""
    try:
        return SearchSpace.table(data, CLASSES)
    except ValueError as error:
        assume("a space needs a choice" not in str(error))
        raise


@pytest.mark.parametrize("share", [None, 0.5, 0.1])
def test_members_are_drawn_uniformly(share: float | None) -> None:
    space, rng = SearchSpace.table(SMALL, CLASSES), random.Random(0)
    costs = sorted(space.macs(path) for path in _paths(space))
    limit = None if share is None else costs[int(share * len(costs))]
    feasible = [path for path in _paths(space) if limit is None or space.macs(path) <= limit]
    region = space.within(Limits(macs=limit))
    assert region.count().exact
    assert region.count().value == len(feasible) > 30
    drawn = Counter(region.sample_path(rng) for _ in range(40 * len(feasible)))
    assert drawn.keys() <= {*feasible}
    assert chisquare([drawn[path] for path in feasible]).pvalue > 1e-4


def test_graph_knows_its_table_and_every_choice() -> None:
    """By hand: 2 stems; 2 kernels, 2 expand ratios, 2 widths; and up to two residual rows, each
    with 2 kernels and 2 expand ratios: 2 x 8 x (1 + 4 + 16)."""
    space = SearchSpace.table(SMALL, CLASSES)
    assert space.count() == 2 * 8 * 21
    assert space.graph().graph == {"space": "small"}
    assert space.decisions == {
        "stem.width": (8, 12),
        "stage1.block1.kernel": (3, 5),
        "stage1.block1.expand": (2, 3),
        "stage1.block1.width": (12, 16),
        "stage1.block2.present": (False, True),
        "stage1.block2.kernel": (3, 5),
        "stage1.block2.expand": (2, 3),
        "stage1.block3.present": (False, True),
        "stage1.block3.kernel": (3, 5),
        "stage1.block3.expand": (2, 3),
    }


def test_smallest_member_is_the_target() -> None:
    space = SearchSpace.table(SMALL, CLASSES)
    assert space.is_table
    assert (space.name, space.target.name, space.largest.name) == (
        "small",
        "small-smallest",
        "small-largest",
    )
    stem, block, head = Conv(3, 2, 8, "relu6"), 3, Conv(1, 1, 24, "relu6")
    smallest = InvertedResidual(block, 2, 16, 12, "relu", False, 16)
    assert space.target.canonical().rows == (stem, smallest, head, GlobalAvgPool(), Linear(CLASSES))
    assert space.sample(random.Random(0)).name == "small-member"


def test_priced_space_is_still_a_table() -> None:
    priced = SearchSpace.table(SMALL, CLASSES).priced(lambda row, width, size: 1)
    assert (priced.name, priced.is_table, priced.is_priced) == ("small", True, True)
    assert priced.latency(priced.path(priced.largest)) == len(priced.rows)


def test_classes_channels_and_resolution_are_given_on_load() -> None:
    space = SearchSpace.table(SMALL)
    assert (space.target.num_classes, space.target.in_channels, space.target.resolution) == (
        1000, 3, 24,
    )  # fmt: skip
    other = SearchSpace.table(SMALL, 7, resolution=48, in_channels=1)
    assert (other.largest.num_classes, other.target.in_channels, other.target.resolution) == (
        7, 1, 48,
    )  # fmt: skip
    assert other.count() == space.count()
    assert other.target == replace(space.target.with_classes(7), in_channels=1, resolution=48)


def test_a_targets_table_with_a_choice_in_it_is_a_space() -> None:
    """The notation is the targets' own: here only the kernel of the block was made a list."""
    rows = (
        Conv(3, 2, 8, "relu6"),
        DepthwiseSeparable(3, 1, 8, "relu", True),
        InvertedResidual(3, 2, 20, 12, "relu6", False, 8),
        InvertedResidual(5, 1, 36, 12, "relu6", True),
        Bottleneck(8, 24, 2, True),
        Bottleneck(8, 24),
        GlobalAvgPool(),
        Linear(CLASSES),
    )
    data = Architecture(rows, 16, name="plain").to_dict()
    data["rows"][2]["kernel"] = [3, 5]
    space = SearchSpace.table(data, CLASSES)
    assert space.count() == 2
    assert space.target.rows == rows
    assert space.largest.rows == (*rows[:2], replace(rows[2], kernel=5), *rows[3:])  # type: ignore[call-arg]


def test_weights_beyond_the_smallest_member_are_not_read(
    make_network: Callable[..., Network], images: Callable[..., Tensor]
) -> None:
    """First channels and centres of kernels: all else is NaN, and the smallest does not notice."""
    space = SearchSpace.table(SMALL, CLASSES)
    net, x = make_network(space.largest).eval(), images(2, 24)
    small = net.export(space.target).eval()
    with torch.no_grad():
        expected = small(x)
        stem = net.blocks[0].conv.weight
        stem[8:] = torch.nan
        block = net.blocks[1]
        block.depthwise.weight[:, :, [0, 4], :] = torch.nan
        block.depthwise.weight[:, :, :, [0, 4]] = torch.nan
        block.expand.weight[16:] = torch.nan
        block.expand.weight[:, 8:] = torch.nan
        for absent in (net.blocks[2], net.blocks[3]):
            for tensor in absent.parameters():
                tensor.fill_(torch.nan)
        assert torch.equal(net(x, space.target), expected)
