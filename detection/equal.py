"""MACs at equal mAP: how many fewer a method's detectors need to be as good as a baseline's.

A detector at several input resolutions is a curve of mAP over MACs. NetAug's gain is read between
two such curves sideways (Cai et al., "Network Augmentation for Tiny Deep Learning", ICLR 2022: 41 %
fewer MACs on Pascal VOC, 38 % on COCO): at the mAP of each of the baseline's resolutions, and as
the mean over all mAP that both reach, which is Bjontegaard's delta rate ("Calculation of average
PSNR differences between RD-curves", VCEG-M33, 2001) with straight lines over log MACs instead of
cubic ones. Nothing is extrapolated. The interval is of the bootstrap over seeds; resamples that
leave what was measured count as endless, so that a bound may be missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from nasaug.detection.curves import DetectorCurve, Floats, area, overlap, reached

Curves = tuple[DetectorCurve, DetectorCurve]
# Of the baseline and of the other: (resamples, resolutions) each.
Means = tuple[Floats, Floats]


@dataclass(frozen=True)
class Percent:
    """How many per cent fewer MACs; a negative number is so many more.

    `low` to `high` is the interval. A bound is None where it lies outside of what was measured,
    and both are with one seed.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return f"{self.value:.0f} %"
        low, high = ("?" if v is None else f"{v:.0f}" for v in (self.low, self.high))
        return f"{self.value:.0f} % ({low} to {high})"


@dataclass(frozen=True)
class Saving:
    """What the other method needs for the mAP `level` that the baseline has at `resolution`."""

    resolution: int
    level: float
    baseline_macs: int
    macs: int
    fewer: Percent


