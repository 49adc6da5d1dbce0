"""A latency table: what every row of a search space costs on one device.

The latency of a network is modelled as a sum over its rows, as ProxylessNAS (Cai et al., ICLR 2019,
section 3.2) and FBNet (Wu et al., CVPR 2019, equation 3) do:

    latency(arch) = overhead + scale * sum over rows of median(row, in_channels, size)

`scale` is what a row costs more (or less) inside a network than by itself: colder caches, or
operations fused across rows. It is fitted on a few whole networks; see `calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nasaug.devices.duration import LONGEST
from nasaug.devices.entries import RowKey, Timing
from nasaug.supernet import Architecture, Linear, Row, Skip


@dataclass(frozen=True)
class LatencyTable:
    """Timings by row. `table(row, in_channels, size)` is nanoseconds, an additive price of a row.

    timings: nanoseconds, as measured; scale: see above; overhead: nanoseconds a network costs
    beside its rows. facts: what else is known, such as device, backend, threads, date.

    Raises: ValueError for a scale or an overhead that is no latency's, and facts that are no line.
    """

    timings: Mapping[RowKey, Timing]
    scale: float = 1.0
    overhead: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and 0 < self.scale <= 1000):
            raise ValueError(f"scale must be above 0 and at most 1000, but got {self.scale}")
        if not 0 <= self.overhead <= LONGEST:
            raise ValueError(f"overhead must be from 0 to 3600 s, but got {self.overhead} ns")
        for name, value in self.facts.items():
            if not name.isidentifier() or name in ("scale", "overhead_us"):
                raise ValueError(f"a fact's name must be a word of its own, but got {name!r}")
            if value != value.strip() or len(value.splitlines()) > 1:
                raise ValueError(f"{name} must be one line, but got {value!r}")

    def __call__(self, row: Row, in_channels: int, size: int) -> int:
        """Nanoseconds of one row inside a network; 0 for an absent one.

        The overhead of a network is counted with its one linear row, so that the sum over a
        network's rows is `predict(arch)`.

        Raises: ValueError naming a row that the table lacks.
        """
        if isinstance(row, Skip):
            return 0
        key = RowKey(row, in_channels, size)
        timing = self.timings.get(key)
        if timing is None:
            raise ValueError(
                f"the latency table has no entry for {key}; measure it with "
                "nasaug latency-table TARGET --out TABLE --resume, with the same --set space.* "
                "and resolution as the search"
            )
        overhead = self.overhead if isinstance(row, Linear) else 0
        return round(self.scale * timing.median) + overhead

    def predict(self, arch: Architecture) -> int:
        """Nanoseconds of one image through `arch`. Raises: ValueError as for a row."""
        return sum(
            self(row, width, size)
            for row, width, size in zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True)
        )
