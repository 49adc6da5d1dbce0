"""Racing: a candidate is judged on a few validation images first and dropped when out of reach.

Races drop a competitor as soon as enough of a paired comparison is seen (Maron and Moore, NIPS
1994; Birattari et al., GECCO 2002). Here the other side of the pair is the incumbent, the best
candidate so far, all of whose answers are known: its margins (the label's logit less the largest
other one) tell on which images a similar network may differ, and where it errs is where a
candidate can gain. So the images go in the incumbent's order, and two rules drop a candidate:

1. Sign test. After the eighth of the images with the smallest margins, on both sides of 0. Of the
   g + l images on which the two differ, the candidate wins g. Were it as good as the incumbent on
   these, P(at most g) = sum_{k <= g} C(g + l, k) / 2^(g + l); it is dropped when that is at most
   1 - confidence. There is one such look, so no correction for several.
2. Bound. Then the images that the incumbent gets wrong, then those that it gets right, smallest
   margins first. A candidate can gain on no more than the wrong ones that are left: when it is
   behind by more than these, no answer to the rest makes it as good, and it is dropped for certain.

Rule 2 never drops a candidate that would beat or tie the incumbent on all images; the final choice
can change by rule 1 only, with a probability of at most 1 - confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import scipy  # its parts are loaded when they are used: scipy.stats takes half a second
import torch
from torch import Tensor

from nasaug.search.inherited import Answers
from nasaug.supernet import Architecture

CONTESTED = 8
"""The first look is at one image in so many."""
STEPS, LEAST_STEP = 32, 32
"""The bound is checked after every 1 / STEPS of the images, and after no fewer than LEAST_STEP."""
FALL = 4.5
"""Two networks of one supernet differ less often where the margin is larger: exp(-FALL m), m in
units of the median (benchmarks/racing.py, recorded runs). Only interim accuracies rest on it."""


class Judge(Protocol):
    """`InheritedAccuracy`, or a record of one."""

    def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers: ...


class PairedRace:
    """A race against the best of the incumbents, on the validation images of `judge`.

    `confidence`: that the best candidate is not dropped; above 0.5, and with 1 only what is certain
    is dropped. The outcome is a function of the candidate and the best incumbent.

    Raises: ValueError for a confidence out of range.
    """

    def __init__(self, judge: Judge, confidence: float = 0.95) -> None:
        if not 0.5 < confidence <= 1:
            raise ValueError(
                f"confidence must be above 0.5 and at most 1 (drop only what is certain), but got "
                f"{confidence}"
            )
        self._judge, self._confidence = judge, confidence
        self._course: tuple[Architecture, Course] | None = None

    def __call__(self, candidate: Architecture, incumbents: list[Architecture]) -> float | None:
        """None while the candidate may be the best: the judge is then asked for all images, of
        which it remembers those seen. A number when it is out of reach: its estimated accuracy.

        `incumbents`: candidates judged on all images, the best first.
        """
        if not incumbents:
            return None
        course = self._course_of(incumbents[0])
        for stop in course.stops:
            found = self._judge.answers(candidate, course.order[:stop])
            lead = int(found.right.sum()) - int(course.right[:stop].sum())
            hopeless = -lead > int((~course.right[stop:]).sum())
            if hopeless or (stop == course.stops[0] and self._loses(found.right, course, stop)):
                return course.estimate(found.right)
        return None

    def _loses(self, right: Tensor, course: Course, stop: int) -> bool:
        """The sign test."""
        reference = course.right[:stop]
        gained, lost = int((right & ~reference).sum()), int((reference & ~right).sum())
        chance = float(scipy.stats.binom.cdf(gained, gained + lost, 0.5))
        return chance <= 1 - self._confidence

    def _course_of(self, incumbent: Architecture) -> Course:
        if self._course is None or self._course[0] != incumbent:
            self._course = incumbent, Course.against(self._judge.answers(incumbent))
        return self._course[1]


@dataclass(frozen=True)
class Course:
    """The order (N,) in which candidates meet the images, where the race stops to decide, and what
    the incumbent says to the images in this order: `right` (N,), `chances` (N,) of another answer.
    """

    order: Tensor
    stops: tuple[int, ...]
    right: Tensor
    chances: Tensor

    @classmethod
    def against(cls, incumbent: Answers) -> Course:
        total, distance = len(incumbent.right), incumbent.margins.abs()
        nearest = distance.argsort(stable=True)
        first = max(1, total // CONTESTED)
        rest = nearest[first:]
        rest_right = incumbent.right[rest]
        order = torch.cat([nearest[:first], rest[~rest_right], rest[rest_right]])
        step = max(LEAST_STEP, total // STEPS)
        scale = float(distance.median()) or 1.0
        return cls(
            order,
            tuple(range(first, total, step)),
            incumbent.right[order],
            (-FALL * distance[order] / scale).exp(),
        )

    def estimate(self, right: Tensor) -> float:
        """The accuracy on all images of a candidate with answers `right` (n,) to the first n.

        Gains and losses among the rest are taken to be as frequent as among those seen, in
        proportion to `chances`; never more than the incumbent's own accuracy.
        """
        seen, total = len(right), len(self.right)
        lead = 0.0
        for side, sign in ((~self.right, 1), (self.right, -1)):
            differs = (right != self.right[:seen]) & side[:seen]
            weight = float((self.chances * side)[:seen].sum())
            scale = float((self.chances * side).sum()) / weight if weight else 1.0
            lead += sign * scale * int(differs.sum())
        return max(0.0, (int(self.right.sum()) + min(0.0, lead)) / total)
