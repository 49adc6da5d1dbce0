"""The configuration of a run: typed, with errors that name the key, the value and the remedy.

A configuration is built from a YAML file, then `--set key=value`, then the command's own options;
the result is saved with the run. Only the command line reads configurations: the rooms take values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from nasaug.devices import load_latency_table, parse_latency
from nasaug.search import SupernetOptions, parse_band, parse_budget, parse_memory
from nasaug.sections import DataSection, Section, SpaceSection
from nasaug.supernet import (
    Architecture,
    Limits,
    SearchSpace,
    did_you_mean,
    load_space,
    load_target,
    space_names,
)
from nasaug.training import Recipe
from nasaug.values import known_objectives, known_sampler, optional, storage_url
from nasaug.yaml_files import parse_yaml, read_yaml


def _result_file(target: str) -> str:
    """A finished search's folder as its best.json, so that one target has one name."""
    best = os.path.join(target, "best.json")
    return best if os.path.isfile(best) else target


class RunConfig(Section):
    """What searching and training have in common."""

    target: Annotated[str, AfterValidator(_result_file)] = "mbv2_tiny"
    resolution: int | None = Field(None, ge=8, le=2048)
    in_channels: Literal[1, 3] | None = None
    data: DataSection = DataSection()
    train: Recipe = Recipe()
    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    tensorboard: bool = False

    def make_target(self, classes: int) -> Architecture:
        """The network that the run is about. Raises: ValueError for an unknown one; OSError."""
        return load_target(self.target, classes, self.resolution, self.in_channels)


class SupernetRecipe(Recipe):
    """The recipe of a supernet: shorter, and with fewer images for a candidate's statistics."""

    epochs: int = Field(2, ge=1, le=10_000)
    bn_images: int = Field(128, ge=2, le=1_000_000)


class RaceSection(Section):
    """Whether candidates that are out of reach are dropped early, and how surely."""

    on: bool = True
    confidence: float = Field(0.95, gt=0.5, le=1)


class SupernetConfig(RunConfig):
    """What searching and rank checks have in common: a supernet, and limits on its members.

    Up, the space is around `target`. Down, it is the table `space.table`, and the search finds the
    network itself: `target` is not for people to give, and holds the table's name.
    """

    direction: Literal["up", "down"] = "up"
    train: SupernetRecipe = SupernetRecipe()
    supernet: SupernetOptions = SupernetOptions()
    space: SpaceSection = SpaceSection()
    budget: Annotated[int | None, optional(parse_budget)] = None
    budget_from: Annotated[int | None, optional(parse_budget)] = None
    max_params: Annotated[int | None, optional(lambda t: parse_budget(t, "parameters"))] = None
    max_memory: Annotated[int | None, optional(parse_memory)] = None
    max_flash: Annotated[int | None, optional(parse_memory)] = None

    @model_validator(mode="before")
    @classmethod
    def _one_direction(cls, data: Any) -> Any:
        space = data.get("space") if isinstance(data, dict) else None
        table = space.get("table") if isinstance(space, dict) else None
        if not isinstance(data, dict) or not isinstance(table, str | None):
            return data
        if data.get("direction", "up") != "down":
            if table is not None:
                raise ValueError(
                    f"the space {table} is tied to no target, so it is searched with --direction "
                    "down; add that, or leave --space (space.table) out to search around a target"
                )
            return data
        if table is None:
            raise ValueError(
                "--direction down searches a table of choices; name one by --space (space.table): "
                f"{', '.join(space_names())}, or a YAML file's path"
            )
        if data.get("target", table) != table:
            raise ValueError(
                f"a target has no meaning with --direction down, but got {data['target']!r}: the "
                f"search finds the network itself, in the space {table}; leave --target out"
            )
        return {**data, "target": table}

    @model_validator(mode="before")
    @classmethod
    def _split_band(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("budget"), str):
            low, high = parse_band(data["budget"])
            data = {**data, "budget": high, "budget_from": low}
        return data

    @property
    def limits(self) -> Limits:
        """Raises: ValueError for a band that is upside down."""
        return Limits(
            macs=self.budget,
            least_macs=self.budget_from,
            params=self.max_params,
            memory=self.max_memory,
            flash=self.max_flash,
        )

    def make_target(self, classes: int) -> Architecture:
        """Down: the table's smallest member, which lies in all others."""
        if self.space.table is None:
            return super().make_target(classes)
        space = load_space(self.space.table, classes, self.resolution, self.in_channels)
        return space.target.canonical()


