"""Fitting the scale and judging predictions, against scipy and numpy."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from nasaug.devices import (
    LatencyTable,
    Timing,
    calibrate,
    draw_networks,
    judge,
    measure_networks,
    measure_rows,
    rows_of,
)
from nasaug.supernet import SearchSpace, load_target


def test_a_known_scale_is_found_and_predicts_other_networks(space: SearchSpace, known: Any) -> None:
    """The backend's networks take 1.1 times their rows and the empty run."""
    backend, rng = known(3), random.Random(0)
    rows = measure_rows(backend, space, rows_of(space), {}, rng)
    fit = draw_networks(space, 10, rng)
    others = draw_networks(space, 20, rng, without=fit)
    table = calibrate(
        LatencyTable(rows, overhead=known.EMPTY), fit, measure_networks(backend, fit, rng)
    )
    assert table.scale == pytest.approx(1.1, abs=2e-4)
    agreement = judge(table, others, measure_networks(backend, others, rng))
    assert agreement.networks == 20
    assert agreement.mape < 5e-4
    assert agreement.bias == pytest.approx(1, abs=5e-4)


def test_agreement_is_scipys_and_numpys(space: SearchSpace, known: Any) -> None:
    rng = random.Random(0)
    table = LatencyTable(measure_rows(known(), space, rows_of(space), {}, rng))
    networks = draw_networks(space, 12, rng)
    measured = [Timing(rng.randrange(10**5, 10**6)) for _ in networks]
    predicted = np.array([table.predict(arch) for arch in networks])
    medians = np.array([timing.median for timing in measured])
    agreement = judge(table, networks, measured)
    assert agreement.spearman == pytest.approx(spearmanr(predicted, medians).statistic)
    assert agreement.mape == pytest.approx(np.mean(np.abs(predicted - medians) / medians))
    assert agreement.bias == pytest.approx(np.mean(predicted / medians))


def test_equal_networks_have_no_rank_correlation(space: SearchSpace) -> None:
    table = LatencyTable({key: Timing(1000) for key in rows_of(space)})
    networks = [space.target.canonical()] * 3
    assert math.isnan(judge(table, networks, [Timing(5)] * 3).spearman)


def test_two_networks_are_too_few(space: SearchSpace) -> None:
    networks = draw_networks(space, 2, random.Random(0))
    with pytest.raises(ValueError, match="at least 3 networks are needed, but got 2"):
        judge(LatencyTable({}), networks, [Timing(5)] * 2)


def test_networks_are_distinct_and_none_of_those_left_out(space: SearchSpace) -> None:
    some = draw_networks(space, 15, random.Random(0))
    others = draw_networks(space, 15, random.Random(0), without=some)
    assert len({*some, *others}) == 30
    assert some == draw_networks(space, 15, random.Random(0))
    assert draw_networks(space, 0, random.Random(0)) == []


def test_a_space_of_too_few_networks() -> None:
    only = SearchSpace.around(load_target("micro_10k", 10), (1,), (1,), (0,), (0,))
    assert len(draw_networks(only, 1, random.Random(0))) == 1
    with pytest.raises(
        ValueError, match="3 different networks are wanted, but the space around micro_10k has 1;"
    ):
        draw_networks(only, 2, random.Random(0), without=[load_target("mbv2_tiny", 10)])
