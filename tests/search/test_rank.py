"""Rank correlation with intervals, and the draw of candidates over bands of MACs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from nasaug.search import RankReport, draw_stratified, rank_report
from nasaug.search.rank import (
    macs_bands,
    resampled_spearman,
    resampled_tau_b,
    spearman,
    tau_b,
)
from nasaug.supernet import ChoicePath, Infeasible, Limits, SearchSpace, load_target

NUMBERS = st.lists(st.integers(0, 6).map(float), min_size=4, max_size=12)
SPACE = SearchSpace.around(load_target("micro_10k", 10, in_channels=1))


def _members(space: SearchSpace) -> list[ChoicePath]:
    """All of a small space whose rows' choices all differ."""
    return list(itertools.product(*(range(len(row.choices)) for row in space.rows)))


def _tau_by_pairs(x: list[float], y: list[float]) -> float:
    """Concordant less discordant pairs over the geometric mean of the pairs not tied in x, in y."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    untied = math.prod(sum(s != 0 for s in column) for column in zip(*signs, strict=True))
    return float(sum(a * b for a, b in signs)) / math.sqrt(untied) if untied else 0.0


def _rho_by_ranks(x: list[float], y: list[float]) -> float:
    """Pearson's correlation of the ranks, equal values having their mean rank."""
    ranks = [
        np.array(
            [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]
        )
        for values in (x, y)
    ]
    a, b = (each - each.mean() for each in ranks)
    spread = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / spread if spread else 0.0


@given(st.data())
@settings(deadline=None)
def test_coefficients_with_ties_by_hand(data: st.DataObject) -> None:
    x = data.draw(NUMBERS)
    y = data.draw(st.lists(st.integers(0, 3).map(float), min_size=len(x), max_size=len(x)))
    assert tau_b(np.array(x), np.array(y)) == pytest.approx(_tau_by_pairs(x, y))
    assert spearman(np.array(x), np.array(y)) == pytest.approx(_rho_by_ranks(x, y))


@pytest.fixture(scope="module")
def judged() -> tuple[list[float], list[float], list[float]]:
    """Twenty candidates: inherited accuracy says something, MACs less."""
    rng = np.random.default_rng(0)
    alone = rng.normal(0.85, 0.02, 20)
    inherited = np.round(alone + rng.normal(0, 0.02, 20), 2)
    costs = np.round(alone * 1e8 + rng.normal(0, 4e6, 20))
    return inherited.tolist(), alone.tolist(), costs.tolist()