class SearchConfig(SupernetConfig):
    """`nasaug search`: `train` is the supernet's recipe and `supernet` how a step trains it.

    `budget` is the MACs of the network that is searched for (up: of the largest one to train the
    target in), or a band such as 200M..300M, whose lower end becomes `budget_from`. `study` names
    the study in a shared storage.
    """

    budget: Annotated[int, BeforeValidator(parse_budget)] = 300_000_000
    max_latency: Annotated[int | None, optional(parse_latency)] = None
    latency_table: str | None = None
    objectives: Annotated[tuple[str, ...], BeforeValidator(known_objectives)] = ("accuracy",)
    trials: int = Field(24, ge=1, le=1_000_000)
    sampler: Annotated[str, AfterValidator(known_sampler)] = "evolution"
    race: RaceSection = RaceSection()
    workers: int = Field(1, ge=1, le=1024)
    storage: Annotated[str | None, AfterValidator(storage_url)] = None
    study: str | None = None

    @model_validator(mode="after")
    def _help_is_for_targets(self) -> SearchConfig:
        if self.direction == "down" and "help" in self.objectives:
            raise ValueError(
                "the objective help is how a larger network helps a target, but with --direction "
                "down there is none; use accuracy, or costs beside it"
            )
        return self

    @model_validator(mode="after")
    def _has_latencies(self) -> SearchConfig:
        if self.latency_table is None and (
            self.max_latency is not None or "latency" in self.objectives
        ):
            raise ValueError(
                "a limit or an objective of latency needs latency_table; make one with "
                "nasaug latency-table"
            )
        return self

    @property
    def limits(self) -> Limits:
        """Raises: ValueError for a band that is upside down."""
        return replace(super().limits, latency=self.max_latency)

    def make_space(self, target: Architecture) -> SearchSpace:
        """The space of the search, with latencies where there is a table of them.

        Raises: ValueError for choices that make no space, and for a table that lacks a row.
        """
        space = self.space.build(target)
        if self.latency_table is None:
            return space
        return space.priced(load_latency_table(Path(self.latency_table)))


Config = TypeVar("Config", bound=RunConfig)


def load_config(
    kind: type[Config],
    path: str | None,
    sets: Iterable[str],
    options: Mapping[str, Any],
) -> Config:
    """A configuration from a file, `--set` texts and options (dotted keys; None is not given).

    Raises: ValueError naming the key, the value and what is allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = read_yaml(Path(path))
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes KEY=VALUE, such as train.lr=0.2, but got {text!r}")
        try:
            _put(data, key.strip(), parse_yaml(value))
        except yaml.YAMLError:
            raise ValueError(f"--set {key}: {value!r} is not a value") from None
    for key, value in options.items():
        if value is not None:
            _put(data, key, value)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ValueError(_explain(error, kind)) from None


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{key}: {parent} is {inner!r}, which has no keys")
        data = inner
    data[last] = value


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first mistake, in a line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        if isinstance(first["input"], dict) and first["input"]:
            key = f"{key}.{next(iter(first['input']))}"
        return f"unknown key {key!r}: {did_you_mean(key, _all_keys(kind))}"
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{key}: {reason}" if key else reason
    return f"{key} must be {reason}, but got {first['input']!r}"


def _all_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in kind.model_fields.items():
        # A section may be absent: `Section | None`.
        inner = [
            given for given in (info.annotation, *get_args(info.annotation)) if _is_model(given)
        ]
        if inner:
            keys += _all_keys(inner[0], f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
