"""What may vary in one row of a search space, and the row that a choice stands for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from nasaug.supernet.architecture import BLOCKS
from nasaug.supernet.channels import round_channels, squeeze_width
from nasaug.supernet.rows import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    Row,
    Skip,
)

Value = bool | int | float


class Choice(NamedTuple):
    """One value for every decision of a row; None where the row has no such decision."""

    present: bool = True
    kernel: int | None = None
    expand: float | None = None
    width: int | None = None


@dataclass(frozen=True)
class RowChoices:
    """The decisions of one row.

    `template` is the target's row, or for an `optional` row the one it would be at factor 1; of a
    table the row of its smallest member. `ratio` is inner over outer channels of the template;
    `expands` are factors on it (a table's ratio is 1, or 0 where the inner width is fixed). An
    empty `widths` means that the row has no width of its own (a residual row keeps its input's).
    `limit` is the row of a largest architecture that no choice may exceed.
    """

    name: str
    template: Row
    ratio: Fraction = Fraction(0)
    kernels: tuple[int, ...] = ()
    expands: tuple[float, ...] = ()
    widths: tuple[int, ...] = ()
    optional: bool = False
    divisor: int = 8
    limit: Row | None = None

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        present = [
            Choice(True, kernel, expand, width)
            for kernel, expand, width in itertools.product(
                self.kernels or (None,), self.expands or (None,), self.widths or (None,)
            )
        ]
        return (Choice(False), *present) if self.optional else tuple(present)

    @cached_property
    def decisions(self) -> dict[str, tuple[Value, ...]]:
        """Names such as `stage2.block1.expand` with their values; only those that vary."""
        values: dict[str, tuple[Value, ...]] = {
            "present": (False, True) if self.optional else (),
            "kernel": self.kernels,
            "expand": self.expands,
            "width": self.widths,
        }
        return {f"{self.name}.{key}": v for key, v in values.items() if len(v) > 1}

    def choose(self, given: Mapping[str, Value]) -> Choice:
        """The choice with the `given` values; a decision that does not vary has its only value."""
        if self.optional and not given["present"]:
            return Choice(False)
        options = {"kernel": self.kernels, "expand": self.expands, "width": self.widths}
        values = {key: given.get(key, opts[0] if opts else None) for key, opts in options.items()}
        return Choice(True, **values)  # type: ignore[arg-type]

    def realise(self, choice: Choice, in_channels: int) -> Row:
        """The row that `choice` stands for when it reads `in_channels` channels."""
        row = self.template
        if not choice.present:
            return Skip()
        if choice.kernel is not None:
            row = replace(row, kernel=choice.kernel)  # type: ignore[call-arg]
        if isinstance(row, Conv | BLOCKS):
            row = replace(row, out=choice.width or (in_channels if self._keeps else row.out))
        if isinstance(row, InvertedResidual | Bottleneck) and self.ratio:
            outer = in_channels if isinstance(row, InvertedResidual) else row.out
            row = self._expanded(row, outer, choice.expand or 1.0)
        return row

    @property
    def _keeps(self) -> bool:
        return self.optional or self.template.keeps_shape

    def _expanded(
        self, row: InvertedResidual | Bottleneck, outer: int, factor: float
    ) -> InvertedResidual | Bottleneck:
        own = self.template
        assert isinstance(own, InvertedResidual | Bottleneck)
        exact = outer * self.ratio * _exactly(factor)
        mid = round_channels(exact, self.divisor)
        if not self.optional:
            mid = max(own.mid, mid) if exact > own.mid else own.mid
        limit = self.limit
        if isinstance(limit, InvertedResidual | Bottleneck):
            mid = min(mid, limit.mid)
        row = replace(row, mid=mid)
        if isinstance(row, InvertedResidual) and row.squeeze and mid != own.mid:
            squeeze = max(squeeze_width(mid), row.squeeze if not self.optional else 0)
            if isinstance(limit, InvertedResidual) and limit.squeeze:
                squeeze = min(squeeze, limit.squeeze)
            row = replace(row, squeeze=squeeze)
        return row


def inner_width(outer: int, expand: float, divisor: int) -> int:
    """Inner channels of a block in a table: `expand` times the outer ones, rounded."""
    return round_channels(outer * _exactly(expand), divisor)


def row_choices(
    name: str,
    template: Row,
    in_channels: int,
    *,
    width: Sequence[float],
    expand: Sequence[float],
    kernels: Sequence[int],
    divisor: int,
    optional: bool = False,
    limit: Row | None = None,
) -> RowChoices:
    """Choices of a row whose template reads `in_channels` in the target."""
    block = isinstance(template, InvertedResidual | Bottleneck)
    ratio = Fraction(0)
    if isinstance(template, InvertedResidual):
        ratio = Fraction(template.mid, in_channels)
    elif isinstance(template, Bottleneck):
        ratio = Fraction(template.mid, template.out)
    widths: tuple[int, ...] = ()
    if isinstance(template, Conv | BLOCKS) and not optional and not template.keeps_shape:
        limit_out = getattr(limit, "out", None)
        widths = _scaled_widths(template.out, width, divisor, limit_out)
    return RowChoices(
        name=name,
        template=template,
        ratio=ratio,
        kernels=tuple(sorted(kernels)) if isinstance(template, DEPTHWISE) else (),
        expands=tuple(sorted(set(expand))) if block else (),
        widths=widths,
        optional=optional,
        divisor=divisor,
        limit=limit,
    )


def extra_row(last: Row, in_channels: int) -> Row | None:
    """The row that a stage ending in `last` (reading `in_channels`) would grow by; None if none."""
    if isinstance(last, InvertedResidual):
        mid = round_channels(Fraction(last.mid, in_channels) * last.out, 1)
        squeeze = squeeze_width(mid) if last.squeeze else None
        return replace(last, stride=1, mid=mid, skip=True, squeeze=squeeze)
    if isinstance(last, Bottleneck):
        return replace(last, stride=1, projection=False)
    return None


def _scaled_widths(
    own: int, factors: Sequence[float], divisor: int, limit: int | None
) -> tuple[int, ...]:
    """`own` exactly and its multiples, rounded; with a limit nothing above it, but the limit."""
    widths = {own}
    for factor in factors:
        if factor > 1:
            scaled = own * _exactly(factor)
            widths.add(max(own, round_channels(scaled, divisor)))
    if limit is not None and max(factors) > 1:
        widths = {width for width in widths if width <= limit} | {limit}
    return tuple(sorted(widths))


def _exactly(factor: float) -> Fraction:
    return Fraction(factor).limit_denominator(1000)


DEPTHWISE = (InvertedResidual, DepthwiseSeparable)
