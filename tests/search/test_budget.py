"""Budgets as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasaug.search import format_count, format_macs, parse_budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300M", 300_000_000),
        ("300m", 300_000_000),
        (" 300 M ", 300_000_000),
        ("1.2G", 1_200_000_000),
        ("0.3g", 300_000_000),
        ("64K", 64_000),
        ("2T", 2_000_000_000_000),
        ("25e6", 25_000_000),
        ("2.5E+7", 25_000_000),
        ("300_000_000", 300_000_000),
        ("23499152", 23_499_152),
        (23_499_152, 23_499_152),
        (25e6, 25_000_000),
        ("1e18", 10**18),
        (1, 1),
    ],
)
def test_budget_is_read(text: str | int | float, expected: int) -> None:
    budget = parse_budget(text)
    assert budget == expected and type(budget) is int


def test_budget_is_exact_where_a_float_would_not_be() -> None:
    """2.3 x 10^9 + 1 in units of G; a float's product would be off by less than one and cut."""
    assert parse_budget("2.300000001G") == 2_300_000_001
    assert parse_budget("1.1G") == 1_100_000_000
    assert parse_budget("999999999999999999") == 10**18 - 1


BAD = ["", " ", "M", "300X", "300MM", "-5", "-300M", "+5", "nan", "inf", "1e-3", "1.2.3", "1,2G"]


@pytest.mark.parametrize("text", [*BAD, "300M MACs", "0x10", "e6", ".5G", "1e999", -5, None, True])
def test_what_is_no_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="a budget is a number of MACs such as 300M") as caught:
        parse_budget(text)
    assert repr(str(text).strip()) in str(caught.value)


@pytest.mark.parametrize("text", ["0", "0.0M", "0.5", "1e19", "10000000T", 0, 1e20])
def test_budget_out_of_range_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match=r"from 1 to 1e\+18 MACs"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["\u0661\u0662\u0663", "\uff13\uff10M", "3\u06600"])
def test_digits_of_other_scripts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a budget is a number of MACs"):
        parse_budget(text)


WRITTEN = r"\s?[-+]?[0-9_.]{0,9}([eE][0-9]{0,4})?\s?[a-zA-Z]{0,2}"


@given(st.text() | st.from_regex(WRITTEN, fullmatch=True))
def test_any_text_is_a_budget_or_refused(text: str) -> None:
    try:
        budget = parse_budget(text)
    except ValueError:
        return
    assert isinstance(budget, int) and 1 <= budget <= 10**18


@given(st.integers(1, 10**18))
def test_whole_numbers_come_back(macs: int) -> None:
    assert parse_budget(macs) == parse_budget(str(macs)) == parse_budget(f"{macs:_}") == macs


@given(st.integers(1, 10**9), st.sampled_from([("K", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_unit_multiplies(number: int, unit: tuple[str, int]) -> None:
    letter, size = unit
    assert parse_budget(f"{number}{letter}") == number * size
    thousandths = Fraction(number, 1000) * size
    assert parse_budget(f"{number // 1000}.{number % 1000:03}{letter}") == max(1, thousandths // 1)


@pytest.mark.parametrize(
    ("macs", "text"),
    [
        (23_499_152, "23.5M"),
        (334_400_000, "334.4M"),
        (1_200_000_000, "1.2G"),
        (999, "999"),
        (1000, "1K"),
    ],
)
def test_budget_is_shown_for_people(macs: int, text: str) -> None:
    assert format_macs(macs) == text


@given(st.integers(1, 10**13))
def test_what_is_shown_reads_as_nearly_the_same(macs: int) -> None:
    assert parse_budget(format_macs(macs)) == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1"), (999, "999"), (5_889_000, "5.89e+6"), (10**400, "1.00e+400")]
)
def test_counts_of_any_size_are_shown(count: int, text: str) -> None:
    assert format_count(count) == text
