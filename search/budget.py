"""Budgets as people write them: `300M`, `1.2G`, `25e6`, `300_000_000`."""

from __future__ import annotations

import re
from fractions import Fraction

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
LARGEST = 10**18


def parse_budget(text: str | int | float) -> int:
    """A number of MACs. Raises: ValueError for anything but a positive number with a known unit."""
    written = str(text).strip()
    match = re.fullmatch(
        r"([0-9][0-9_]{0,30}(?:\.[0-9][0-9_]{0,30})?(?:[eE][+]?[0-9]{1,2})?)\s*([A-Za-z]?)", written
    )
    unit = match[2].upper() if match else "?"
    if match is None or unit not in UNITS:
        raise ValueError(
            f"a budget is a number of MACs such as 300M, 1.2G, 25e6 or 300_000_000 "
            f"(units K, M, G, T), but got {written!r}"
        )
    value = Fraction(match[1].replace("_", "")) * UNITS[unit]
    if value < 1 or value > LARGEST:
        raise ValueError(f"a budget must be from 1 to {LARGEST:.0e} MACs, but got {written!r}")
    return int(value)


def format_macs(macs: int) -> str:
    """For people: `23.5M`, `1.20G`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if macs >= size:
            return f"{macs / size:.4g}{unit}"
    return str(macs)
