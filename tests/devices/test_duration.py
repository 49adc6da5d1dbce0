"""Latencies in people's words."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.devices import format_latency, parse_latency

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("20ms", 20_000_000),
        ("350us", 350_000),
        ("350µs", 350_000),
        ("350μs", 350_000),
        ("1.5s", 1_500_000_000),
        (" 1_000 NS ", 1_000),
        ("2.5e-3 s", 2_500_000),
        ("0.0000001s", 100),
        ("3600s", 3_600_000_000_000),
        (20_000_000, 20_000_000),
    ],
)
def test_reads(text: str | int, nanoseconds: int) -> None:
    assert parse_latency(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "20", "ms", "20 m", "-5ms", "1,5ms", "nan ms", "5ms5", "0x5ms", "٣ms", 1.5, True]
)
def test_refuses_what_is_no_latency(text: str | int) -> None:
    with pytest.raises(
        ValueError, match=r"a latency is a number with a unit such as 20ms.*but got"
    ):
        parse_latency(text)


@pytest.mark.parametrize("text", ["0ms", "0.4ns", "3601s", "1e99s", 0, -3])
def test_refuses_what_is_out_of_range(text: str | int) -> None:
    with pytest.raises(ValueError, match="must be from 1 ns to 3600 s, but got"):
        parse_latency(text)


@settings(deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 999),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from("_ "),
)
def test_is_exact(whole: int, thousandths: int, unit: str, blank: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * UNITS[unit]
    text = f"{whole}.{thousandths:03}{blank.strip('_')}{unit}"
    if 1 <= exact <= 3600 * 10**9:
        assert parse_latency(text) == exact.numerator // exact.denominator
    else:
        with pytest.raises(ValueError, match="must be from"):
            parse_latency(text)


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_other_text_is_a_value_error(text: str) -> None:
    try:
        assert 1 <= parse_latency(text) <= 3600 * 10**9
    except ValueError as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 us"),
        (33_461, "33.461 us"),
        (20_125_400, "20.125 ms"),
        (1_500_000_000, "1.5 s"),
    ],
)
def test_writes(nanoseconds: int, text: str) -> None:
    assert format_latency(nanoseconds) == text


@settings(deadline=None)
@given(st.integers(1, 3600 * 10**9))
def test_what_is_written_reads_back(nanoseconds: int) -> None:
    assert abs(parse_latency(format_latency(nanoseconds)) - nanoseconds) <= nanoseconds / 1000
