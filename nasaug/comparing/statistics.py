"""What a handful of runs says: means, intervals, paired differences, corrected for many looks.

Intervals are Student's t at 95 %. Two methods are compared by their differences run by run, on the
same target and seed (paired t-test); over several targets these differences are pooled. They are
compared by all runs of both, too, as if no two belonged together (Welch, 1947), which says more
where runs of one seed are no more alike than others. p values of one family of comparisons are
corrected by Holm (1979); what one method gains in several comparisons is their random-effects mean
(DerSimonian and Laird, 1986). One run gives a number and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
# Differences of fractions that are equal differ by this much when written in binary.
ROUNDING = 1e-12
LEAST_PAIRS = 3  # two points lie on a line


@dataclass(frozen=True)
class Mean:
    """Mean of `n` numbers, their standard deviation (n - 1) and the interval of the mean; None
    where n is too small to say."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Mean difference of `n` pairs, its interval and the p value of the paired t-test, two-sided;
    None where n is too small to say. p is None too where all differences are equal. `correlation`
    is Pearson's of the pairs, None where there are fewer than 3 or a side does not vary."""

    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    correlation: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Unpaired:
    """Difference of two means, its standard error, its interval and the p value of Welch's t-test,
    two-sided; None where a side has fewer than two runs or neither varies."""

    difference: float | None = None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Pooled:
    """Mean of `n` differences, its interval, and `between`, the standard deviation of what they
    would be if each were known exactly."""

    n: int
    mean: float
    low: float
    high: float
    between: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean and what is known about it."""
    n = len(values)
    if n == 0:
        return Mean(0)
    mean = float(np.mean(values))
    if n == 1:
        return Mean(1, mean)
    sd = float(np.std(values, ddof=1))
    half = sd / math.sqrt(n) * _quantile(n - 1)
    return Mean(n, mean, sd, mean - half, mean + half)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Ours less theirs, pair by pair. Raises: ValueError for lists of different lengths."""
    if len(ours) != len(theirs):
        raise ValueError(f"pairs need two lists of one length, but got {len(ours)}, {len(theirs)}")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    found = mean_of(differences)
    p = None
    if found.sd is not None and found.sd > ROUNDING:
        p = float(stats.ttest_rel(ours, theirs).pvalue)
    return Paired(found.n, found.mean, found.low, found.high, p, _correlation(ours, theirs))


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    if len(ours) < LEAST_PAIRS or min(np.std(ours), np.std(theirs)) <= ROUNDING:
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def unpaired(ours: Mean, theirs: Mean) -> Unpaired:
    """Our mean less theirs. The degrees of freedom are Welch's and Satterthwaite's."""
    if ours.mean is None or theirs.mean is None:
        return Unpaired()
    difference = ours.mean - theirs.mean
    if ours.sd is None or theirs.sd is None or max(ours.sd, theirs.sd) <= ROUNDING:
        return Unpaired(difference)
    parts = [side.sd**2 / side.n for side in (ours, theirs) if side.sd is not None]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (ours.n - 1) + parts[1] ** 2 / (theirs.n - 1))
    error = math.sqrt(sum(parts))
    half = error * _quantile(freedom)
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Unpaired(difference, error, difference - half, difference + half, p)


def pooled(differences: Sequence[float], errors: Sequence[float]) -> Pooled:
    """The mean of differences with these standard errors, which need not be of one true size.

    The variance between them is DerSimonian and Laird's (1986), the interval Hartung and Knapp's
    (2001), not narrower than the errors alone allow (Roever et al., 2015).

    Raises: ValueError for fewer than two, lists of different lengths, an error that is not above 0.
    """
    found, squared = np.asarray(differences), np.square(errors)
    n = len(found)
    if n < 2 or len(squared) != n or not (squared > 0).all():
        raise ValueError(
            f"pooling needs two differences or more, each with an error above 0, but got {n} with "
            f"errors {[*errors]}"
        )

    def weighed(between: float) -> tuple[Any, float, float]:
        """Weights, the mean, how far the differences are from it."""
        weights = 1 / (squared + between)
        mean = float(np.average(found, weights=weights))
        return weights, mean, float(weights @ (found - mean) ** 2)

    weights, _, spread = weighed(0.0)
    total = float(weights.sum())
    freed = total - float(weights @ weights) / total  # 0 where one error is tiny beside the others
    between = max(0.0, (spread - (n - 1)) / freed) if freed > 0 else 0.0
    weights, mean, spread = weighed(between)
    half = math.sqrt(max(1.0, spread / (n - 1)) / float(weights.sum())) * _quantile(n - 1)
    return Pooled(n, mean, mean - half, mean + half, math.sqrt(between))


def _quantile(freedom: float) -> float:
    """Of Student's t: half of an interval, in standard errors."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def corrected(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """With Holm's p as `holm`, and how many it corrects for as `family`: the methods on one target
    (or on all) at one length and at equal one thing."""

    def family(one: Mapping[str, Any]) -> tuple[str, int, str]:
        return one["target"], one["epochs"], one["equal"]

    for key in dict.fromkeys(map(family, comparisons)):
        own = [one for one in comparisons if family(one) == key]
        for one, p in zip(own, holm([one["p"] for one in own]), strict=True):
            yield {**one, "holm": p, "family": sum(other["p"] is not None for other in own)}


def holm(values: Sequence[float | None]) -> list[float | None]:
    """The p values of a family, corrected by Holm's step-down; None stays None and is not counted.

    The i-th smallest of m, from 0, is multiplied by m - i; none is below a smaller one, or above 1.
    """
    order = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, index) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        corrected[index] = least
    return corrected


def first_reaching(epochs: Sequence[int], values: Sequence[float], level: float) -> int | None:
    """The first epoch whose value is at least `level`; None where none is."""
    return next((e for e, value in zip(epochs, values, strict=True) if value >= level), None)


def mean_curve(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    """The mean of several curves, at the epochs that all of them have."""
    if not curves:
        return {}
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {epoch: float(np.mean([curve[epoch] for curve in curves])) for epoch in shared}
