"""A table is an additive price of rows, and says what it lacks."""

from __future__ import annotations

import pytest

from nasaug.devices import LatencyTable, RowKey, Timing, rows_of
from nasaug.supernet import GlobalAvgPool, InvertedResidual, Linear, SearchSpace, Skip, load_target

BLOCK = InvertedResidual(3, 2, 48, 16, "relu6", skip=False)
ENTRIES = {
    RowKey(BLOCK, 8, 14): Timing(10_000),
    RowKey(GlobalAvgPool(), 16, 7): Timing(301),
    RowKey(Linear(10), 16, 1): Timing(700),
}


def test_a_row_costs_its_median_times_the_scale() -> None:
    table = LatencyTable(ENTRIES, scale=1.5, overhead=2_000)
    assert table(BLOCK, 8, 14) == 15_000
    assert table(GlobalAvgPool(), 16, 7) == 452


def test_the_overhead_comes_with_the_one_linear_row() -> None:
    assert LatencyTable(ENTRIES, 1.5, 2_000)(Linear(10), 16, 1) == 1_050 + 2_000


def test_an_absent_row_costs_nothing() -> None:
    assert LatencyTable({})(Skip(), 8, 14) == 0


def test_a_network_costs_the_sum_of_its_rows() -> None:
    target = load_target("micro_10k", 10)
    keys = [
        RowKey(*key) for key in zip(target.rows, target.widths_in, target.sizes_in, strict=True)
    ]
    distinct = {key: Timing(1000 * index) for index, key in enumerate(dict.fromkeys(keys), 1)}
    assert len(distinct) == len(keys)
    table = LatencyTable(distinct, scale=2.0, overhead=77)
    by_hand = 2 * 1000 * sum(range(1, len(keys) + 1)) + 77
    assert table.predict(target) == by_hand


def test_a_space_takes_the_table_as_its_price(space: SearchSpace) -> None:
    keys = sorted(rows_of(space), key=str)
    table = LatencyTable({key: Timing(3 * index) for index, key in enumerate(keys)}, overhead=5)
    priced = space.priced(table)
    path = priced.path(priced.largest)
    assert priced.latency(path) == table.predict(space.largest)


def test_a_row_that_is_not_there_is_named_with_the_remedy() -> None:
    said = (
        r"no entry for inverted_residual \(kernel 3, stride 2, mid 48, out 16, act relu6, "
        r"skip False\) reading 16 channels at 14 x 14; measure it with nasaug latency-table"
    )
    with pytest.raises(ValueError, match=said):
        LatencyTable(ENTRIES)(BLOCK, 16, 14)
    with pytest.raises(ValueError, match=r"no entry for global_avg_pool reading 8 channels"):
        LatencyTable(ENTRIES)(GlobalAvgPool(), 8, 7)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_a_scale_is_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be above 0 and at most 1000, but got"):
        LatencyTable({}, scale=scale)


@pytest.mark.parametrize("overhead", [-1, 3600 * 10**9 + 1])
def test_an_overhead_is_a_latency(overhead: int) -> None:
    with pytest.raises(ValueError, match="overhead must be from 0 to 3600 s, but got"):
        LatencyTable({}, overhead=overhead)


@pytest.mark.parametrize("name", ["two words", "", "a:b", "scale", "overhead_us"])
def test_a_fact_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="a fact's name must be a word of its own"):
        LatencyTable({}, facts={name: "x"})


@pytest.mark.parametrize("value", ["two\nlines", " padded", "a\u2028b"])
def test_a_fact_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="device must be one line, but got"):
        LatencyTable({}, facts={"device": value})


def test_a_timing_is_a_latency() -> None:
    with pytest.raises(ValueError, match="median must be from 0 to 3600 s, but got -1 ns"):
        Timing(-1)
    with pytest.raises(ValueError, match="q3 must be from 0 to 3600 s"):
        Timing(5, q3=3600 * 10**9 + 1)
    with pytest.raises(ValueError, match="repeats must be at least 1, but got 0"):
        Timing(5, repeats=0)


@pytest.mark.parametrize(("q1", "q3"), [(6, 7), (3, 4), (6, None), (None, 4)])
def test_quartiles_enclose_the_median(q1: int | None, q3: int | None) -> None:
    with pytest.raises(ValueError, match="quartiles must enclose the median, but got q1"):
        Timing(5, q1, q3)
