"""Budgets as people write them: `300M`, `1.2G`, `25e6`, `300_000_000`, `200M..300M`, `256KB`."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BYTE_UNITS = {"": 1, "KB": 2**10, "KIB": 2**10, "MB": 2**20, "MIB": 2**20, "GB": 2**30}
LARGEST = 10**18
NUMBER = r"([0-9][0-9_]{0,30}(?:\.[0-9][0-9_]{0,30})?(?:[eE][+]?[0-9]{1,2})?)\s*([A-Za-z]{0,3})"


def parse_budget(text: str | int | float, what: str = "MACs") -> int:
    """A number of `what`. Raises: ValueError for anything but a positive number with a known unit.

    The units are decimal: 300M is 300,000,000.
    """
    return _parse(text, UNITS, f"a number of {what} such as 300M, 1.2G, 25e6 or 300_000_000", what)


def parse_band(text: str | int | float) -> tuple[int | None, int]:
    """`300M` is at most that many MACs: (None, 300_000_000); `200M..300M` is a band.

    Raises: ValueError for what is no budget, and for a band that is upside down.
    """
    low, dots, high = str(text).partition("..")
    if not dots:
        return None, parse_budget(text)
    band = parse_budget(low), parse_budget(high)
    if band[0] > band[1]:
        raise ValueError(f"a band goes from the lower to the higher budget, but got {text!r}")
    return band


def parse_memory(text: str | int | float) -> int:
    """Bytes; the units are binary, as device memory is: 256KB is 262,144 bytes.

    Raises: ValueError for anything but a positive number with a known unit.
    """
    return _parse(text, BYTE_UNITS, "an amount of memory such as 256KB, 1.5MB or 262144", "bytes")


def _parse(text: str | int | float, units: dict[str, int], rule: str, what: str) -> int:
    written = str(text).strip()
    match = re.fullmatch(NUMBER, written)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in units:
        known = ", ".join(unit for unit in units if unit)
        if what == "MACs":
            rule = f"a budget is {rule} (units {known})"
        else:
            rule = f"this must be {rule} (units {known})"
        raise ValueError(f"{rule}, but got {written!r}")
    value = Fraction(match[1].replace("_", "")) * units[unit]
    if value < 1 or value > LARGEST:
        name = "a budget" if what == "MACs" else "this"
        raise ValueError(f"{name} must be from 1 to {LARGEST:.0e} {what}, but got {written!r}")
    return int(value)


def format_count(count: int) -> str:
    """For people, however many: `5.89e+24`."""
    return f"{Decimal(count):.3g}".lower() if count >= 1000 else str(count)


def format_macs(macs: int) -> str:
    """For people: `23.5M`, `1.20G`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if macs >= size:
            return f"{macs / size:.4g}{unit}"
    return str(macs)
