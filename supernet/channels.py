"""Rounding of channel counts, shared by targets, spaces and squeeze widths."""

from __future__ import annotations

from fractions import Fraction


def round_channels(value: Fraction | float | int, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor` and at least 0.9 x `value`.

    The rule of the MobileNet family (TensorFlow slim, torchvision). `divisor=1` rounds half up, as
    the NetAug authors' code does.
    """
    rounded = max(divisor, int(value + Fraction(divisor, 2)) // divisor * divisor)
    return rounded if rounded >= Fraction(9, 10) * Fraction(value) else rounded + divisor


def squeeze_width(mid: int) -> int:
    """Squeeze width of an inverted residual with `mid` inner channels (MobileNetV3's tables)."""
    return max(16, round_channels(Fraction(mid, 4)))
