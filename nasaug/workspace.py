"""Where runs lie and how they are found again.

A run is a folder below `runs/`, named by the time it began, or the folder given by `--out`. The
same command with `--resume` finds the newest run with the same configuration.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml

from nasaug.config import RunConfig, dump_config
from nasaug.search import storage_name
from nasaug.supernet import Architecture
from nasaug.training import ALONE, RunFolder, Workers, read_json_object, write_atomically
from nasaug.yaml_files import read_yaml

log = logging.getLogger(__name__)
RUNS = Path("runs")
MAY_DIFFER = frozenset({"trials", "workers", "threads"})


class InUse(ValueError):
    """Another process works in a run's folder."""


SearchResult = tuple[Path, dict[str, Any]]


def locate_run(
    command: str, config: RunConfig, out: str | None, resume: bool, group: Workers = ALONE
) -> Path:
    """The folder of a new run, or with `resume` that of the same run begun earlier, if any.

    Nothing is written.

    Raises: ValueError if the folder holds another run, or one that was not to be resumed.
    """
    text = dump_config(config)
    path = Path(out) if out is not None else None
    if path is None and resume:
        path = _newest_alike(command, text)
        if path is None and group.first:
            log.warning("no earlier run of this command was found; starting a new one")
    if path is None:
        path = RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{command}-{_short(config.target)}"
        path = _unused(path) if group.first else path
    if group.first:
        _check_config(path, text, resume)
    return path


def begin_run(
    path: Path, config: RunConfig, group: Workers = ALONE
) -> tuple[RunFolder, AbstractContextManager[object]]:
    """The run's folder, made, and the lock on it: a context to work in.

    Workers other than the first write nothing and hold no lock.

    Raises: ValueError if another process works in it; OSError if it cannot be written.
    """
    run = RunFolder(path, writes=group.first)
    if not group.first:
        return run, nullcontext()
    lock = lock_folder(path)
    write_atomically(path / "config.yaml", dump_config(config))
    return run, lock


def is_in_use(path: Path) -> bool:
    """Whether a process works in a run's folder, as the one that writes its result."""
    try:
        with open(path / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def folders_near(path: Path | None) -> list[Path]:
    """All run folders beside `path` and below `runs/`, newest first."""
    roots = {root.resolve(): root for root in (RUNS, *([path.parent] if path is not None else []))}
    found = [folder for root in roots.values() if root.is_dir() for folder in root.iterdir()]
    return sorted((f for f in found if f.is_dir()), key=_age, reverse=True)


def newest_search(name: str, target: Architecture, near: Path) -> SearchResult | None:
    """The newest search result for a target at its resolution: best.json and what it says.

    What a search down found is no network to train a target in, and passed over.
    """
    for folder in folders_near(near):
        path = folder / "best.json"
        if path.is_file():
            best = read_best(path)
            if is_down(best):
                continue
            found = best["architecture"]
            size = found.get("resolution"), found.get("in_channels", 3)
            if best["target"] == name and size == (target.resolution, target.in_channels):
                return path, best
    return None


def read_best(path: Path) -> dict[str, Any]:
    """A search's best.json. Raises: ValueError if it is none; FileNotFoundError."""
    try:
        best = read_json_object(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a search result ({error})") from None
    needed = {"architecture", "macs", "budget_macs"} | ({"target"} if not is_down(best) else set())
    if not needed <= best.keys() or not isinstance(best["architecture"], dict):
        raise ValueError(f"{path} is not a search result: it needs {', '.join(sorted(needed))}")
    return best


def is_down(best: Mapping[str, Any]) -> bool:
    """Whether a search's result is a network that was found by itself, in a table."""
    return best.get("direction") == "down"


def _short(target: str) -> str:
    """A target in a folder's name: its own, its file's, or that of the search that found it."""
    path = Path(target)
    return path.parent.name if path.name == "best.json" and path.parent.name else path.stem


def _newest_alike(command: str, text: str) -> Path | None:
    for folder in folders_near(None):
        config = folder / "config.yaml"
        alike = f"-{command}-" in folder.name and config.is_file()
        if alike and not _differences(config, text):
            return folder
    return None


def _differences(config: Path, text: str) -> list[str]:
    """`KEY: VALUE` of a saved configuration that `text` has otherwise. Those in MAY_DIFFER may. A
    key that is absent, as in runs of a release that did not have it, is the same as null.

    Raises: ValueError naming a damaged file.
    """
    theirs, mine = read_yaml(config), yaml.safe_load(text)
    pairs = [dict(_flat(values)) for values in (theirs, mine)]
    keys = sorted((set(pairs[0]) | set(pairs[1])) - MAY_DIFFER)
    absent = "absent"
    # A password in a database's URL is not for the screen.
    shown = {**pairs[0], "storage": storage_name(str(pairs[0].get("storage")))}
    return [
        f"{key}: {shown.get(key, absent)}" for key in keys if pairs[0].get(key) != pairs[1].get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_config(path: Path, text: str, resume: bool) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out must be a folder, but {path} is a file")
    config = path / "config.yaml"
    if not config.exists():
        if path.is_dir() and any(path.iterdir()):
            raise ValueError(f"{path} is not empty and holds no run; choose another --out")
        return
    if not resume:
        raise ValueError(
            f"{path} holds a run; add --resume to go on with it, or choose another --out"
        )
    differing = _differences(config, text)
    if differing:
        said = f" ({differing[0]} there)"
        raise ValueError(
            f"{path} holds a run with another configuration{said}; choose another --out"
        )


def lock_folder(path: Path, remedy: str = "choose another --out") -> IO[str]:
    """Held until it is closed or the process ends, however it ends: the kernel releases it.

    Raises: InUse, with the remedy, if another process holds it.
    """
    lock = open(path / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InUse(f"another process is working in {path}; {remedy}") from None
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _unused(path: Path) -> Path:
    names = (path if n == 0 else path.with_name(f"{path.name}-{n}") for n in range(1000))
    return next(name for name in names if not name.exists())


def _age(folder: Path) -> tuple[float, str]:
    marker = folder / "best.json"
    return (marker if marker.exists() else folder).stat().st_mtime, folder.name
