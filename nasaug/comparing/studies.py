"""Studies as files: the built-in ones, one's own, and how a study is written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from nasaug.config import load_config
from nasaug.study_config import Study
from nasaug.supernet import did_you_mean

STUDY = "study.yaml"


def load_study(
    name: str, sets: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> tuple[str, Study]:
    """A study from a YAML file or by the name of a built-in one, and what it is called.

    Raises: ValueError naming the key, the value and what is allowed; OSError.
    """
    path = study_path(name)
    # `load_config` serves every section that has an answer to `model_validate`.
    study: Study = load_config(Study, str(path), sets, options or {})  # type: ignore[type-var]
    return path.stem, study


def study_path(name: str) -> Path:
    """Raises: ValueError for a name that is neither a file nor a built-in study."""
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return Path(name)
    known = built_in_studies()
    if name not in known:
        near = did_you_mean(name, known)
        raise ValueError(f"unknown study {name!r}: {near} (or a YAML file's path)")
    return known[name]


def built_in_studies() -> dict[str, Path]:
    """Their files by name."""
    folder = Path(str(files("nasaug.configs").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def dump_study(study: Study) -> str:
    """The resolved study as YAML."""
    values = study.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def check_folder(out: Path, cells: Path) -> None:
    """Raises: ValueError if a study's folder holds something else, or is no place for one.

    Which study it holds does not matter: its cells are found, whoever made them.
    """
    for option, path in {"--out": out, "--cells": cells}.items():
        if path.exists() and not path.is_dir():
            raise ValueError(f"{option} must be a folder, but {path} is a file")
    if out.resolve() == cells.resolve():
        raise ValueError(
            f"{out} is where the cells of all studies lie; choose another --out, or another --cells"
        )
    known = (out / STUDY).exists()
    if out.is_dir() and not known and any(entry.name != ".lock" for entry in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no study; choose another --out")
