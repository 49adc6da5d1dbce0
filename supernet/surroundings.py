"""The rows of the two spaces around a target: everything up to given factors, and everything up to
a given largest architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nasaug.supernet.architecture import BLOCKS, Architecture, embed
from nasaug.supernet.choices import RowChoices, extra_row, row_choices
from nasaug.supernet.rows import DepthwiseSeparable, InvertedResidual, Row, Skip


def rows_around(
    target: Architecture,
    width: Sequence[float],
    expand: Sequence[float],
    kernel_growth: Sequence[int],
    extra_depth: Sequence[int],
    divisor: int,
) -> list[RowChoices]:
    """See `SearchSpace.around`. `target` is canonical."""
    _check_factors("width", width)
    _check_factors("expand", expand)
    _check_divisor(divisor)
    _check_growth(kernel_growth, extra_depth)
    rows = []
    for index, (row, name) in enumerate(zip(target.rows, target.row_names, strict=True)):
        in_channels = target.widths_in[index]
        grown = extra_row(row, in_channels) if _ends_stage(target, index) else None
        extras = [grown] * max(extra_depth) if grown is not None else []
        for offset, template in enumerate([row, *extras]):
            kernels = [getattr(template, "kernel", 1) + growth for growth in kernel_growth]
            rows.append(
                row_choices(
                    _following(name, offset),
                    template,
                    row.out_channels(in_channels) if offset else in_channels,
                    width=width,
                    expand=expand,
                    kernels=kernels,
                    divisor=divisor,
                    optional=offset > 0,
                )
            )
    return rows


def rows_between(
    target: Architecture,
    largest: Architecture,
    width: Sequence[float],
    expand: Sequence[float],
    divisor: int,
) -> list[RowChoices]:
    """See `SearchSpace.between`. Both are canonical."""
    _check_factors("width", width)
    _check_factors("expand", expand)
    _check_divisor(divisor)
    aligned = embed(target, largest)
    rows: list[RowChoices] = []
    base, base_width = target.rows[0], target.in_channels
    for index, (row, limit) in enumerate(zip(aligned.rows, largest.rows, strict=True)):
        optional = isinstance(row, Skip)
        in_channels = aligned.widths_in[index]
        template = row
        if optional:
            grown = extra_row(base, base_width)
            if grown is None or not _alike(grown, limit):
                rows.append(_all_or_nothing(limit, largest, index, divisor))
                continue
            template = grown
        else:
            base, base_width = row, in_channels
        kernel, kernel_limit = getattr(template, "kernel", 1), getattr(limit, "kernel", 1)
        choices = row_choices(
            largest.row_names[index],
            template,
            in_channels,
            width=width,
            expand=expand,
            kernels=range(min(kernel, kernel_limit), kernel_limit + 1, 2),
            divisor=divisor,
            optional=optional,
            limit=limit,
        )
        if choices.expands and max(expand) > 1:
            choices = _reach_limit(choices, largest.widths_in[index])
        rows.append(choices)
    return rows


def _alike(grown: Row, limit: Row) -> bool:
    """Whether `grown` and `limit` differ in numbers only."""
    traits = [
        (type(row), getattr(row, "act", None), bool(getattr(row, "squeeze", None)))
        for row in (grown, limit)
    ]
    return traits[0] == traits[1]


def _all_or_nothing(limit: Row, largest: Architecture, index: int, divisor: int) -> RowChoices:
    """For a row that no stage of the target would grow by: as in `largest`, or absent."""
    return row_choices(
        largest.row_names[index],
        limit,
        largest.widths_in[index],
        width=(1.0,),
        expand=(1.0,),
        kernels=(getattr(limit, "kernel", 1),),
        divisor=divisor,
        optional=True,
        limit=limit,
    )


def _reach_limit(choices: RowChoices, limit_in: int) -> RowChoices:
    """With expand factors up to the limit's own, which is added."""
    limit = choices.limit
    assert limit is not None
    outer = limit_in if isinstance(limit, InvertedResidual) else limit.out_channels(limit_in)
    own = float(limit.mid / (outer * choices.ratio))  # type: ignore[attr-defined]
    nearest = min(choices.expands, key=lambda factor: abs(factor - own))
    # Where rounding falls short of the limit, half a step more goes beyond it and is cut back.
    for factor in (nearest, own, own + choices.divisor / (2 * float(outer * choices.ratio))):
        made = choices.realise(choices.choices[-1]._replace(expand=factor), limit_in)
        if made.mid == limit.mid:  # type: ignore[attr-defined]
            own = factor
            break
    below = {factor for factor in choices.expands if factor < own}
    return replace(choices, expands=tuple(sorted(below | {own})))


def _ends_stage(arch: Architecture, index: int) -> bool:
    """Whether row `index` is the last block of its stage."""
    if not isinstance(arch.rows[index], BLOCKS) or isinstance(arch.rows[index], DepthwiseSeparable):
        return False
    stage = arch.row_names[index].partition(".")[0]
    return arch.row_names[index + 1].partition(".")[0] != stage


def _following(name: str, offset: int) -> str:
    """The name of the row `offset` places after the block `name` in its stage."""
    if offset == 0:
        return name
    stage, _, block = name.rpartition("block")
    return f"{stage}block{int(block) + offset}"


def _check_factors(name: str, factors: Iterable[float]) -> None:
    values = list(factors)
    if 1 not in values or not all(1 <= value <= 16 for value in values):
        raise ValueError(
            f"{name} factors must be from 1 to 16 with 1 among them, so that every member "
            f"contains the target, but got {values}"
        )


def _check_growth(kernel_growth: Sequence[int], extra_depth: Sequence[int]) -> None:
    if 0 not in kernel_growth or any(g < 0 or g % 2 or g > 8 for g in kernel_growth):
        raise ValueError(
            "kernel_growth must be even, from 0 to 8, with 0 among them, but got "
            f"{[*kernel_growth]}"
        )
    if sorted(extra_depth) != list(range(len(extra_depth))) or not 1 <= len(extra_depth) <= 9:
        raise ValueError(
            "extra_depth must be 0, 1, 2, ... without a gap (at most 8), since a stage grows row "
            f"by row, but got {[*extra_depth]}"
        )


def _check_divisor(divisor: int) -> None:
    if not 1 <= divisor <= 1024:
        raise ValueError(f"divisor must be from 1 to 1024, but got {divisor}")