@dataclass(frozen=True)
class EqualMap:
    """Two curves compared at equal mAP.

    `overlap`: the mAP that both reach, least and most. `mean`: over the overlap (the mean of the
    logarithms of the MACs' ratios). `savings`: at each of the baseline's resolutions whose mAP the
    other reaches. `notes` say what was left out and why.
    """

    baseline: str
    other: str
    overlap: tuple[float, float]
    mean: Percent
    savings: tuple[Saving, ...]
    notes: tuple[str, ...]
    confidence: float
    resamples: int
    seed: int

    @property
    def largest(self) -> Saving | None:
        """At the resolution that saves most; None where none has a saving."""
        return max(self.savings, key=lambda saving: saving.fewer.value, default=None)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def macs_at_equal_map(
    baseline: DetectorCurve,
    other: DetectorCurve,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> EqualMap:
    """How many per cent fewer MACs `other` needs than `baseline` for equal mAP.

    A resample draws seeds, each with all its resolutions; where both curves have the same seeds,
    the same ones for both. All is computed anew from it, the baseline's mAP and the overlap too.

    Raises: ValueError where no mAP is reached by both.
    """
    curves = baseline, other
    means = np.array([baseline.means]), np.array([other.means])
    least, most = (float(each[0]) for each in overlap(*means))
    if least >= most:
        raise ValueError(_no_overlap(baseline, other))
    fewest = min(len(curve.seeds) for curve in curves)
    draws = _draws(curves, resamples if fewest > 1 else 0, np.random.default_rng(seed))
    tail = _tail(fewest, confidence)
    mean = float(_mean_difference(curves, means)[0])
    savings, notes = [], _notes(curves, confidence)
    for i, resolution in enumerate(baseline.resolutions):
        level = baseline.means[i]
        value = float(_difference_at(i, curves, means)[0])
        if not np.isfinite(value):
            where = f"{baseline.name} at {resolution} pixels (mAP {level:.3f})"
            which = baseline if level < baseline.means[0] else other
            notes.append(f"{where} has no saving: {which.why_not(level)}")
            continue
        macs = [round(curve.macs_at(level)) for curve in curves]
        fewer = _estimate(value, _difference_at(i, curves, draws), tail)
        savings.append(Saving(resolution, level, macs[0], macs[1], fewer))
    return EqualMap(
        baseline=baseline.name,
        other=other.name,
        overlap=(least, most),
        mean=_estimate(mean, _mean_difference(curves, draws), tail),
        savings=tuple(savings),
        notes=tuple(notes),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _draws(curves: Curves, resamples: int, rng: np.random.Generator) -> Means:
    baseline, other = curves
    first, second = (np.array(curve.maps) for curve in curves)
    drawn = again = rng.integers(len(baseline.seeds), size=(resamples, len(baseline.seeds)))
    if set(baseline.seeds) == set(other.seeds):
        second = second[:, [other.seeds.index(each) for each in baseline.seeds]]
    else:
        again = rng.integers(len(other.seeds), size=(resamples, len(other.seeds)))
    return first[:, drawn].mean(2).T, second[:, again].mean(2).T


def _difference_at(i: int, curves: Curves, means: Means) -> Floats:
    """Log MACs of the other less the baseline's (B,), at the baseline's mAP at resolution i."""
    level = means[0][:, i]
    own, others = (
        reached(each, curve.log_macs, level) for each, curve in zip(means, curves, strict=True)
    )
    # Where a cheaper detector of the baseline was better, even fewer MACs would do for it: how few
    # is not known, and counts against the other.
    endless: Floats = np.full(len(level), np.inf)
    return np.subtract(others, own, out=endless, where=own > -np.inf)


def _mean_difference(curves: Curves, means: Means) -> Floats:
    """Log MACs of the other less the baseline's (B,), over all mAP that both reach."""
    low, high = overlap(*means)
    own, others = (
        area(each, curve.log_macs, low, np.maximum(low, high))
        for each, curve in zip(means, curves, strict=True)
    )
    endless = np.where(means[1][:, 0] >= means[0].max(1), -np.inf, np.inf)
    return np.divide(others - own, high - low, out=endless, where=high > low)


def _tail(n: int, confidence: float) -> float:
    """The share of resamples to leave out on each side: the expanded percentile interval of
    Hesterberg, "What Teachers Should Know About the Bootstrap" (The American Statistician 2015).
    Resamples of n vary less than samples of n do; for a mean it is as wide as Student's."""
    if n == 1:
        return 0.5
    return float(norm.cdf(np.sqrt(n / (n - 1)) * student.ppf((1 - confidence) / 2, n - 1)))


def _estimate(value: float, again: Floats, tail: float) -> Percent:
    """Of log ratios. `again` is empty with one seed."""
    if not len(again):
        return Percent(_percent(value), None, None)
    # No value between two: one of them may be endless.
    most = np.quantile(again, 1 - tail, method="higher")
    least = np.quantile(again, tail, method="lower")
    low, high = (_percent(float(v)) if np.isfinite(v) else None for v in (most, least))
    return Percent(_percent(value), low, high)


def _percent(log_ratio: float) -> float:
    return float(100 * (1 - np.exp(log_ratio)))


def _no_overlap(baseline: DetectorCurve, other: DetectorCurve) -> str:
    for curve in (baseline, other):
        if max(curve.means) == curve.means[0]:
            return (
                f"equal mAP needs curves that rise, but {curve.name} is best at "
                f"{curve.resolutions[0]} pixels, its lowest resolution; train it longer or at "
                "others"
            )
    better, worse = sorted((baseline, other), key=lambda curve: -curve.means[0])
    return (
        f"equal mAP needs a range that both reach, but {better.name} has {better.means[0]:.3f} or "
        f"more and {worse.name} {max(worse.means):.3f} or less, and nothing is extrapolated; train "
        f"{better.name} at lower resolutions or {worse.name} at higher ones"
    )


def _notes(curves: Curves, confidence: float) -> list[str]:
    notes = []
    for curve in curves:
        if any(b < a for a, b in pairwise(curve.means)):
            notes.append(
                f"{curve.name} is not always better at a higher resolution: the fewest MACs that "
                "reach a mAP count"
            )
    fewest = min(len(curve.seeds) for curve in curves)
    if fewest == 1:
        notes.append("one seed: there is no interval")
    elif (most := 1 - 2 ** (1 - fewest)) < confidence:
        # So often not all errors have the same sign; resamples lie between the seeds' own values.
        notes.append(
            f"{fewest} seeds: an interval of the bootstrap over so few holds the truth in about "
            f"{100 * most:.0f} % of cases, not {100 * confidence:.0f} %"
        )
    if len({frozenset(curve.seeds) for curve in curves}) > 1:
        notes.append("the seeds differ: they are drawn for each method apart")
    return notes
