"""Sections of a configuration: the data, and what a search's networks may be."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nasaug.supernet import Architecture, SearchSpace, load_space, published_factors


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(Section):
    """Which data set, and how its images are augmented (see `nasaug.training.View`).

    name: see `nasaug.training.load_dataset`, as for dir, download and validation.
    per_class: how many training images of each class are kept at most; None keeps all.
    imbalance: how many times as many training images the first class keeps as the last.
    """

    name: str = "fashion-mnist-mini"
    dir: str | None = None
    download: bool = False
    validation: float = Field(0.1, gt=0, lt=1)
    flip: bool = True
    crop: float = Field(0.125, ge=0, le=0.5)
    rand_augment: bool = False
    auto_augment: bool = False
    mixup: float = Field(0.0, ge=0, le=10)
    cutmix: float = Field(0.0, ge=0, le=10)
    per_class: int | None = Field(None, ge=1)
    imbalance: float = Field(1.0, ge=1, le=10_000)
    workers: int | None = Field(None, ge=0, le=256)


class SpaceSection(Section):
    """The space around the target; None for factors means the target's published ones.

    table: a table of choices instead, tied to no target, by its name or a YAML file's path; it
    decides all, so that the other keys are refused beside it.
    """

    table: str | None = None
    width: tuple[float, ...] | None = None
    expand: tuple[float, ...] | None = None
    kernel_growth: tuple[int, ...] = (0, 2)
    extra_depth: tuple[int, ...] = (0, 1)
    divisor: int = Field(8, ge=1, le=64)

    @model_validator(mode="after")
    def _table_decides(self) -> SpaceSection:
        beside = self.model_fields_set - {"table"}
        if self.table is not None and beside:
            raise ValueError(
                f"{min(beside)} is for a space around a target, but the table {self.table} "
                "says what may vary; leave it out, or write it into a table of your own"
            )
        return self

    @model_serializer(mode="wrap")
    def _what_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys that decide nothing, so that what is written can be read again."""
        values: dict[str, Any] = dump(self)
        return {k: v for k, v in values.items() if (k == "table") == (self.table is not None)}

    def resolved(self, target: str) -> dict[str, Any]:
        """All choices around a target as plain data, the published factors filled in."""
        published = published_factors(target)
        given = self.model_dump(mode="json")
        given["width"] = list(self.width or published.width)
        given["expand"] = list(self.expand or published.expand)
        return given

    def build(self, target: Architecture) -> SearchSpace:
        """The space around `target`; the table's, of its classes and for its images.

        Raises: ValueError for choices that make no space; FileNotFoundError for a table.
        """
        if self.table is not None:
            return load_space(self.table, target.num_classes, target.resolution, target.in_channels)
        return SearchSpace.around(target, **self.resolved(target.name))
