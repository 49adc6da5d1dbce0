"""Does a supernet rank? Rank correlation of judges with the accuracy of training alone.

One-shot search (Guo et al., ECCV 2020) rests on inherited weights ordering candidates as training
each alone would. What that is worth is measured on a few candidates, stratified over MACs:
Kendall's tau-b (Kendall, Biometrika 1945) and Spearman's rho, each with a percentile interval of
the bootstrap over candidates, beside the judge that costs nothing: the candidates' MACs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes half a second
from numpy.typing import NDArray

from nasaug.supernet import ChoicePath, Infeasible, Limits, SearchSpace

LEAST_CANDIDATES = 4
DRAWS_WITHOUT_A_NEW_ONE = 1000
REMEDY = "lower --bands, or choose another --budget"
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A coefficient with the interval of its bootstrap."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class RankReport:
    """How well the inherited accuracy of `n` candidates ranks them, against training each alone.

    tau, spearman: of the inherited accuracy; macs_tau: of the MACs; gain: tau - macs_tau, on the
    same resamples. The intervals hold the share `confidence` of `resamples` resamples.
    """

    n: int
    tau: Estimate
    spearman: Estimate
    macs_tau: Estimate
    gain: Estimate
    confidence: float
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank_report(
    inherited: Sequence[float],
    alone: Sequence[float],
    macs: Sequence[float],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> RankReport:
    """Compare two judges, `inherited` and `macs`, with `alone`; one value a candidate each.

    Ties count as tau-b has it. A judge that says the same of all orders no pair: its coefficients
    are 0/0, and 0 is what is reported, also for a resample that comes to that.

    Raises: ValueError for fewer than 4 candidates, unequal lengths, or a value that is no number.
    """
    check_candidates(len(alone))
    values = [np.asarray(each, dtype=np.float64) for each in (inherited, alone, macs)]
    if len({each.shape for each in values}) > 1:
        lengths = ", ".join(str(len(each)) for each in values)
        raise ValueError(f"every candidate needs one value of each kind, but got {lengths}")
    if not all(np.isfinite(each).all() for each in values):
        raise ValueError("every accuracy must be a number, but one is not finite")
    x, y, costs = values
    drawn = np.random.default_rng(seed).integers(len(y), size=(resamples, len(y)))
    taus, macs_taus = resampled_tau_b(x, y, drawn), resampled_tau_b(costs, y, drawn)

    def estimate(value: float, again: Numbers) -> Estimate:
        tail = 50 * (1 - confidence)
        low, high = np.percentile(again, [tail, 100 - tail])
        return Estimate(value, float(low), float(high))

    return RankReport(
        n=len(y),
        tau=estimate(tau_b(x, y), taus),
        spearman=estimate(spearman(x, y), resampled_spearman(x, y, drawn)),
        macs_tau=estimate(tau_b(costs, y), macs_taus),
        gain=estimate(tau_b(x, y) - tau_b(costs, y), taus - macs_taus),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def tau_b(x: Numbers, y: Numbers) -> float:
    """Kendall's tau-b; 0 where all of `x` or all of `y` are equal."""
    if _constant(x) or _constant(y):
        return 0.0
    return float(scipy.stats.kendalltau(x, y).statistic)


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rho; 0 where all of `x` or all of `y` are equal."""
    if _constant(x) or _constant(y):
        return 0.0
    return float(scipy.stats.spearmanr(x, y).statistic)


def resampled_tau_b(x: Numbers, y: Numbers, drawn: NDArray[np.int64]) -> Numbers:
    """tau-b of every resample: `drawn` (resamples, n) are indices of candidates.

    tau-b is a sum over pairs of sign(x_i - x_j) sign(y_i - y_j) over the root of the two sums of
    squared signs; a candidate drawn w times weighs w. scipy takes a millisecond a resample.
    """
    weights = np.stack([np.bincount(one, minlength=len(x)) for one in drawn]).astype(np.float64)
    signs = [np.sign(each[:, None] - each[None, :]) for each in (x, y)]

    def over_pairs(products: Numbers) -> Numbers:
        total: Numbers = ((weights @ products) * weights).sum(axis=1)
        return total

    untied = over_pairs(signs[0] ** 2) * over_pairs(signs[1] ** 2)
    return _ratios(over_pairs(signs[0] * signs[1]), np.sqrt(untied))


def resampled_spearman(x: Numbers, y: Numbers, drawn: NDArray[np.int64]) -> Numbers:
    """Spearman's rho of every resample: Pearson's correlation of the ranks, ties at their mean."""
    ranks = [
        scipy.stats.rankdata(each[drawn], axis=1) - (drawn.shape[1] + 1) / 2 for each in (x, y)
    ]
    spread = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    return _ratios((ranks[0] * ranks[1]).sum(axis=1), spread)


def macs_bands(space: SearchSpace, limits: Limits, bands: int) -> list[tuple[int, int]]:
    """Bands of equal width over the MACs that `limits` allow and the space has: (least, most)
    each, both included.

    Raises: Infeasible if no member meets the limits; ValueError without a band.
    """
    if bands < 1:
        raise ValueError(f"there must be at least one band, but got {bands}")
    space.within(limits)
    bottom = max(space.source.cheapest, limits.least_macs or 0)
    top = min(space.source.dearest, limits.macs or space.source.dearest)
    edges = [bottom + (top - bottom) * band // bands for band in range(bands + 1)]
    return [(edges[band] + (band > 0), edges[band + 1]) for band in range(bands)]


def draw_stratified(
    space: SearchSpace, n: int, bands: int, limits: Limits, rng: random.Random
) -> list[ChoicePath]:
    """`n` distinct members within `limits`, from the cheapest band of MACs to the dearest.

    Each band gives equally many (where `n` is no multiple, the cheaper ones one more), drawn
    uniformly from its members.

    Raises: ValueError for fewer than 4 candidates, more bands than candidates, or a band that has
        too few members; Infeasible.
    """
    check_candidates(n)
    if bands > n:
        raise ValueError(
            f"every band needs a candidate, but {n} candidates cannot fill {bands} bands; "
            "raise --n or lower --bands"
        )
    paths: list[ChoicePath] = []
    for band, (least, most) in enumerate(macs_bands(space, limits, bands)):
        name = f"band {band + 1} of {bands} ({least:,} to {most:,} MACs)"
        wanted = n // bands + (band < n % bands)
        if least > most:
            raise ValueError(f"{name} has no member of the space; {REMEDY}")
        within = replace(limits, macs=most, least_macs=least)
        paths += _draw_band(space, within, wanted, name, rng)
    return paths


def check_candidates(n: int) -> None:
    """Raises: ValueError if `n` is too few for an interval."""
    if n < LEAST_CANDIDATES:
        raise ValueError(
            f"a rank correlation with an interval needs at least {LEAST_CANDIDATES} candidates, "
            f"but got {n}; raise --n"
        )


def _draw_band(
    space: SearchSpace, limits: Limits, wanted: int, name: str, rng: random.Random
) -> list[ChoicePath]:
    try:
        region = space.within(limits)
    except Infeasible:
        raise ValueError(f"{name} has no member of the space; {REMEDY}") from None
    found: dict[ChoicePath, None] = {}
    misses = 0
    while len(found) < wanted:
        path = region.sample_path(rng)
        misses = misses + 1 if path in found else 0
        found[path] = None
        if misses == DRAWS_WITHOUT_A_NEW_ONE:
            raise ValueError(
                f"{name} has no more than {len(found)} members, but {wanted} are wanted of it; "
                f"lower --n, {REMEDY}"
            )
    return list(found)


def _ratios(over: Numbers, under: Numbers) -> Numbers:
    """`over` / `under`, 0 where that is 0 / 0."""
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def _constant(values: Numbers) -> bool:
    return bool((values == values[0]).all())
