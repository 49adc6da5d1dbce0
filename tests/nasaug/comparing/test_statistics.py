"""Means, intervals, paired tests and Holm's correction, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasaug.comparing.statistics import (
    Mean,
    Paired,
    Unpaired,
    first_reaching,
    holm,
    mean_curve,
    mean_of,
    paired,
    pooled,
    unpaired,
)

shares = st.integers(0, 10_000).map(lambda hits: hits / 10_000)
several = st.lists(shares, min_size=2, max_size=12)


@given(several)
def test_mean_and_interval_are_scipys(values: list[float]) -> None:
    found = mean_of(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    if len(set(values)) > 1:
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
        )
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_three_by_hand() -> None:
    # mean 2, sd 1; t of two degrees of freedom at 97.5 % is 4.303 in every textbook.
    found = mean_of([1.0, 2.0, 3.0])
    assert (found.mean, found.sd) == (2.0, 1.0)
    assert found.high == pytest.approx(2 + 4.303 / math.sqrt(3), abs=1e-3)
    assert found.low == pytest.approx(2 - 4.303 / math.sqrt(3), abs=1e-3)


def test_one_run_has_no_interval_and_none_has_nothing() -> None:
    assert mean_of([0.5]) == Mean(1, 0.5)
    assert mean_of([]) == Mean(0)
    assert paired([0.5], [0.4]) == Paired(1, pytest.approx(0.1))
    assert paired([], []) == Paired(0)


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=12))
def test_paired_is_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    found = paired(ours, theirs)
    differences = {round((a - b) * 10_000) for a, b in pairs}
    if len(differences) == 1:
        assert found.p is None
        assert found.low == pytest.approx(found.difference)
        return
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_pairs_need_equal_lengths() -> None:
    with pytest.raises(ValueError, match="two lists of one length, but got 2, 1"):
        paired([0.1, 0.2], [0.1])


def test_correlation_of_pairs_is_numpys() -> None:
    ours, theirs = [0.1, 0.4, 0.2, 0.3], [0.2, 0.3, 0.3, 0.1]
    found = paired(ours, theirs).correlation
    assert found == pytest.approx(stats.pearsonr(ours, theirs).statistic)
    assert paired(ours[:2], theirs[:2]).correlation is None
    assert paired(ours, [0.5] * 4).correlation is None


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, of equal numbers
@given(several, several)
def test_unpaired_is_scipys_welch_test(ours: list[float], theirs: list[float]) -> None:
    found = unpaired(mean_of(ours), mean_of(theirs))
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
    if len(set(ours)) == len(set(theirs)) == 1:
        assert found.low is found.high is found.p is None
        return
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_unpaired_needs_two_runs_a_side() -> None:
    one, two = mean_of([0.5]), mean_of([0.4, 0.6])
    for ours, theirs in ((one, two), (two, one)):
        assert unpaired(ours, theirs) == Unpaired(pytest.approx(0.0))
    assert unpaired(mean_of([]), two) == Unpaired()


def test_holm_by_hand() -> None:
    # 3 x 0.01; 2 x 0.03; then 0.04, which may not be below 0.06.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == holm([]) == []


@given(st.lists(st.none() | st.floats(0, 1), max_size=8))
def test_holm_is_its_definition(values: list[float | None]) -> None:
    """The largest of (m - rank + 1) p over all p that are no larger, 1 at most."""
    known = sorted(p for p in values if p is not None)
    for p, corrected in zip(values, holm(values), strict=True):
        if p is None:
            assert corrected is None
            continue
        last = max(index for index, q in enumerate(known) if q == p)
        first = known.index(p)
        steps = [(len(known) - i) * q for i, q in enumerate(known[: last + 1])]
        assert corrected == pytest.approx(min(1.0, max(steps[: last + 1])))
        assert corrected >= known[first]


def test_first_reaching() -> None:
    assert first_reaching([1, 2, 4], [0.1, 0.5, 0.7], 0.5) == 2
    assert first_reaching([1, 2, 4], [0.1, 0.5, 0.7], 0.6) == 4
    assert first_reaching([1, 2, 4], [0.1, 0.5, 0.7], 0.8) is None
    assert first_reaching([], [], 0.8) is None


def test_a_mean_curve_has_the_epochs_that_all_have() -> None:
    assert mean_curve([{1: 0.2, 2: 0.4, 3: 0.5}, {2: 0.6, 3: 0.7, 4: 0.8}]) == pytest.approx(
        {2: 0.5, 3: 0.6}
    )
    assert mean_curve([]) == {}


# Log relative risks of 13 trials of the BCG vaccine (Colditz et al., 1994) and their variances, an
# example of textbooks. What is expected is what statsmodels 0.14 finds.
VACCINE = {
    -0.8893: 0.3256, -1.5854: 0.1946, -1.3481: 0.4154, -1.4416: 0.0200, -0.2175: 0.0512,
    -0.7861: 0.0069, -1.6209: 0.2230, 0.0120: 0.0040, -0.4694: 0.0564, -1.3713: 0.0730,
    -0.3394: 0.0124, 0.4459: 0.5325, -0.0173: 0.0714,
}  # fmt: skip


def test_pooled_is_that_of_a_known_example() -> None:
    found = pooled([*VACCINE], np.sqrt([*VACCINE.values()]).tolist())
    assert (found.n, found.mean) == (13, pytest.approx(-0.714084, abs=1e-6))
    assert (found.low, found.high) == pytest.approx((-1.107776, -0.320393), abs=1e-6)
    assert found.between**2 == pytest.approx(0.308396, abs=1e-6)


def test_pooled_differences_of_one_size_are_known_as_well_as_their_errors_allow() -> None:
    # Less apart than their errors: nothing between them, and the errors, 0.1 / sqrt(4), stand.
    found = pooled([0.1, 0.1, 0.12, 0.08], [0.1] * 4)
    assert (found.mean, found.between) == (pytest.approx(0.1), 0.0)
    assert found.high - found.mean == pytest.approx(3.182 * 0.05, abs=1e-4)
    # The better known counts more: weights 4 to 1.
    assert pooled([0.0, 0.1], [0.1, 0.2]).mean == pytest.approx(0.02)
    # What is known exactly beside the others decides.
    exact = pooled([0.0, 1.0], [1e-9, 1.0])
    assert (exact.mean, exact.between) == (pytest.approx(0.0), 0.0)


@pytest.mark.parametrize(
    ("found", "errors"), [([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1] * 2, [0.1, 0])]
)
def test_pooling_what_cannot_be_weighed_is_refused(found: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match="two differences or more, each with an error above 0"):
        pooled(found, errors)
