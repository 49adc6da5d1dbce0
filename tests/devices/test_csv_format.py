"""The file format: exact round trips, tables written by hand, and what is said of mistakes."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.devices import LatencyTable, RowKey, Timing, load_latency_table, read_csv, write_csv
from nasaug.devices.csv_format import COLUMNS
from nasaug.supernet import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
)
from nasaug.supernet.rows import ROW_KINDS

# Columns in another order, blanks, empty lines, capitals as spreadsheets write them.
TABLE = """\
# our board, at 80 MHz
# device: a board of ours
# overhead_us: 1.5

median_us , size, in_channels, kind, kernel, stride, out, act, skip, mid
120.25, 14, 8, inverted_residual, 3, 2, 16, relu6, FALSE, 48
,,,,,,,,,
9, 1, 16, linear, , , 10,,,
"""


def test_a_table_by_hand_needs_only_the_median() -> None:
    table = read_csv(TABLE)
    block = InvertedResidual(3, 2, 48, 16, "relu6", skip=False)
    assert table.timings == {
        RowKey(block, 8, 14): Timing(120_250),
        RowKey(Linear(10), 16, 1): Timing(9_000),
    }
    assert (table.scale, table.overhead) == (1.0, 1_500)
    assert table.facts == {"device": "a board of ours"}


def test_every_field_of_every_row_has_a_column() -> None:
    """But of what a row is only while it trains: no device runs a boosted row."""
    for kind in ROW_KINDS.values():
        assert {field.name for field in fields(kind)} - {"boost", "slope"} <= set(COLUMNS)


NUMBERS = st.integers(1, 65_536)
ACTS = st.sampled_from(["none", "relu", "relu6", "hardswish"])
ROWS = st.one_of(
    st.builds(Conv, NUMBERS, NUMBERS, NUMBERS, ACTS, norm=st.booleans(), bias=st.booleans()),
    st.builds(DepthwiseSeparable, NUMBERS, NUMBERS, NUMBERS, ACTS, skip=st.booleans()),
    st.builds(
        InvertedResidual,
        *(NUMBERS, NUMBERS, NUMBERS, NUMBERS, ACTS),
        skip=st.booleans(),
        squeeze=st.none() | NUMBERS,
    ),
    st.builds(Bottleneck, NUMBERS, NUMBERS, NUMBERS, projection=st.booleans(), act=ACTS),
    st.builds(MaxPool, NUMBERS, NUMBERS),
    st.just(GlobalAvgPool()),
    st.builds(Linear, NUMBERS),
)
KEYS = st.builds(RowKey, ROWS, NUMBERS, st.integers(1, 8_192))
TIMES = st.tuples(*[st.integers(0, 3600 * 10**9)] * 3).map(sorted)
TIMINGS = st.builds(
    lambda times, spread, repeats: Timing(
        times[1], times[0] if spread else None, times[2] if spread else None, repeats
    ),
    *(TIMES, st.booleans(), st.none() | st.integers(1, 10**9)),
)
FACTS = st.dictionaries(
    st.sampled_from(["device", "threads", "note"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20),
)
TABLES = st.builds(
    LatencyTable,
    st.dictionaries(KEYS, TIMINGS, max_size=5),
    st.floats(0.001, 1000),
    st.integers(0, 10**9),
    FACTS,
)


@settings(deadline=None)
@given(TABLES)
def test_what_is_written_reads_back_exactly(table: LatencyTable) -> None:
    assert read_csv(write_csv(table)) == table


def test_a_file_reads_back_exactly(tmp_path: Path) -> None:
    key = RowKey(Conv(3, 2, 16, "relu6"), 3, 144)
    table = LatencyTable({key: Timing(1, 0, 2, 3)}, 1.139, 2, {"device": "Größe"})
    path = tmp_path / "table.csv"
    for encoding, newline in (("utf-8", "\n"), ("utf-8-sig", "\r\n")):
        path.write_text(write_csv(table), encoding=encoding, newline=newline)
        assert load_latency_table(path) == table


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_a_table_or_a_value_error(text: str) -> None:
    lines = ["kind,in_channels,size,median_us", "linear,3,1,2"]
    for content in (text, "\n".join([lines[0], text]), "\n".join([*lines, text])):
        try:
            read_csv(content, "it")
        except ValueError as error:
            assert str(error).startswith("it")


HEAD = "kind,out,skip,in_channels,size,median_us,q1_us,q3_us,repeats"
GOOD = "linear,10,,16,1,9,8,10,30"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("linear,10,,16,1", "line 3: 9 columns are named, but it has 5"),
        (f"{GOOD},5", "line 3: 9 columns are named, but it has 10"),
        ("dense,10,,16,1,9,,,", r"line 3: row kind must be one of conv, .*but got 'dense'"),
        (",10,,16,1,9,,,", "line 3: row kind must be one of"),
        ("linear,,,16,1,9,,,", "line 3: linear needs out"),
        ("linear,10,true,16,1,9,,,", "line 3: linear has no key 'skip'; it has out"),
        ("linear,ten,,16,1,9,,,", r"line 3, column out: must be a whole number.*but got 'ten'"),
        ("linear,0,,16,1,9,,,", "column out: must be a whole number from 1 to 65,536"),
        ("linear,10,yes,16,1,9,,,", "column skip: must be true or false, but got 'yes'"),
        ("linear,10,,,1,9,,,", "column in_channels: must be a whole number from 1 to 65,536"),
        ("linear,10,,16,1.5,9,,,", "column size: must be a whole number from 1 to 8,192"),
        ("linear,10,,16,9000,9,,,", "column size: must be a whole number from 1 to 8,192"),
        ("linear,10,,16,1,,,,", "column median_us: must be a number of microseconds from 0"),
        ("linear,10,,16,1,nan,,,", "column median_us: must be a number of microseconds"),
        ("linear,10,,16,1,-1,,,", "column median_us: must be a number of microseconds"),
        ("linear,10,,16,1,1e99,,,", "column median_us: must be a number of microseconds"),
        ("linear,10,,16,1,9,x,,", "column q1_us: must be a number of microseconds"),
        ("linear,10,,16,1,9,,,0", "column repeats: must be a whole number from 1"),
        ("linear,10,,16,1,9,10,,", "line 3: quartiles must enclose the median"),
        ('linear,10,,16,1,"9"x,,,', "line 3: .*; cells are separated by commas"),
        (f"{GOOD}\n\n{GOOD}", "line 5: the same row stands in line 3; delete one"),
    ],
)
def test_a_mistake_is_said_with_its_line_and_column(line: str, said: str) -> None:
    assert len(read_csv(f"# device: x\n{HEAD}\n{GOOD}\n").timings) == 1
    with pytest.raises(ValueError, match=f"^board.csv, {said}" if "line" in said else said):
        read_csv(f"# device: x\n{HEAD}\n{line}\n", "board.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "board.csv has no line with the columns' names, such as kind,in_channels"),
        ("# only: this\n", "board.csv has no line with the columns' names"),
        ("kind,in_channels,size,median_ns", "line 1: unknown column 'median_ns': did you mean"),
        ("kind;in_channels;size;median_us", "line 1: unknown column 'kind;in_channels;"),
        ("kind,in_channels,size", "line 1: column median_us is missing; needed are kind, in_"),
        (f"{HEAD},size", "line 1: column size stands there twice"),
        (f"# scale: big\n{HEAD}", "board.csv: scale must be a number, but got 'big'"),
        (f"# scale: -1\n{HEAD}", "board.csv: scale must be above 0"),
        (f"# overhead_us: -1\n{HEAD}", "board.csv: overhead_us: must be a number of micros"),
    ],
)
def test_a_file_that_is_no_table(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_csv(text, "board.csv")


def test_the_example_of_the_documentation_is_a_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "latency.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    table = read_csv(example)
    assert len(table.timings) == 6
    assert table.facts["backend"] == "onnxruntime"
    assert table.overhead > 0
    assert write_csv(table).splitlines()[16] == ",".join(COLUMNS)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"table.csv is not a text file in UTF-8"):
        load_latency_table(path)
    with pytest.raises(FileNotFoundError):
        load_latency_table(tmp_path / "other.csv")
