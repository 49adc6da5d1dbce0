"""Whether a network fits on a device: what it needs beside what the device has.

The device's memory must hold the peak of the activations, its flash the weights. Neither counts the
program and its runtime (tens to hundreds of KB): limits are what the device has left for a network.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.costs import flash_size, peak_memory


@dataclass(frozen=True)
class Fit:
    """What a network needs and the limits on it, in bytes; None is no limit."""

    memory: int
    flash: int
    max_memory: int | None = None
    max_flash: int | None = None

    @property
    def fits(self) -> bool:
        return all(spare >= 0 for spare in self.spare.values())

    @property
    def spare(self) -> dict[str, int]:
        """What is left of every limit that was given; negative is how much too large it is."""
        pairs = {"memory": (self.max_memory, self.memory), "flash": (self.max_flash, self.flash)}
        return {name: most - need for name, (most, need) in pairs.items() if most is not None}

    def __str__(self) -> str:
        """`memory 30.6 KB of 256.0 KB, 225.4 KB to spare; flash ...`."""
        needs = {"memory": self.memory, "flash": self.flash}
        parts = []
        for name, spare in self.spare.items():
            verdict = "to spare" if spare >= 0 else "too much"
            parts.append(
                f"{name} {in_kb(needs[name])} of {in_kb(needs[name] + spare)}, "
                f"{in_kb(abs(spare))} {verdict}"
            )
        return "; ".join(parts) or "no limit"


def check_fit(
    arch: Architecture,
    max_memory: int | None = None,
    max_flash: int | None = None,
    bits: int = 8,
    in_place: bool = False,
) -> Fit:
    """What `arch` needs, batch 1, at its resolution, beside the limits in bytes.

    `bits`: 8 for int8, 32 for float32, of activations and weights alike; `in_place`: the kernels
    write over their inputs where they can (see `peak_memory`).

    Raises: ValueError for a limit below 1 and for other bits.
    """
    for name, most in (("max_memory", max_memory), ("max_flash", max_flash)):
        if most is not None and most < 1:
            raise ValueError(f"{name} must be at least 1 byte, but got {most}")
    flash = flash_size(arch, bits)
    return Fit(peak_memory(arch, in_place, bits // 8), flash, max_memory, max_flash)


def in_kb(size: int) -> str:
    """Bytes for people, in the binary units of device memory; below 1 KB as they are."""
    if size >= 1024:
        return f"{size / 1024:,.1f} KB"
    return "1 byte" if size == 1 else f"{size:,} bytes"
