"""An architecture is a value: equality, JSON, text, and one inside another."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Row,
    SearchSpace,
    Skip,
    embed,
    load_target,
    target_names,
)

NAMES = st.sampled_from(target_names())
SEEDS = st.integers(0, 2**32)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(name=NAMES, seed=SEEDS)
def test_json_round_trip_of_members(
    space_of: Callable[[str], SearchSpace], name: str, seed: int
) -> None:
    member = space_of(name).sample(random.Random(seed))
    back = Architecture.from_json(member.to_json())
    assert back == member
    assert hash(back) == hash(member)
    assert back.rows == member.canonical().rows
    assert (back.name, back.resolution, back.in_channels) == (
        member.name,
        member.resolution,
        member.in_channels,
    )


def test_json_is_plain_and_leaves_absent_rows_out() -> None:
    target = load_target("micro_10k", 10)
    padded = replace(target, rows=(*target.rows[:-1], Skip(), target.rows[-1]))
    data = json.loads(padded.to_json())
    assert data == target.to_dict()
    assert data["rows"][-1] == {"kind": "linear", "out": 10}


def test_equality_and_hash_ignore_absent_rows_and_the_name() -> None:
    target = load_target("micro_10k", 10)
    padded = replace(target, rows=(*target.rows[:4], Skip(), *target.rows[4:]), name="other")
    assert padded == target
    assert len({padded, target}) == 1


def test_equality_tells_what_changes_the_network() -> None:
    target = load_target("micro_10k", 10)
    stem = replace(target.rows[0], act="relu")
    others = [
        replace(target, resolution=32),
        replace(target, in_channels=1),
        target.with_classes(11),
        replace(target, rows=(stem, *target.rows[1:])),
    ]
    assert len({target, *others}) == 5
    assert target != "micro_10k"


def test_canonical_drops_absent_rows_and_nothing_else() -> None:
    target = load_target("micro_10k", 10)
    padded = replace(target, rows=(*target.rows[:4], Skip(), *target.rows[4:]))
    assert padded.canonical().rows == target.rows
    assert target.canonical() is target


def test_architecture_is_frozen() -> None:
    target = load_target("micro_10k", 10)
    with pytest.raises(FrozenInstanceError):
        target.resolution = 32  # type: ignore[misc]


def test_printing_reads_like_the_papers_table() -> None:
    lines = str(load_target("micro_10k", 10)).splitlines()
    assert lines[0] == "micro_10k: 3 x 28 x 28"
    assert lines[3].split() == [
        "stage2.block1", "14", "inverted_residual",
        "kernel=3", "stride=2", "mid=32", "out=12", "act=relu6", "skip=False",
    ]  # fmt: skip
    assert lines[-1].split() == ["classifier", "1", "linear", "out=10"]
    assert len(lines) == 1 + 9


def test_rows_are_named_by_stage_and_block() -> None:
    assert load_target("mbv2_tiny").row_names[:6] == (
        "stem", "stage1.block1", "stage2.block1", "stage2.block2", "stage3.block1", "stage3.block2",
    )  # fmt: skip
    assert load_target("mbv3_w035").row_names[-4:] == ("head", "pool", "feature", "classifier")
    assert load_target("resnet50").row_names[:4] == (
        "stem", "maxpool", "stage1.block1", "stage1.block2",
    )  # fmt: skip


def test_embedding_puts_absent_rows_where_the_larger_has_more() -> None:
    target = load_target("micro_10k", 10)
    extra = InvertedResidual(3, 1, 96, 12, "relu6", True)
    larger = replace(target, rows=(*target.rows[:4], extra, *target.rows[4:]))
    assert embed(target, larger).rows == (*target.rows[:4], Skip(), *target.rows[4:])
    assert embed(larger, larger).rows == larger.rows
    assert embed(embed(target, larger), larger).rows == embed(target, larger).rows


def _with_row(arch: Architecture, index: int, **values: object) -> Architecture:
    row: Row = replace(arch.rows[index], **values)  # type: ignore[arg-type]
    return replace(arch, rows=(*arch.rows[:index], row, *arch.rows[index + 1 :]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(6, {"out": 128}), (2, {"mid": 40})], r"row 2 \(stage2.block1\): mid 40 does not fit"),
        ([(3, {"kernel": 5})], r"row 3 \(stage2.block2\): kernel 5 does not fit into 3"),
        ([(6, {"out": 128})], r"row 6 \(head\): out 128 does not fit into 64"),
        ([(2, {"act": "relu"})], r"row 2 \(stage2.block1\): act is relu, not relu6"),
        ([(3, {"squeeze": 16})], r"row 3 \(stage2.block2\): squeeze is 16, not None"),
        ([(2, {"stride": 1})], r"row 2 \(stage2.block1\): stride is 1, not 2"),
        ([(8, {"out": 9})], r"row 8 \(classifier\): out 9 does not fit into 10"),
    ],
)
def test_embedding_error_names_the_first_misfit_row(
    changes: list[tuple[int, dict[str, Any]]], words: str
) -> None:
    large = small = load_target("micro_10k", 10)
    for index, values in changes:
        small = _with_row(small, index, **values)
    with pytest.raises(ValueError, match=words):
        embed(small, large)


def test_embedding_of_more_rows_is_an_error() -> None:
    target = load_target("micro_10k", 10)
    extra = InvertedResidual(3, 1, 96, 12, "relu6", True)
    larger = replace(target, rows=(*target.rows[:4], extra, *target.rows[4:]))
    with pytest.raises(ValueError, match=r"does not contain micro_10k: row 4 \(stage3.block1\)"):
        embed(replace(larger, name="micro_10k"), target)


def test_embedding_of_another_input_is_an_error() -> None:
    target = load_target("micro_10k", 10)
    with pytest.raises(ValueError, match=r"reads 3 x 32 x 32, but .* reads 3 x 28 x 28"):
        embed(load_target("micro_10k", 10, resolution=32), target)


def test_embedding_a_shortcut_with_weights_needs_one_in_the_larger() -> None:
    """An identity shortcut (16 -> 16) holds no slice for a projection (8 -> 16)."""

    def tiny(stem: int) -> Architecture:
        rows = (
            Conv(3, 1, stem, "relu"),
            Bottleneck(8, 16, 1, stem != 16),
            GlobalAvgPool(),
            Linear(10),
        )
        return Architecture(rows, 16, name=f"stem{stem}")

    with pytest.raises(ValueError, match=r"row 1 \(stage1.block1\)"):
        embed(tiny(8), tiny(16))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), "must hold one global_avg_pool and end with the one linear"),
        ((Linear(10), GlobalAvgPool()), "end with the one linear row"),
        ((GlobalAvgPool(), Linear(10), Linear(10)), "the one linear row"),
        ((MaxPool(2, 2), GlobalAvgPool(), Linear(10)), r"row 0 \(maxpool\): kernel must be odd"),
    ],
)
def test_impossible_table_is_an_error(rows: tuple[Row, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Architecture(rows, 32)


@pytest.mark.parametrize("resolution", [0, 8193, 28.0, True])
def test_resolution_out_of_range_is_an_error(resolution: int) -> None:
    rows = load_target("micro_10k").rows
    with pytest.raises(
        ValueError, match=f"resolution must be .* from 1 to 8192, but got {resolution}"
    ):
        Architecture(rows, resolution)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), value=JSON_VALUES)
def test_tampered_table_is_an_architecture_or_a_value_error(
    data: st.DataObject, value: Any
) -> None:
    """Any value of a good table replaced by any JSON value: built, or refused in words."""
    table = copy.deepcopy(load_target("micro_10k", 10).to_dict())
    place = data.draw(st.sampled_from([table, *table["rows"]]))
    place[data.draw(st.sampled_from([*place, "more"]))] = value
    try:
        made = Architecture.from_dict(table)
    except ValueError as error:
        assert str(error)
    else:
        assert Architecture.from_json(made.to_json()) == made


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"rows": 1}', '{"rows": [1]}'])
def test_wrong_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Architecture.from_json(text)
