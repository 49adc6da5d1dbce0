"""mAP over MACs: a method's detectors over input resolutions, and where they reach a mAP.

Between the measured detectors lie straight lines over log MACs; beyond them nothing is known. A
curve need not rise: what counts is where it first gets to a level. The functions take B curves of R
means at once, the resamples of a bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST_RESOLUTIONS = 2
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorCurve:
    """A method's detectors over input resolutions.

    `resolutions` in pixels and `macs` of the whole detector (batch 1) rise together. `maps` are
    fractions: for each resolution, one for each of `seeds`.

    Raises: ValueError for fewer than 2 resolutions, MACs that do not rise, missing or repeated
        seeds, and a mAP that is no fraction.
    """

    name: str
    resolutions: tuple[int, ...]
    macs: tuple[int, ...]
    seeds: tuple[int, ...]
    maps: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        counts = len(self.resolutions), len(self.macs), len(self.maps)
        if len(set(counts)) > 1 or counts[0] < LEAST_RESOLUTIONS:
            raise ValueError(
                f"a curve needs MACs and mAP at {LEAST_RESOLUTIONS} or more resolutions, but "
                f"{self.name} has {counts[0]} resolutions, MACs of {counts[1]} and mAP of "
                f"{counts[2]}; train it at more"
            )
        for what, values in (("resolutions", self.resolutions), ("MACs", self.macs)):
            if values[0] <= 0 or any(b <= a for a, b in pairwise(values)):
                raise ValueError(
                    f"{what} must be positive and rise from one to the next, but those of "
                    f"{self.name} are {', '.join(f'{v:,}' for v in values)}"
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"{self.name} needs one or more seeds, each once, but has {self.seeds}"
            )
        for resolution, maps in zip(self.resolutions, self.maps, strict=True):
            if len(maps) != len(self.seeds):
                raise ValueError(
                    f"every resolution needs the mAP of every seed, but {self.name} at "
                    f"{resolution} has {len(maps)} of {len(self.seeds)}; finish its runs"
                )
            wrong = next((value for value in maps if not 0 <= value <= 1), None)
            if wrong is not None:
                raise ValueError(
                    f"mAP must be a fraction from 0 to 1, but {self.name} at {resolution} has "
                    f"{wrong}; divide per cents by 100"
                )

    @property
    def log_macs(self) -> Floats:
        """(resolutions,)"""
        return np.log(np.array(self.macs, np.float64))

    @property
    def means(self) -> tuple[float, ...]:
        """Mean mAP over the seeds, by resolution."""
        return tuple(float(np.mean(values)) for values in self.maps)

    @property
    def standard_errors(self) -> tuple[float | None, ...]:
        """Of the means; None with one seed."""
        n = len(self.seeds)
        if n == 1:
            return (None,) * len(self.maps)
        return tuple(float(np.std(values, ddof=1) / np.sqrt(n)) for values in self.maps)

    def macs_at(self, level: float) -> float:
        """The fewest MACs at which the mean reaches a mAP of `level`, between the measured ones.

        Raises: ValueError for a level below the cheapest detector's mAP, or above the best one's.
        """
        log_macs = float(reached(np.array([self.means]), self.log_macs, np.array([level]))[0])
        if not np.isfinite(log_macs):
            raise ValueError(
                f"the MACs for a mAP of {level:.3f} are not known: {self.why_not(level)}"
            )
        return float(np.exp(log_macs))

    def why_not(self, level: float) -> str:
        """Why a level is not on the curve, and what helps."""
        if level < self.means[0]:
            return (
                f"{self.name} has {self.means[0]:.3f} at {self.resolutions[0]} pixels, its lowest "
                "resolution, and nothing is extrapolated; train it at lower ones"
            )
        return (
            f"{self.name} has {max(self.means):.3f} at best, up to {self.resolutions[-1]} pixels, "
            "and nothing is extrapolated; train it at higher ones"
        )


def reached(means: Floats, log_macs: Floats, level: Floats) -> Floats:
    """means (B, R), level (B,) -> the least log MACs (B,) at which straight lines through the
    means reach the level; -inf where the first is above it, inf where none gets there."""
    rows = np.arange(len(means))
    best = np.maximum.accumulate(means, axis=1)
    # The first detector that reaches it; the one before, if any, does not.
    after = (best < level[:, None]).sum(1)
    inside = (after > 0) & (after < means.shape[1])
    right = np.where(inside, after, 1)
    y0, y1 = means[rows, right - 1], means[rows, right]
    share = np.divide(level - y0, y1 - y0, out=np.zeros_like(level), where=inside)
    between = log_macs[right - 1] + share * (log_macs[right] - log_macs[right - 1])
    outside = np.where(after > 0, np.inf, np.where(level == means[:, 0], log_macs[0], -np.inf))
    return np.where(inside, between, outside)


def area(means: Floats, log_macs: Floats, low: Floats, high: Floats) -> Floats:
    """The integral of `reached` over the levels from `low` to `high` (B,), exactly."""
    best = np.maximum.accumulate(means, axis=1)
    total = np.zeros(len(means))
    for k in range(1, means.shape[1]):
        rises = best[:, k] > best[:, k - 1]
        start, end = (best[:, i].clip(low, high) for i in (k - 1, k))
        step = log_macs[k] - log_macs[k - 1]
        rise = np.where(rises, means[:, k] - means[:, k - 1], 1)
        middle = log_macs[k - 1] + ((start + end) / 2 - means[:, k - 1]) / rise * step
        total += (end - start) * middle
    return total


def overlap(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """The least and the most (B,) that both of two curves reach; least >= most where none is."""
    low = np.maximum(first[:, 0], second[:, 0])
    return low, np.minimum(first.max(1), second.max(1))
