"""A network as a value: a table of rows, an input size, nothing else.

Frozen and hashable, so that a sub-network can be an argument, a dictionary key and a line of JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nasaug.supernet.rows import (
    NESTED,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Row,
    Skip,
    row_from_dict,
    row_to_dict,
)

BLOCKS = DepthwiseSeparable | InvertedResidual | Bottleneck


@dataclass(frozen=True, eq=False)
class Architecture:
    """A table of rows for images of `in_channels` x `resolution` x `resolution`.

    `resolution` is the deployment resolution: costs are quoted at it. Two architectures are equal
    when they compute the same network: the name and absent rows (`Skip`) do not count.

    Raises: ValueError naming the row for a table that cannot be built.
    """

    rows: tuple[Row, ...]
    resolution: int
    in_channels: int = 3
    name: str = field(default="unnamed")

    def __post_init__(self) -> None:
        _check(self)

    @property
    def num_classes(self) -> int:
        last = self.rows[-1]
        assert isinstance(last, Linear)
        return last.out

    @cached_property
    def widths_in(self) -> tuple[int, ...]:
        """The number of channels that each row reads."""
        widths = [self.in_channels]
        for row in self.rows[:-1]:
            widths.append(row.out_channels(widths[-1]))
        return tuple(widths)

    @cached_property
    def sizes_in(self) -> tuple[int, ...]:
        """The side of the (square) feature map that each row reads, at `resolution`."""
        sizes = [self.resolution]
        for row in self.rows[:-1]:
            size = sizes[-1]
            sizes.append(
                1 if isinstance(row, GlobalAvgPool) else (size - 1) // row.downsampling + 1
            )
        return tuple(sizes)

    @cached_property
    def row_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `stage2.block1`, `head`, `classifier`; unique, one a row."""
        return tuple(name_rows(self.rows, self.in_channels))

    def canonical(self) -> Architecture:
        """The same network without absent rows."""
        if not any(isinstance(row, Skip) for row in self.rows):
            return self
        return replace(self, rows=tuple(r for r in self.rows if not isinstance(r, Skip)))

    def with_classes(self, num_classes: int) -> Architecture:
        """The same network with another classifier."""
        return replace(self, rows=(*self.rows[:-1], Linear(num_classes)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "resolution": self.resolution,
            "in_channels": self.in_channels,
            "rows": [row_to_dict(row) for row in self.canonical().rows],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Any) -> Architecture:
        """Raises: ValueError naming the row or key that is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
            raise ValueError("an architecture must be a table with a list of rows")
        unknown = set(data) - {"name", "resolution", "in_channels", "rows"}
        if unknown:
            raise ValueError(
                f"an architecture has no key {min(map(str, unknown))!r}; "
                "it has name, resolution, in_channels, rows"
            )
        rows = []
        for index, row in enumerate(data["rows"]):
            try:
                rows.append(row_from_dict(row))
            except ValueError as error:
                raise ValueError(f"row {index}: {error}") from None
        if "resolution" not in data:
            raise ValueError("an architecture needs a resolution")
        name = str(data.get("name", "unnamed"))
        return cls(tuple(rows), data["resolution"], data.get("in_channels", 3), name)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        return cls.from_dict(json.loads(text))

    @cached_property
    def _key(self) -> tuple[object, ...]:
        return self.canonical().rows, self.resolution, self.in_channels

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.in_channels} x {self.resolution} x {self.resolution}"]
        for name, row, size in zip(self.row_names, self.rows, self.sizes_in, strict=True):
            values = {k: v for k, v in row_to_dict(row).items() if k != "kind"}
            text = " ".join(f"{k}={v}" for k, v in values.items())
            lines.append(f"  {name:<16} {size:>4}  {row.kind:<20} {text}".rstrip())
        return "\n".join(lines)


def embed(arch: Architecture, largest: Architecture) -> Architecture:
    """`arch` with `Skip` rows put in, so that row i of the result lies inside row i of `largest`.

    Raises: ValueError naming the first row where `largest` does not contain `arch`.
    """
    if (arch.in_channels, arch.resolution) != (largest.in_channels, largest.resolution):
        raise ValueError(
            f"{arch.name} reads {arch.in_channels} x {arch.resolution} x {arch.resolution}, "
            f"but {largest.name} reads {largest.in_channels} x {largest.resolution} x "
            f"{largest.resolution}"
        )
    waiting = list(arch.canonical().rows)
    aligned: list[Row] = []
    misfit = ""
    for index, row in enumerate(largest.rows):
        reason = why_not_inside(waiting[0], row) if waiting else "there is no such row"
        if reason is None:
            aligned.append(waiting.pop(0))
            continue
        misfit = misfit or f"row {index} ({largest.row_names[index]}): {reason}"
        if not row.keeps_shape and not isinstance(row, Skip):
            break
        aligned.append(Skip())
    if waiting or len(aligned) < len(largest.rows):
        misfit = misfit or f"no place for {waiting[0]}"
        raise ValueError(f"{largest.name} does not contain {arch.name}: {misfit}")
    return replace(arch, rows=tuple(aligned))


def why_not_inside(small: Row, large: Row) -> str | None:
    """Why the weights of `small` are not a slice of those of `large`; None when they are."""
    if type(small) is not type(large):
        return f"{small.kind} is not {large.kind}"
    for key, value in vars(small).items():
        limit = getattr(large, key)
        if key in NESTED and None not in (value, limit):
            nested = value <= limit
            if isinstance(large, Linear | MaxPool):
                nested = value == limit
            if not nested:
                return f"{key} {value} does not fit into {limit}"
        elif value != limit and key != "slope":
            return f"{key} is {value}, not {limit}"
    return None


def check_input(resolution: object, in_channels: object) -> None:
    """Raises: ValueError for images that no network reads."""
    for name, value, most in (("resolution", resolution, 8192), ("in_channels", in_channels, 3)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ValueError(f"{name} must be an integer from 1 to {most}, but got {value!r}")
    if in_channels == 2:
        raise ValueError("in_channels must be 1 (grey) or 3 (RGB), but got 2")


def check_classes(num_classes: object) -> None:
    """Raises: ValueError for a number of classes that nothing can be told apart by."""
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, but got {num_classes!r}")


def _check(arch: Architecture) -> None:
    check_input(arch.resolution, arch.in_channels)
    kinds = [type(row) for row in arch.rows]
    if kinds.count(Linear) != 1 or kinds[-1] is not Linear or kinds.count(GlobalAvgPool) != 1:
        raise ValueError("the rows must hold one global_avg_pool and end with the one linear row")
    width = arch.in_channels
    for index, (row, name) in enumerate(
        zip(arch.rows, name_rows(arch.rows, arch.in_channels), strict=True)
    ):
        where = f"row {index} ({name}): "
        kernel = getattr(row, "kernel", 1)
        if kernel % 2 == 0:
            raise ValueError(f"{where}kernel must be odd, but got {kernel}")
        if getattr(row, "stride", 1) not in (1, 2):
            raise ValueError(f"{where}stride must be 1 or 2, but got {row.downsampling}")
        out = row.out_channels(width)
        if row.keeps_shape and (row.downsampling != 1 or out != width):
            remedy = "projection: true" if isinstance(row, Bottleneck) else "skip: false"
            raise ValueError(
                f"{where}skip must keep the shape, but stride is {row.downsampling} and "
                f"{width} channels become {out}; set {remedy}"
            )
        width = out


def name_rows(rows: tuple[Row, ...], in_channels: int) -> Iterator[str]:
    """The rows' names. A stage starts at every block that is not residual, changes the shape or
    follows no block."""
    stage = block = 0
    seen: Counter[str] = Counter()
    width, inside = in_channels, False
    for row in rows:
        out = row.out_channels(width)
        changes = row.downsampling > 1 or out != width
        if isinstance(row, BLOCKS) and (not inside or changes or not row.residual):
            stage, block = stage + 1, 0
        inside = isinstance(row, BLOCKS | Skip)
        width = out
        if isinstance(row, BLOCKS | Skip):
            block += 1
            yield f"stage{stage}.block{block}"
            continue
        if isinstance(row, Conv):
            place = "feature" if seen["pool"] else "head" if stage else "stem"
        else:
            place = {MaxPool: "maxpool", GlobalAvgPool: "pool", Linear: "classifier"}[type(row)]
        seen[place] += 1
        yield place if seen[place] == 1 else f"{place}{seen[place]}"
