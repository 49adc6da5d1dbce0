"""What a target is trained inside: the largest augmented network and the helpers below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasaug.supernet import Architecture, Factors, SearchSpace, published_factors


@dataclass(frozen=True)
class Augmentation:
    """`helpers`: all members; `narrow`: those with the target's own widths (the second phase)."""

    helpers: SearchSpace
    narrow: SearchSpace

    @property
    def target(self) -> Architecture:
        return self.helpers.target

    @property
    def largest(self) -> Architecture:
        return self.helpers.largest

    @classmethod
    def by_factors(
        cls,
        target: Architecture,
        factors: Factors,
        divisor: int = 8,
        kernel_growth: Sequence[int] = (0,),
        extra_depth: Sequence[int] = (0,),
    ) -> Augmentation:
        """Up to the largest factors; widths and expand ratios alone as published (Cai et al.,
        2022), kernels and depth where asked. Raises: ValueError for factors that make no space."""
        largest = SearchSpace.around(
            target, factors.width, factors.expand, kernel_growth, extra_depth, divisor
        ).largest
        return cls.inside(target, largest, factors, divisor)

    @classmethod
    def inside(
        cls,
        target: Architecture,
        largest: Architecture,
        factors: Factors | None = None,
        divisor: int = 8,
    ) -> Augmentation:
        """From the target up to `largest`, in the steps of the factors (None: published ones).

        Raises: ValueError naming the first row where `largest` does not contain `target`.
        """
        factors = factors or published_factors(target.name)
        return cls(
            SearchSpace.between(target, largest, factors.width, factors.expand, divisor),
            SearchSpace.between(target, largest, (1.0,), factors.expand, divisor),
        )


def evenly_spaced(r: float, s: int) -> tuple[float, ...]:
    """The factors from 1 to `r` in `s` steps: r = 3, s = 2 gives 1, 2, 3 (Cai et al., 2022).

    Raises: ValueError for r below 1 and s below 1.
    """
    if not 1 <= r <= 16:
        raise ValueError(f"r, the augmentation factor, must be from 1 to 16, but got {r}")
    if s < 1:
        raise ValueError(f"s, the diversity factor, must be at least 1 step, but got {s}")
    return tuple(dict.fromkeys(1 + i * (r - 1) / s for i in range(s + 1)))