STATISTICS: dict[str, Callable[..., float]] = {
    "tau": lambda x, y, _: tau_b(x, y),
    "spearman": lambda x, y, _: spearman(x, y),
    "macs_tau": lambda _, y, c: tau_b(c, y),
    "gain": lambda x, y, c: tau_b(x, y) - tau_b(c, y),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_report_against_scipys_bootstrap(name: str, judged: Any) -> None:
    report = rank_report(*judged, resamples=300, seed=1)
    assert (report.n, report.resamples, report.seed, report.confidence) == (20, 300, 1, 0.95)
    found = getattr(report, name)
    data = tuple(np.array(each) for each in judged)
    assert found.value == STATISTICS[name](*data)
    # Wide enough for other resamples, should scipy one day draw others from this generator.
    reference = bootstrap(
        data,
        STATISTICS[name],
        n_resamples=300,
        vectorized=False,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(reference.low, abs=0.1)
    assert found.high == pytest.approx(reference.high, abs=0.1)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_every_resample_is_what_scipy_says_of_it(data: st.DataObject) -> None:
    x = data.draw(NUMBERS)
    y = data.draw(st.lists(st.integers(0, 3).map(float), min_size=len(x), max_size=len(x)))
    drawn = np.random.default_rng(0).integers(len(x), size=(5, len(x)))
    x, y = np.array(x), np.array(y)
    for found, coefficient in ((resampled_tau_b, tau_b), (resampled_spearman, spearman)):
        expected = [coefficient(x[index], y[index]) for index in drawn]
        np.testing.assert_allclose(found(x, y, drawn), expected, atol=1e-12)


def test_nineteen_of_twenty_intervals_hold_the_true_value() -> None:
    """Of a bivariate normal with correlation rho, tau is 2 / pi arcsin(rho)."""
    rng, tau = np.random.default_rng(0), 0.5
    rho = math.sin(math.pi / 2 * tau)
    held = 0
    for seed in range(200):
        y = rng.normal(size=12)
        x = rho * y + math.sqrt(1 - rho**2) * rng.normal(size=12)
        report = rank_report(x, y, y, resamples=300, seed=seed)
        held += report.tau.low <= tau <= report.tau.high
    assert 0.9 <= held / 200 <= 0.99


def test_the_confidence_widens_the_interval(judged: Any) -> None:
    half, most = (rank_report(*judged, resamples=200, confidence=c) for c in (0.5, 0.99))
    assert most.tau.low < half.tau.low < half.tau.high < most.tau.high


def test_the_seed_decides_the_interval_and_nothing_else(judged: Any) -> None:
    first, again, other = (rank_report(*judged, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.tau.low, first.tau.high) != (other.tau.low, other.tau.high)
    assert first.tau.value == other.tau.value


def test_the_same_judge_twice_gains_nothing(judged: Any) -> None:
    """Paired: both judges see the same resamples, so that equal ones differ in none."""
    _, alone, costs = judged
    report = rank_report(costs, alone, costs, resamples=100)
    assert (report.gain.value, report.gain.low, report.gain.high) == (0, 0, 0)
    assert report.tau == report.macs_tau


def test_perfect_and_reversed_orders() -> None:
    alone = [0.1, 0.2, 0.4, 0.5, 0.8]
    report = rank_report([v**2 for v in alone], alone, [-v for v in alone], resamples=100)
    found = (report.tau.value, report.tau.low, report.spearman.value, report.spearman.high)
    assert found == pytest.approx((1, 1, 1, 1))
    assert (report.macs_tau.value, report.macs_tau.low) == pytest.approx((-1, -1))
    assert (report.gain.value, report.gain.high) == pytest.approx((2, 2))
    assert report.tau.above_zero and not report.macs_tau.above_zero


def test_a_judge_that_says_the_same_of_all_has_tau_0() -> None:
    report = rank_report([0.1] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5], resamples=100)
    assert (report.tau.value, report.tau.low, report.tau.high) == (0, 0, 0)
    assert report.spearman.value == 0
    assert not report.tau.above_zero
    assert report.gain.value == pytest.approx(-1)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_report_depends_on_orders_only(data: st.DataObject) -> None:
    x = data.draw(NUMBERS)
    y, c = (
        data.draw(st.lists(st.integers(0, 9).map(float), min_size=len(x), max_size=len(x)))
        for _ in range(2)
    )
    report = rank_report(x, y, c, resamples=20)
    stretched = rank_report([2.0**v for v in x], [v**3 - 1 for v in y], c, resamples=20)
    for name in ("tau", "spearman", "macs_tau", "gain"):
        one, two = getattr(report, name), getattr(stretched, name)
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))
    assert -1 - 1e-9 <= report.tau.low <= report.tau.high <= 1 + 1e-9


