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
    aligned = embed(target, largest)
    rows: list[RowChoices] = []
    base, base_width = target.rows[0], target.in_channels
    for index, (row, limit) in enumerate(zip(aligned.rows, largest.rows, strict=True)):
        optional = isinstance(row, Skip)
        in_channels = aligned.widths_in[index]
        template: Row | None = row
        if optional:
            template = extra_row(base, base_width)
        else:
            base, base_width = row, in_channels
        if template is None:
            raise ValueError(
                f"{largest.name} has a row that {target.name} lacks and that no stage grows by: "
                f"row {index} ({largest.row_names[index]})"
            )
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


def _reach_limit(choices: RowChoices, limit_in: int) -> RowChoices:
    """With expand factors up to the limit's own, which is added."""
    limit = choices.limit
    assert limit is not None
    outer = limit_in if isinstance(limit, InvertedResidual) else limit.out_channels(limit_in)
    own = float(limit.mid / (outer * choices.ratio))  # type: ignore[attr-defined]
    nearest = min(choices.expands, key=lambda factor: abs(factor - own))
    for factor in (nearest, own):
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
    if not values or min(values) < 1 or 1 not in values or max(values) > 16:
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
    if sorted(extra_depth) != list(range(len(extra_depth))) or len(extra_depth) > 9:
        raise ValueError(
            "extra_depth must be 0, 1, 2, ... without a gap (at most 8), since a stage grows row "
            f"by row, but got {[*extra_depth]}"
        )
