"""Every mistake in a table of choices is named with its row before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nasaug.supernet import Infeasible, Limits, SearchSpace, load_space, space_names

GOOD = """
resolution: 32
rows:
  - {kind: conv, kernel: 3, stride: 2, out: [8, 16], act: relu6}
  - {kind: depthwise_separable, kernel: 3, stride: 1, act: relu6}
  - {kind: inverted_residual, depth: [2, 3], kernel: [3, 5], stride: 2, expand: [3, 4], out: 16,
     act: relu6}
  - depth: [1, 2]
    rows:
      - {kind: inverted_residual, kernel: 3, stride: 2, mid: 48, out: 24, act: relu6, squeeze: 16}
      - {kind: inverted_residual, kernel: [3, 5], stride: 1, expand: [2, 3], act: relu6}
  - {kind: bottleneck, stride: 1, expand: 0.5, out: 32, act: relu, projection: true}
  - {kind: max_pool, kernel: 3, stride: 2}
  - {kind: global_avg_pool}
  - {kind: linear}
"""
Table = Callable[[str], Path]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_good_table_is_good(table: Table) -> None:
    space = SearchSpace.table(table(GOOD), 10)
    assert space.name == "mine"
    # 2 stems; a stage of 2 or 3 rows with 4 choices each; one row or two, the second with 4.
    assert space.count() == 2 * (16 + 64) * (1 + 4)


RESIDUAL = "  - {kind: inverted_residual, kernel: 3, stride: 1, expand: 2, act: relu}"
ROW_ERRORS = [
    ("kernel: [3, 5], stride: 2", "kernel: [3, 4], stride: 2",
     r"row 2 \(stage2.block1\): kernel must be odd, but got 4"),
    ("max_pool, kernel: 3", "max_pool, kernel: 2",
     r"row 5 \(maxpool\): kernel must be odd, but got 2"),
    ("conv, kernel: 3, stride: 2", "conv, kernel: 3, stride: 3",
     r"row 0 \(stem\): stride must be 1 or 2, but got 3"),
    ("kernel: 3, stride: 1, act", "kernel: 3, stride: 2, act",
     r"row 1 \(stage1.block1\): skip must keep the shape, but stride is 2; set skip: false and"),
    ("kernel: 3, stride: 1, act", "kernel: 3, stride: 1, out: [8, 16], skip: true, act",
     r"row 1 \(stage1.block1\): a residual row keeps the width .* got \[8, 16\]; leave out out"),
    ("kernel: 3, stride: 1, act", "kernel: 3, stride: 1, out: 8, skip: true, act",
     r"row 1 \(stage1.block1\): skip must keep the shape, but 8 or 16 channels become 8; leave"),
    ("stride: 1, expand: 0.5, out: 32, act: relu, projection: true",
     "stride: 1, expand: 0.5, out: 32, act: relu",
     r"row 4 \(stage4.block1\): .*24 channels become 32; leave out out, or set projection: true"),
    ("depth: [2, 3]", "depth: [0, 1, 2]",
     r"row 2 \(stage2.block1\): it may be absent, but only a residual row .* raise the stage's"),
    ("depth: [1, 2]", "depth: [0, 1, 2]", r"row 3 \(stage3.block1\): it may be absent"),
    ("  - {kind: bottleneck", f"{RESIDUAL}\n  - {{kind: bottleneck",
     r"row 4 \(stage3.block3\): a stage may lose rows at its end only, .* stage of row 3"),
    ("mid: 48, out: 24", "expand: [2, 3], out: 24",
     r"row 3 \(stage3.block1\): squeeze must be true .* where the inner width varies, but got 16"),
    ("kernel: 3, stride: 1, act", "kernel: 3, stride: 1, squeeze: true, act",
     r"row 1 \(stage1.block1\): squeeze must be a number where the width that a depthwise"),
    ("out: [8, 16]", f"out: {[*range(1, 10_000)]}",
     r"row 2 \(stage2.block1\): a row may have at most 20,000 choices, .* but has 39,996; shorten"),
]  # fmt: skip
ENTRY_ERRORS = [
    ("expand: [3, 4]", "expand: []", "row 2: expand has an empty list of choices; name at least"),
    ("expand: [3, 4]", "expand: [3, 4, 3.0]", r"row 2: expand must name every choice once, .*3\.0"),
    ("kernel: [3, 5], stride: 2", "kernel: [3, 3], stride: 2", "row 2: kernel must name every"),
    ("depth: [2, 3]", "depth: [2, 2]", "row 2: depth must name every choice once"),
    ("depth: [2, 3]", "depth: []", "row 2: depth has an empty list"),
    ("depth: [2, 3]", "depth: [2, 4]", r"row 2: depths must follow one another, .* got \[2, 4\]"),
    ("depth: [2, 3]", "depth: 0", "row 2: a stage of depth 0 alone has no row; leave it out"),
    ("depth: [2, 3]", "depth: [2, 65]", "row 2: depth must be integers from 0 to 64"),
    ("depth: [2, 3]", "depth: 2.0", "row 2: depth must be integers"),
    ("depth: [1, 2]", "depth: [1, 2, 3]", "row 3: depth 3 exceeds the stage's 2 rows; add rows"),
    ("depth: [1, 2]", "depth: 1", "row 3: depth goes up to 1, but the stage has 2 rows, .* drop"),
    ("depth: [1, 2]\n", "width: 3\n    depth: [1, 2]\n", "row 3: a stage has no key 'width'; it"),
    ("- depth: [1, 2]\n    rows", "- rows", "row 3: a stage needs depth; write its rows"),
    ("mid: 48, out: 24", "depth: 2, mid: 48, out: 24",
     "row 3: a stage's rows are plain rows without depth, but got"),
    ("{kind: conv,", "{kind: conv, depth: 2,", "row 0: depth is for blocks .* the kind is 'conv'"),
    ("expand: [3, 4]", "expand: [3, wide]", "row 2: expand must be numbers, but got"),
    ("expand: [3, 4]", "expand: [0, 3]", "row 2: .*: expand must be above 0 .* 64, but got 0"),
    ("expand: [3, 4]", "expand: [3, .nan]", "row 2: inverted_residual: expand must be above 0"),
    ("expand: [3, 4]", "expand: [3, true]", "row 2: expand must be numbers"),
    ("expand: [3, 4]", "mid: [32, 48]", "row 2: inverted_residual: mid cannot be a choice, "),
    ("expand: [3, 4], out", "out", "row 2: inverted_residual needs either expand .* or mid"),
    ("expand: [3, 4]", "expand: 3, mid: 24", "row 2: inverted_residual needs either expand"),
    ("kernel: [3, 5], stride: 2", "kernel: [3, 5.5], stride: 2",
     "row 2: inverted_residual: kernel must be an integer .* got 5.5"),
    ("kernel: [3, 5], stride: 2", "kernel: [3, 5], stride: [1, 2]",
     "row 2: inverted_residual: stride cannot be a choice, .* only kernel, expand, out can"),
    ("max_pool, kernel: 3", "max_pool, kernel: [3, 5]",
     "row 5: max_pool: kernel cannot be a choice, .* nothing of such a row can"),
    ("{kind: linear}", "{kind: linear, out: [10, 20]}", "row 7: linear: out cannot be a choice"),
    ("squeeze: 16", "squeeze: [8, 16]", "row 3: inverted_residual: squeeze cannot be a choice"),
    ("squeeze: 16", "squeeze: big", "row 3: inverted_residual: squeeze must be an integer"),
    ("expand: [3, 4]", "expanse: [3, 4]", "row 2: .* no key 'expanse': did you mean 'expand'"),
    ("mid: 48", "mid: 48, boost: 2", "row 3: inverted_residual has no key 'boost': "),
    ("kind: max_pool", "kind: skip", "row 5: row kind must be one of .* but got 'skip'"),
    ("kind: max_pool", "kind: pool", "row 5: row kind must be one of .* but got 'pool'"),
    ("{kind: global_avg_pool}", "global_avg_pool", "row 6: a row must be a table with a kind"),
    ("out: [8, 16], act: relu6", "act: relu6", "row 0: conv needs out"),
    ("out: [8, 16], act: relu6", "out: [8, 16], act: gelu", "row 0: conv: act must be one of"),
    ("kernel: 3, stride: 1, act", "kernel: 3, stride: 1, skip: false, act",
     "row 1: depthwise_separable without a skip needs out"),
    ("out: 32, act: relu, proj", "act: relu, proj", "row 4: bottleneck with a projection needs"),
    ("out: 32, act", "out: 70_000, act", "row 4: bottleneck: out must be .* from 1 to 65,536"),
]  # fmt: skip
TABLE_ERRORS = [
    ("resolution: 32", "resolution: [24, 32]", r"resolution must be an integer .* got \[24, 32\]"),
    ("resolution: 32", "", "a space needs a resolution"),
    ("resolution: 32", "resolution: 32\ndivisor: 0", "divisor must be an integer from 1 to 1024"),
    ("resolution: 32", "resolution: 32\nin_channels: 2", "in_channels must be 1 .* or 3"),
    ("resolution: 32", "resolution: 32\ncolour: red", "no key 'colour'; it has name, resolution"),
    ("  - {kind: linear}\n", "", "must hold one global_avg_pool and end with the one linear row"),
    ("  - {kind: global_avg_pool}\n", "", "must hold one global_avg_pool"),
    ("rows:", "rows: [", "mine.yaml is not a space's table"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "words"), [*ROW_ERRORS, *ENTRY_ERRORS, *TABLE_ERRORS])
def test_wrong_table_is_an_error_that_names_the_row(
    table: Table, good: str, bad: str, words: str
) -> None:
    assert good in GOOD
    with pytest.raises(ValueError, match=words) as caught:
        SearchSpace.table(table(GOOD.replace(good, bad, 1)), 10)
    assert "mine.yaml is not a space's table: " in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "- 1", "rows: 3", "{[1]: 2}", "3", "[" * 1000, "a: 2001-99-99"]
)
def test_file_without_a_table_is_an_error(table: Table, text: str) -> None:
    with pytest.raises(ValueError, match=r"mine\.yaml is not a space's table"):
        SearchSpace.table(table(text))


def test_table_without_a_choice_is_no_space(table: Table) -> None:
    """Nothing could be searched in it; it is a target."""
    conv, tail = "{kind: conv, kernel: [3], stride: 1, out: 8, act: relu}", "{kind: linear}"
    with pytest.raises(
        ValueError, match=r"needs a choice, but no row has one; make a value a list"
    ):
        SearchSpace.table(
            table(f"resolution: 8\nrows: [{conv}, {{kind: global_avg_pool}}, {tail}]")
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_classes": 1}, "num_classes .* at least 2, but got 1"),
        ({"resolution": 0}, "resolution must be an integer from 1 to 8192, but got 0"),
        ({"in_channels": 2}, r"in_channels must be 1 \(grey\) or 3"),
    ],
)
def test_wrong_argument_is_not_blamed_on_the_file(
    table: Table, given: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        SearchSpace.table(table(GOOD), **given)


def test_missing_table_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SearchSpace.table(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("mbv3-ofa", "did you mean 'mbv3_ofa'"), ("?", "choose one of .*micro_down")],
)
def test_unknown_space_offers_the_nearest(wrong: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"unknown space .*: {words}.* \\(or a YAML table's path"):
        load_space(wrong)
    assert wrong not in space_names()


@pytest.mark.parametrize(
    ("cost", "option", "words"),
    [
        ("macs", "budget", "mine's smallest member's {:,} MACs"),
        ("params", "max-params", "mine's smallest member's {:,} parameters"),
        ("memory", "max-memory", "{:,} bytes"),
        ("flash", "max-flash", "mine's smallest member's {:,} bytes of flash"),
    ],
)
def test_limit_below_the_smallest_member_is_said(
    table: Table, cost: str, option: str, words: str
) -> None:
    space = SearchSpace.table(table(GOOD), 10)
    least = space.costs(space.path(space.target))[cost]
    words = f"{option} must be at least {words.format(least)}.* raise --{option} or add smaller"
    with pytest.raises(Infeasible, match=words):
        space.within(Limits(**{cost: least - 1}))
    assert space.within(Limits(**{cost: least})).contains(space.path(space.target))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), value=JSON_VALUES)
def test_tampered_table_is_a_space_or_a_value_error(data: st.DataObject, value: Any) -> None:
    """Any value of a good table replaced by any JSON value: a space, or refused in words."""
    tampered = copy.deepcopy(yaml.safe_load(GOOD))
    rows = tampered["rows"]
    place = data.draw(st.sampled_from([tampered, *rows, *rows[3]["rows"]]))
    place[data.draw(st.sampled_from([*place, "more"]))] = value
    try:
        made = SearchSpace.table(tampered, 10)
    except ValueError as error:
        assert str(error)
    else:
        assert made.count() > 0


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200))
@example(text="rows: [&a [*a]]\nresolution: 3")
@example(text="rows: [&a {kind: conv, out: [*a]}]\nresolution: 3")
def test_any_text_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("tables") / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"any\.yaml is not a space's table"):
        SearchSpace.table(path)
