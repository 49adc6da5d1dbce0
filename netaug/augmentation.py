"""What a target is trained inside: the largest augmented network and the helpers below it."""

from __future__ import annotations

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
    def by_factors(cls, target: Architecture, factors: Factors, divisor: int = 8) -> Augmentation:
        """Widths and expand ratios up to the largest factors, nothing else (Cai et al., 2022)."""
        largest = SearchSpace.around(
            target, factors.width, factors.expand, (0,), (0,), divisor
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
