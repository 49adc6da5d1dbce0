"""Hard limits on what a member of a space may cost, and the error when nothing meets them."""

from __future__ import annotations

from dataclasses import dataclass, fields

ADDITIVE = ("macs", "params", "flash", "latency")
"""Costs of a path that are sums over its rows; peak memory is the maximum over them."""


class Infeasible(ValueError):
    """No member of a space meets the limits."""


@dataclass(frozen=True)
class Limits:
    """Hard limits, batch 1, at the deployment resolution; None is no limit.

    macs, least_macs: multiply-accumulates, a band when both are given; params: parameters; memory:
    bytes, the peak of int8 activations, nothing in place (`peak_memory`); flash: bytes of int8
    weights (`flash_size`); latency: nanoseconds, of a priced space.

    Raises: ValueError for a limit below 1 and for a band that is upside down.
    """

    macs: int | None = None
    least_macs: int | None = None
    params: int | None = None
    memory: int | None = None
    flash: int | None = None
    latency: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            if value < 1:
                raise ValueError(f"the limit {name} must be at least 1, but got {value}")
        if self.macs is not None and self.least_macs is not None and self.least_macs > self.macs:
            raise ValueError(
                f"a band of MACs goes from the lower to the higher limit, but got "
                f"{self.least_macs:,}..{self.macs:,}"
            )

    @property
    def given(self) -> dict[str, int]:
        """The limits that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def most(self, cost: str) -> int | None:
        """The upper limit on a cost."""
        value: int | None = getattr(self, cost)
        return value

    def least(self, cost: str) -> int | None:
        """The lower limit on a cost; only MACs have one."""
        return self.least_macs if cost == "macs" else None

    def __str__(self) -> str:
        words = {
            "least_macs": "at least {:,} MACs",
            "macs": "at most {:,} MACs",
            "params": "at most {:,} parameters",
            "memory": "at most {:,} bytes of memory",
            "flash": "at most {:,} bytes of flash",
            "latency": "at most {:,} ns",
        }
        given = self.given
        parts = [text.format(given[name]) for name, text in words.items() if name in given]
        return ", ".join(parts) or "no limit"
