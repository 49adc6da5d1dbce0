"""Studies as files: the built-in ones, one's own, and how a study is written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nasaug.config import load_config
from nasaug.sections import Section
from nasaug.study_config import Study
from nasaug.supernet import did_you_mean
from nasaug.training import read_json_object

STUDY = "study.yaml"
# How the names of built-in files begin that are other commands' than `nasaug compare`.
CONTRASTS, DETECTIONS = "contrast", "detection"
SUMMARY = "summary.json"
# What a report writes.
OUTPUTS = (SUMMARY, "table.csv", "table.md", "report.html")
Asked = TypeVar("Asked", bound=Section)


def load_study(
    name: str, sets: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> tuple[str, Study]:
    """A study from a YAML file or by the name of a built-in one, and what it is called.

    Raises: ValueError naming the key, the value and what is allowed; OSError.
    """
    return load_from(study_path(name), Study, sets, options or {})


def load_from(
    path: Path, kind: type[Asked], sets: Iterable[str], options: Mapping[str, Any]
) -> tuple[str, Asked]:
    """What a file asks, and what it is called. Raises: as `load_study`."""
    # `load_config` serves every section that has an answer to `model_validate`.
    asked: Asked = load_config(kind, str(path), sets, options)  # type: ignore[type-var]
    return path.stem, asked


def study_path(name: str, built_in: Mapping[str, Path] | None = None) -> Path:
    """`built_in` are files by name, None those of `nasaug compare`.

    Raises: ValueError for a name that is neither a file nor a built-in study.
    """
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return Path(name)
    known = built_in_studies() if built_in is None else built_in
    if name not in known:
        near = did_you_mean(name, known)
        raise ValueError(f"unknown study {name!r}: {near} (or a YAML file's path)")
    return known[name]


def built_in_studies() -> dict[str, Path]:
    """Their files by name. Those beside them are `nasaug contrast`'s and `detect compare`'s."""
    others = (CONTRASTS, DETECTIONS)
    return {name: path for name, path in _built_in().items() if not name.startswith(others)}


def built_in_contrasts() -> dict[str, Path]:
    """Their files by name."""
    return _built_in(CONTRASTS)


def built_in_detections() -> dict[str, Path]:
    """The files of `nasaug detect compare` by name."""
    return _built_in(DETECTIONS)


def _built_in(beginning: str = "") -> dict[str, Path]:
    folder = Path(str(files("nasaug.configs").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob(f"{beginning}*.yaml"))}


def dump_study(study: Section) -> str:
    """The resolved study, or contrast, as YAML."""
    values = study.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def check_folder(out: Path, cells: Path) -> None:
    """Raises: ValueError if a study's folder holds something else, or is no place for one.

    Which study it holds does not matter: its cells are found, whoever made them. A report may have
    been written there before the study was ever run, of cells that it shares with others.
    """
    for option, path in {"--out": out, "--cells": cells}.items():
        if path.exists() and not path.is_dir():
            raise ValueError(f"{option} must be a folder, but {path} is a file")
    if out.resolve() == cells.resolve():
        raise ValueError(
            f"{out} is where the cells of all studies lie; choose another --out, or another --cells"
        )
    held = {entry.name for entry in out.iterdir()} - {".lock"} if out.is_dir() else set()
    if held and STUDY not in held and not (held <= {*OUTPUTS} and _is_summary(out / SUMMARY)):
        raise ValueError(f"{out} is not empty and holds no study; choose another --out")


def _is_summary(path: Path) -> bool:
    """Whether it is a study's summary, rather than somebody's file of that name."""
    try:
        return {"study", "comparisons"} <= read_json_object(path).keys()
    except (ValueError, FileNotFoundError):
        return False
