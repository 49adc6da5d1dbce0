"""An entry of a latency table: which row, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nasaug.devices.duration import LONGEST
from nasaug.supernet import Row
from nasaug.supernet.rows import row_to_dict


class RowKey(NamedTuple):
    """A row that reads `in_channels` x `size` x `size`, batch 1."""

    row: Row
    in_channels: int
    size: int

    def __str__(self) -> str:
        values = row_to_dict(self.row)
        kind = values.pop("kind")
        details = ", ".join(f"{name} {value}" for name, value in values.items())
        text = f"{kind} ({details})" if details else str(kind)
        return f"{text} reading {self.in_channels} channels at {self.size} x {self.size}"


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of repeats, in nanoseconds; None where they are not known.

    Raises: ValueError for a value that is no latency, or quartiles in a wrong order.
    """

    median: int
    q1: int | None = None
    q3: int | None = None
    repeats: int | None = None

    def __post_init__(self) -> None:
        for name in ("median", "q1", "q3"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LONGEST:
                raise ValueError(f"{name} must be from 0 to 3600 s, but got {value} ns")
        low = self.median if self.q1 is None else self.q1
        high = self.median if self.q3 is None else self.q3
        if not low <= self.median <= high:
            raise ValueError(
                "quartiles must enclose the median, but got "
                f"q1 {low}, median {self.median}, q3 {high} ns"
            )
        if self.repeats is not None and self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, but got {self.repeats}")
