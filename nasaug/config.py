"""The configuration of a run: typed, with errors that name the key, the value and the remedy.

A configuration is built from a YAML file, then `--set key=value`, then the command's own options;
the result is saved with the run. Only the command line reads configurations: the rooms take values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nasaug.devices import load_latency_table, parse_latency
from nasaug.search import SupernetOptions, parse_band, parse_budget, parse_memory
from nasaug.supernet import Architecture, Limits, SearchSpace, did_you_mean, published_factors
from nasaug.training import Recipe
from nasaug.values import known_objectives, known_sampler, optional, storage_url


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(Section):
    """Which data set, and how its images are augmented (see `nasaug.training.View`).

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
    imbalance: float = Field(1.0, ge=1, le=10_000)
    workers: int | None = Field(None, ge=0, le=256)


class SpaceSection(Section):
    """The space around the target; None for factors means the target's published ones."""

    width: tuple[float, ...] | None = None
    expand: tuple[float, ...] | None = None
    kernel_growth: tuple[int, ...] = (0, 2)
    extra_depth: tuple[int, ...] = (0, 1)
    divisor: int = Field(8, ge=1, le=64)

    def resolved(self, target: str) -> dict[str, Any]:
        """All choices as plain data, the published factors filled in."""
        published = published_factors(target)
        given = self.model_dump(mode="json")
        given["width"] = list(self.width or published.width)
        given["expand"] = list(self.expand or published.expand)
        return given

    def around(self, target: Architecture) -> SearchSpace:
        """The space around `target`. Raises: ValueError for choices that make no space."""
        return SearchSpace.around(target, **self.resolved(target.name))


class RunConfig(Section):
    """What searching and training have in common."""

    target: str = "mbv2_tiny"
    resolution: int | None = Field(None, ge=8, le=2048)
    in_channels: Literal[1, 3] | None = None
    data: DataSection = DataSection()
    train: Recipe = Recipe()
    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    tensorboard: bool = False


class SupernetRecipe(Recipe):
    """The recipe of a supernet: shorter, and with fewer images for a candidate's statistics."""

    epochs: int = Field(2, ge=1, le=10_000)
    bn_images: int = Field(128, ge=2, le=1_000_000)


class RaceSection(Section):
    """Whether candidates that are out of reach are dropped early, and how surely."""

    on: bool = True
    confidence: float = Field(0.95, gt=0.5, le=1)


class SupernetConfig(RunConfig):
    """What searching and rank checks have in common: a supernet, and limits on its members."""

    train: SupernetRecipe = SupernetRecipe()
    supernet: SupernetOptions = SupernetOptions()
    space: SpaceSection = SpaceSection()
    budget: Annotated[int | None, optional(parse_budget)] = None
    budget_from: Annotated[int | None, optional(parse_budget)] = None
    max_params: Annotated[int | None, optional(lambda t: parse_budget(t, "parameters"))] = None
    max_memory: Annotated[int | None, optional(parse_memory)] = None

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
        )


class SearchConfig(SupernetConfig):
    """`nasaug search`: `train` is the supernet's recipe and `supernet` how a step trains it.

    `budget` is the largest network's MACs, or a band such as 200M..300M, whose lower end becomes
    `budget_from`. `study` names the study in a shared storage.
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
        """The space around `target`, with latencies where there is a table.

        Raises: ValueError for choices that make no space, and for a table that lacks a row.
        """
        space = self.space.around(target)
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
            _put(data, key.strip(), _parse_yaml(value))
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises: ValueError naming a file that holds no keys and values; OSError."""
    try:
        data = _parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file ({error})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold keys and values, but holds a {type(data).__name__}")
    return data


def _parse_yaml(text: str) -> Any:
    """Raises: yaml.YAMLError, also where PyYAML stumbles over what it cannot construct."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML's constructors fail in many ways
        raise yaml.YAMLError(f"not a value: {error or type(error).__name__}") from None


class _Loader(yaml.SafeLoader):
    """Without what YAML 1.1 takes for truth values besides true and false: in version 1.2, and for
    people, `on` and `no` are words, such as the key `race.on`."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)


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
