"""Choosing learning rates: the best of the grid, which grows until the best lies inside it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasaug.comparing.tuning import tuned
from nasaug.study_config import TuneSection


def options(**keys: object) -> TuneSection:
    return TuneSection.model_validate({"grid": [0.1, 0.2, 0.4], **keys})


def peak(rate: float) -> Callable[[float], float]:
    return lambda tried: -abs(math.log2(tried / rate))


def test_a_best_inside_needs_no_more() -> None:
    found = tuned(options(), peak(0.2))
    assert (found.rate, found.inside, found.wanted, found.said) == (0.2, True, (), "")
    assert list(found.tried) == [0.1, 0.2, 0.4]


@given(st.integers(-9, 7))
def test_the_grid_grows_until_the_best_is_inside(exponent: int) -> None:
    rate = 0.2 * 2.0**exponent
    found = tuned(options(limit=12), peak(rate))
    assert found.inside
    assert found.rate == pytest.approx(rate)
    # One beyond the best on the side to which it grew, nothing beyond that.
    assert min(found.tried) == pytest.approx(min(0.1, rate / 2))
    assert max(found.tried) == pytest.approx(max(0.4, rate * 2))


def test_it_stops_at_the_limit_and_says_so() -> None:
    found = tuned(options(limit=2), peak(100.0))
    assert list(found.tried) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert (found.rate, found.inside) == (1.6, False)
    assert "1.6, is at the edge" in found.said


def test_no_rate_is_above_what_a_recipe_may_have() -> None:
    found = tuned(options(grid=[60.0], limit=12), peak(1000.0))
    assert (found.rate, found.inside) == (60.0, False)


def test_without_extension_the_edge_is_taken_and_said() -> None:
    found = tuned(options(extend=False), peak(3.2))
    assert (list(found.tried), found.rate, found.inside) == ([0.1, 0.2, 0.4], 0.4, False)
    assert found.said


def test_unknown_scores_are_asked_for_and_nothing_is_chosen() -> None:
    scores = {0.1: 0.5, 0.4: 0.7}
    found = tuned(options(), scores.get)
    assert (found.rate, found.wanted, found.said) == (None, (0.2,), "not tuned yet")
    scores[0.2] = 0.6
    assert tuned(options(), scores.get).wanted == (0.8,)


def test_rates_that_diverge_are_never_chosen() -> None:
    def score(rate: float) -> float:
        return -math.inf if rate > 0.15 else rate

    found = tuned(options(), score)
    assert (found.rate, found.inside) == (0.1, True)
    assert list(found.tried) == [0.05, 0.1, 0.2, 0.4]


def test_where_all_diverge_lower_ones_are_tried_and_then_none_is_chosen() -> None:
    found = tuned(options(limit=3), lambda rate: -math.inf)
    assert (found.rate, found.wanted, found.said) == (None, (), "no rate trains it")
    assert min(found.tried) == pytest.approx(0.1 / 8)
    assert max(found.tried) == 0.4


def test_of_equals_the_lowest_is_chosen() -> None:
    found = tuned(options(extend=False), lambda rate: 0.5)
    assert found.rate == 0.1


def test_one_rate_without_extension_is_no_tuning() -> None:
    found = tuned(options(grid=[0.3], extend=False), lambda rate: None)
    assert (found.rate, found.tried, found.wanted) == (0.3, {}, ())
