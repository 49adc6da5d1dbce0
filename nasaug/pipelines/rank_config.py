"""What a rank check is asked, and whose supernet it checks.

The supernet is a search's, so space, data, resolution and recipe are that search's: what the user
gives besides must agree with it. Without such a search the supernet is made from the user's keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from nasaug.config import SupernetConfig
from nasaug.console import say
from nasaug.pipelines.supernet import FOLDER, is_supernet
from nasaug.training import Recipe
from nasaug.workspace import folders_near
from nasaug.yaml_files import read_yaml

NEW, AUTO = "new", "auto"
# A search's keys that its supernet depends on, and those of the data that only say where it lies.
MAKING = ("direction", "resolution", "in_channels", "data", "train", "space", "supernet")
LIMITS = ("budget", "budget_from", "max_params", "max_memory", "max_flash")
WHERE = ("data.dir", "data.download", "data.workers")


class AloneRecipe(Recipe):
    """The recipe by which every candidate is trained alone."""

    epochs: int = Field(5, ge=1, le=10_000)


class RankConfig(SupernetConfig):
    """`nasaug rank-check`. `alone` is the recipe of the candidates, `train` and `supernet` those of
    the supernet; `supernet_from` is auto (the newest search's with these keys, else new), new, or a
    search's folder. `budget` (MACs, or a band), `max_params`, `max_memory` and `max_flash` (bytes)
    limit the candidates; None is that search's own limit. Its limit on latency, if any, is not
    looked at."""

    n: int = Field(12, le=10_000)
    bands: int = Field(4, ge=1)
    alone: AloneRecipe = AloneRecipe()
    resamples: int = Field(10_000, ge=100, le=100_000)
    supernet_from: str = AUTO


def choose_supernet(config: RankConfig, run: Path) -> str:
    """`new`, or the folder of the search whose supernet is to be checked.

    Raises: ValueError for a named folder without a finished supernet, or with one that the
        configuration contradicts.
    """
    if config.supernet_from == NEW:
        return NEW
    if config.supernet_from != AUTO:
        folder = Path(config.supernet_from)
        differing = _contradictions(config, folder)
        if differing:
            raise ValueError(
                f"the supernet of {folder} has {differing[0]}; leave that key out, or name another "
                "--supernet"
            )
        return str(folder)
    for folder in folders_near(run):
        if folder.resolve() == run.resolve() or not is_supernet(folder / FOLDER):
            continue
        try:
            if not _contradictions(config, folder):
                return str(folder)
        except ValueError as error:
            say(f"passing over a supernet: {error}")
    return NEW


def as_searched(config: RankConfig, folder: Path) -> RankConfig:
    """`config` with what the search in `folder` says of its supernet.

    Raises: ValueError naming a configuration that cannot be read.
    """
    saved = _saved(folder)
    merged = config.model_dump(mode="json")
    merged |= {key: saved[key] for key in MAKING}
    for key in WHERE:
        section, _, name = key.partition(".")
        if name in config.data.model_fields_set:
            merged[section][name] = getattr(config.data, name)
    if config.budget is None:
        merged |= {key: saved[key] for key in ("budget", "budget_from")}
    for key in ("max_params", "max_memory", "max_flash"):
        if merged[key] is None:
            merged[key] = saved[key]
    return RankConfig.model_validate(merged)


def _contradictions(config: RankConfig, folder: Path) -> list[str]:
    """`KEY: VALUE` of the search's configuration where the user gave another value."""
    if not is_supernet(folder / FOLDER):
        raise ValueError(
            f"{folder} holds no finished supernet; name the folder of a finished nasaug search"
        )
    saved = dict(_flat(_saved(folder)))
    given = config.model_dump(mode="json", exclude_unset=True)
    asked = dict(_flat({key: given[key] for key in MAKING if key in given}))
    asked["target"] = config.target
    return [
        f"{key}: {saved[key]}"
        for key, value in asked.items()
        if key not in WHERE and saved[key] != value
    ]


def _saved(folder: Path) -> dict[str, Any]:
    """What the configuration of a search (or a check) says of its supernet and its limits."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{path} is missing: it says what the supernet was made of")
    read = read_yaml(path)
    try:
        found = RankConfig.model_validate(
            {key: read[key] for key in ("target", *MAKING, *LIMITS) if key in read}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} cannot be used: {key}: {first['msg']}") from None
    return found.model_dump(mode="json")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
