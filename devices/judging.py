"""How well a table predicts whole networks: its scale fitted on some, its errors told on others."""

from __future__ import annotations

import random
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import scipy  # its parts are loaded when they are used: scipy.stats takes half a second

from nasaug.devices.entries import Timing
from nasaug.devices.table import LatencyTable
from nasaug.supernet import Architecture, SearchSpace


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured latencies of so many networks.

    spearman: rank correlation, nan where all networks are equal; mape: mean absolute percentage
    error as a fraction; bias: mean of predicted / measured.
    """

    networks: int
    spearman: float
    mape: float
    bias: float


def draw_networks(
    space: SearchSpace,
    count: int,
    rng: random.Random,
    without: Collection[Architecture] = (),
) -> list[Architecture]:
    """Distinct members of `space`, drawn uniformly, none of them among `without`.

    Raises: ValueError if the space has too few.
    """
    taken = set(without)
    if count + len(taken) > space.count():
        raise ValueError(
            f"{count + len(taken)} different networks are wanted, but the space around "
            f"{space.target.name} has {space.count()}; validate on fewer"
        )
    drawn: dict[Architecture, None] = {}
    while len(drawn) < count:
        arch = space.sample(rng).canonical()
        if arch not in taken:
            drawn[arch] = None
    return list(drawn)


def calibrate(
    table: LatencyTable, networks: Sequence[Architecture], measured: Sequence[Timing]
) -> LatencyTable:
    """`table` with the scale that fits `measured` (ns): the median over the networks of
    (measured - overhead) / sum over rows.

    Raises: ValueError as `predict`.
    """
    plain = replace(table, scale=1.0, overhead=0)
    scale = statistics.median(
        max(1, timing.median - table.overhead) / max(1, plain.predict(arch))
        for arch, timing in zip(networks, measured, strict=True)
    )
    return replace(table, scale=round(scale, 4))


def judge(
    table: LatencyTable, networks: Sequence[Architecture], measured: Sequence[Timing]
) -> Agreement:
    """How well `table` predicts `measured` (ns). Raises: ValueError for fewer than 3 networks."""
    if len(networks) < 3:
        raise ValueError(f"at least 3 networks are needed, but got {len(networks)}")
    predicted = [table.predict(arch) for arch in networks]
    medians = [timing.median for timing in measured]
    ratios = [p / m for p, m in zip(predicted, medians, strict=True)]
    constant = len(set(predicted)) == 1 or len(set(medians)) == 1
    return Agreement(
        networks=len(networks),
        spearman=float("nan")
        if constant
        else float(scipy.stats.spearmanr(predicted, medians).statistic),
        mape=statistics.fmean(abs(ratio - 1) for ratio in ratios),
        bias=statistics.fmean(ratios),
    )
