"""What is wrong with a set's annotations: gathered, then raised together, or skipped when asked.

Published sets have such faults too (COCO's training annotations hold boxes without any height), so
that a reader which stops at the first one is as little help as one that is silent about them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

log = logging.getLogger(__name__)

# Sets round coordinates, and some count from 0 where VOC counts from 1: a box may stick out of its
# picture by as many pixels, and is cut off there.
TOLERANCE = 1.0


class Faults:
    """The faults of one data set. `source` is its name, for messages."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: list[str] = []

    def add(self, where: str, what: str) -> None:
        """`where` names the file, and the object in it; `what` states the rule and the value."""
        self._found.append(f"{where}: {what}")

    def settle(self, skip_bad: bool) -> tuple[str, ...]:
        """All faults, once everything is read; what was wrong has been left out.

        Raises: ValueError with the first of them, unless `skip_bad`.
        """
        count = len(self._found)
        if count and not skip_bad:
            others = f" (and {count - 1:,} more faults in {self.source})" if count > 1 else ""
            raise ValueError(
                f"{self._found[0]}{others}; repair the annotations, or leave out what is wrong "
                "with skip_bad"
            )
        if count:
            log.warning("%s: %d faulty entries are skipped: %s", self.source, count, self._found[0])
        return tuple(self._found)


def fitted_box(
    box: Sequence[float], width: int, height: int
) -> tuple[tuple[float, float, float, float], str | None]:
    """A box (x0, y0, x1, y1) cut off at the edges of its picture, and what is wrong with it."""
    x0, y0, x1, y1 = box
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    shown = f"({', '.join(f'{edge:g}' for edge in box)})"
    if not all(map(math.isfinite, box)):
        return inside, f"the edges of a box must be finite numbers, but are {shown}"
    if x1 <= x0 or y1 <= y0:
        return inside, f"a box must be wider and higher than 0 pixels, but its edges are {shown}"
    reach = max(-x0, -y0, x1 - width, y1 - height)
    if reach > TOLERANCE or inside[0] >= inside[2] or inside[1] >= inside[3]:
        return inside, (
            f"a box must lie inside its picture of {width} x {height} pixels, but its edges are "
            f"{shown}"
        )
    return inside, None
