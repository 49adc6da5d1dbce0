"""Does a network under-fit or over-fit? The question NetAug is about, answered by two accuracies.

The validation error is the error that is made on training images already (the shortfall, 1 - T)
and what is lost between them and new ones (the gap, T - V). A network under-fits when more than
half of its validation error is shortfall: more capacity or better training would help it. It
over-fits when less than half is: regularisation would.

T and V must be measured alike: no augmentation, the same batch-norm statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from nasaug.training.metrics import Judgement

HALF = 0.5
DRAWS = 100_000


class Scored(Protocol):
    """An accuracy and the number of images that it was measured on; a `Judgement` is one."""

    @property
    def top1(self) -> float: ...
    @property
    def images(self) -> int: ...


@dataclass(frozen=True)
class Accuracy:
    """top1: the fraction of `images` images that are classified correctly."""

    top1: float
    images: int


def class_balanced(*judged: Judgement) -> list[Accuracy]:
    """Accuracies that compare parts of different class frequencies: every class that all parts have
    counts alike. `images` are the balanced images that would leave the same uncertainty.

    Raises: ValueError where the parts have no class in common.
    """
    supports = [each.support for each in judged]
    common = [index for index, counts in enumerate(zip(*supports, strict=True)) if all(counts)]
    if not common:
        raise ValueError("no class has images in every part, so that none can be compared")
    accuracies = []
    for each in judged:
        recalls = each.within(1).recalls
        spread = sum(1 / each.support[index] for index in common)
        accuracy = sum(recalls[index] for index in common) / len(common)
        accuracies.append(Accuracy(accuracy, max(1, round(len(common) ** 2 / spread))))
    return accuracies


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, and what it rests on; fractions of the images.

    `share` is the shortfall's part of the validation error (None if there is no error), `low` and
    `high` its 95 % interval.
    """

    verdict: Literal["under-fits", "over-fits", "undecided"]
    shortfall: float
    gap: float
    error: float
    share: float | None
    low: float
    high: float

    @property
    def text(self) -> str:
        """One line: the verdict, its numbers and how it is judged."""
        if self.share is None:
            return "undecided: there is no validation error to explain"
        share, low, high = (f"{100 * value:.0f}" for value in (self.share, self.low, self.high))
        return (
            f"{self.verdict}: {share} % ({low} to {high}) of the validation error of "
            f"{100 * self.error:.1f} % is already made on training images (over half: under-fits; "
            "under half: over-fits; 95 % interval)"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.verdict,
            "shortfall": self.shortfall,
            "gap": self.gap,
            "error": self.error,
            "share": self.share,
            "interval": [self.low, self.high],
            "text": self.text,
        }


def diagnose(train: Scored, validation: Scored) -> Diagnosis:
    """Whether a network of these accuracies, both un-augmented, under-fits or over-fits.

    The errors are binomial counts of independent images. The interval of their quotient is that of
    100,000 draws, by a fixed seed, of two error rates from their Jeffreys posteriors, Beta(wrong +
    1/2, right + 1/2), which also serve where no error was made. Undecided: the interval holds 1/2.

    Raises: ValueError for an accuracy outside 0 to 1, or without an image.
    """
    for name, scores in (("training", train), ("validation", validation)):
        if not 0 <= scores.top1 <= 1 or scores.images < 1:
            raise ValueError(
                f"{name} accuracy must be a fraction from 0 to 1 of at least one image, but got "
                f"{scores.top1} of {scores.images}"
            )
    rng = np.random.default_rng(0)
    rates = []
    for scores in (train, validation):
        right = round(scores.top1 * scores.images)
        rates.append(rng.beta(scores.images - right + 0.5, right + 0.5, DRAWS))
    low, high = np.quantile(rates[0] / rates[1], [0.025, 0.975]).tolist()
    shortfall, error = 1 - train.top1, 1 - validation.top1
    verdict: Literal["under-fits", "over-fits", "undecided"] = "undecided"
    if error > 0 and not low <= HALF <= high:
        verdict = "under-fits" if low > HALF else "over-fits"
    return Diagnosis(
        verdict=verdict,
        shortfall=shortfall,
        gap=train.top1 - validation.top1,
        error=error,
        share=shortfall / error if error > 0 else None,
        low=low,
        high=high,
    )