def test_plain_data_of_a_report(judged: Any) -> None:
    report = rank_report(*judged, resamples=50)
    plain = report.to_dict()
    assert plain["tau"] == {
        "value": report.tau.value,
        "low": report.tau.low,
        "high": report.tau.high,
    }
    assert set(plain) == set(RankReport.__dataclass_fields__)
    assert str(report.tau).startswith(f"{report.tau.value:.2f} (")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (([1, 2, 3], [1, 2, 3], [1, 2, 3]), "at least 4 candidates, but got 3; raise --n"),
        (([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3]), "one value of each kind, but got 4, 4, 3"),
        (([1, 2, math.nan, 4], [1, 2, 3, 4], [1, 2, 3, 4]), "one is not finite"),
        (([1, 2, 3, 4], [1, 2, 3, math.inf], [1, 2, 3, 4]), "one is not finite"),
    ],
)
def test_bad_values(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rank_report(*values)


@given(st.integers(1, 40), st.floats(0.001, 1.2))
@settings(max_examples=30, deadline=None)
def test_bands_are_equally_wide_and_cover_all(bands: int, share: float) -> None:
    low, high = SPACE.source.cheapest, SPACE.source.dearest
    budget = low + int((high - low) * share)
    found = macs_bands(SPACE, Limits(macs=budget), bands)
    assert len(found) == bands
    assert found[0][0] == low
    assert found[-1][1] == min(budget, high)
    for (_, most), (least, _) in itertools.pairwise(found):
        assert least == most + 1
    widths = [most - least + 1 for least, most in found]
    assert max(widths) - min(widths) <= 2


@given(st.integers(4, 20), st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_candidates_are_distinct_members_spread_over_the_bands(
    n: int, bands: int, seed: int
) -> None:
    assume(bands <= n)
    budget = 4_000_000
    paths = draw_stratified(SPACE, n, bands, Limits(macs=budget), random.Random(seed))
    assert len(set(paths)) == len(paths) == n
    assert paths == draw_stratified(SPACE, n, bands, Limits(macs=budget), random.Random(seed))
    costs = [SPACE.macs(path) for path in paths]
    counts = [
        sum(least <= cost <= most for cost in costs)
        for least, most in macs_bands(SPACE, Limits(macs=budget), bands)
    ]
    assert sum(counts) == n
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


def test_other_limits_hold_in_every_band() -> None:
    limits = Limits(macs=4_000_000, least_macs=2_000_000, params=90_000, memory=25_000)
    paths = draw_stratified(SPACE, 9, 3, limits, random.Random(0))
    assert macs_bands(SPACE, limits, 3)[0][0] == 2_000_000
    free = draw_stratified(SPACE, 9, 3, replace(limits, params=None), random.Random(0))
    assert max(map(SPACE.params, free)) > 90_000
    for path in paths:
        assert 2_000_000 <= SPACE.macs(path) <= 4_000_000
        assert SPACE.params(path) <= 90_000
        assert SPACE.memory(path) <= 25_000


def test_another_seed_draws_other_candidates() -> None:
    first, second = (
        draw_stratified(SPACE, 8, 2, Limits(macs=4_000_000), random.Random(seed)) for seed in (0, 1)
    )
    assert not set(first) & set(second)


def test_a_whole_small_space_can_be_drawn(tiny_space: SearchSpace) -> None:
    paths = draw_stratified(tiny_space, 16, 1, Limits(), random.Random(0))
    assert sorted(paths) == sorted(_members(tiny_space))


def test_a_band_that_is_too_small_is_named(tiny_space: SearchSpace) -> None:
    costs = sorted(tiny_space.macs(path) for path in _members(tiny_space))
    budget = costs[-1]
    for bands in range(2, 17):
        edges = macs_bands(tiny_space, Limits(macs=budget), bands)
        counts = [sum(a <= cost <= b for cost in costs) for a, b in edges]
        short = next((i for i, count in enumerate(counts) if count < 16 // bands + 1), None)
        empty = next((i for i, count in enumerate(counts) if count == 0), None)
        if short is None or (empty is not None and empty <= short):
            continue
        name = f"band {short + 1} of {bands} \\({edges[short][0]:,} to {edges[short][1]:,} MACs\\)"
        wanted = counts[short] + 1
        with pytest.raises(ValueError, match=f"{name} has no more than {counts[short]} members"):
            draw_stratified(
                tiny_space, wanted * bands, bands, Limits(macs=budget), random.Random(0)
            )
        return
    raise AssertionError("no number of bands has a band that is too small")


def test_a_band_without_a_member_is_named(tiny_space: SearchSpace) -> None:
    costs = sorted(tiny_space.macs(path) for path in _members(tiny_space))
    budget, bands = costs[-1], 40
    edges = macs_bands(tiny_space, Limits(macs=budget), bands)
    empty = next(
        index
        for index, (least, most) in enumerate(edges)
        if not any(least <= cost <= most for cost in costs)
    )
    least, most = edges[empty]
    said = rf"band {empty + 1} of 40 \({least:,} to {most:,} MACs\) has no member.*lower --bands"
    with pytest.raises(ValueError, match=said):
        draw_stratified(tiny_space, 40, bands, Limits(macs=budget), random.Random(0))


def test_a_budget_of_the_cheapest_member_leaves_no_room_for_bands() -> None:
    cheapest = SPACE.source.cheapest
    with pytest.raises(ValueError, match=r"band 1 of 2 .* has no more than 1 members"):
        draw_stratified(SPACE, 4, 2, Limits(macs=cheapest), random.Random(0))
    with pytest.raises(ValueError, match=r"band 2 of 4 .* has no member"):
        draw_stratified(SPACE, 4, 4, Limits(macs=cheapest), random.Random(0))


def test_bad_numbers_of_candidates_and_bands() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match=r"at least 4 candidates, but got 3; raise --n"):
        draw_stratified(SPACE, 3, 1, Limits(macs=4_000_000), rng)
    with pytest.raises(ValueError, match=r"5 candidates cannot fill 6 bands; raise --n or lower"):
        draw_stratified(SPACE, 5, 6, Limits(macs=4_000_000), rng)
    with pytest.raises(ValueError, match=r"at least one band, but got 0"):
        draw_stratified(SPACE, 5, 0, Limits(macs=4_000_000), rng)
    with pytest.raises(Infeasible, match=r"336,128|budget"):
        draw_stratified(SPACE, 5, 2, Limits(macs=1000), rng)
