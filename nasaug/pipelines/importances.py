"""Which decisions of a search matter: the share of the judgements' variance that each explains.

One-way analysis of variance a decision, as omega squared (Hays, 1963), which unlike the plain share
is not inflated by the number of values a decision has:

    omega^2 = (SS_between - (k - 1) MS_within) / (SS_total + MS_within)

Optuna's PED-ANOVA compares the best tenth of the trials with all of them: of a few dozen trials
that is a handful, and where the sampler has learnt what is good, the two are alike, so that what
matters most comes out last (`tests/nasaug/test_report_command.py` compares both where the truth is
known).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 200
LEVEL = 0.95

Floats = NDArray[np.float64]


def variance_explained(
    decisions: Sequence[Mapping[str, Any]], judgements: Sequence[float]
) -> dict[str, float]:
    """The share (0 to 1) of the judgements' variance that each decision explains, alone.

    decisions: one mapping a trial, all with the same names; judgements: one number a trial.
    """
    values = np.asarray(judgements, dtype=np.float64)[None, :]
    return {name: float(_omega(codes, values)[0]) for name, codes in _coded(decisions).items()}


def chance(
    decisions: Sequence[Mapping[str, Any]], judgements: Sequence[float], seed: int = 0
) -> dict[str, float]:
    """What a decision that does not matter would reach: of `variance_explained` after shuffling
    the judgements, the value that 95 % of 200 shuffles stay below."""
    rng = random.Random(seed)
    shuffled = np.array([rng.sample(list(judgements), len(judgements)) for _ in range(SHUFFLES)])
    return {
        name: float(np.quantile(_omega(codes, shuffled), LEVEL))
        for name, codes in _coded(decisions).items()
    }


def _coded(decisions: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.intp]]:
    """For every decision a group number a trial."""
    names = decisions[0] if decisions else ()
    return {
        name: np.unique([str(trial[name]) for trial in decisions], return_inverse=True)[1]
        for name in names
    }


def _omega(groups: NDArray[np.intp], values: Floats) -> Floats:
    """groups (N,), values (S, N) -> omega squared (S,), 0 where it would be negative."""
    sizes = np.bincount(groups)
    count, trials = len(sizes), values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    total = (centred**2).sum(axis=1)
    if count < 2 or trials <= count:
        return np.zeros(len(values))
    members = np.eye(count)[groups]
    between = ((centred @ members) ** 2 / sizes).sum(axis=1)
    within = (total - between) / (trials - count)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (between - (count - 1) * within) / (total + within)
    clipped: Floats = np.clip(np.nan_to_num(share), 0.0, 1.0)
    return clipped
