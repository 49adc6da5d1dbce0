"""Latencies as people write them: `20ms`, `350us`, `1.5 s`. Inside the project they are whole
nanoseconds, so that sums over rows are exact.
"""

from __future__ import annotations

import re
from fractions import Fraction

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
LONGEST = 3600 * 10**9


def parse_latency(text: str | int) -> int:
    """A latency in nanoseconds; an integer (a parsed one, saved with a run) is nanoseconds already.

    Raises: ValueError for anything but a positive number with a known unit, up to an hour.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        value = Fraction(text)
    else:
        match = re.fullmatch(
            r"([0-9][0-9_]{0,30}(?:\.[0-9][0-9_]{0,30})?(?:[eE][+-]?[0-9]{1,2})?)\s*([A-Za-zµμ]+)",
            str(text).strip(),
        )
        unit = match[2].lower() if match else "?"
        if match is None or unit not in UNITS:
            raise ValueError(
                "a latency is a number with a unit such as 20ms, 350us or 1.5s "
                f"(units ns, us, ms, s), but got {text!r}"
            )
        value = Fraction(match[1].replace("_", "")) * UNITS[unit]
    if not 1 <= value <= LONGEST:
        raise ValueError(f"a latency must be from 1 ns to 3600 s, but got {text!r}")
    return int(value)


def format_latency(nanoseconds: int) -> str:
    """`20.125 ms`: at most three decimals, in the largest unit that leaves a whole number."""
    for unit in ("s", "ms", "us"):
        if nanoseconds >= UNITS[unit]:
            return f"{nanoseconds / UNITS[unit]:.3f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{nanoseconds} ns"
