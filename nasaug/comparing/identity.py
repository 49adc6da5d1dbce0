"""What a cell is known by: a digest of all that it trains, so that every study finds it again.

Two cells are one where their configurations are, whatever a study calls them. Keys that decide
neither a number nor a second are left out. A file counts by its content and another cell by its
identity, so that no path is part of it. Keys that are null are left out too: an option that a later
release adds, null by default, leaves the cells of this one known.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from nasaug.config import RunConfig
from nasaug.detect_config import DetectConfig
from nasaug.train_config import TrainConfig

# Where data and caches lie, and what else is written.
LEFT_OUT = ("data.dir", "data.download", "distill.cache_dir", "tensorboard")
# Keys that may hold a path, and the file that is read where it is a folder's.
PATHS = {
    "target": "",
    "largest": "best.json",
    "netaug.largest": "best.json",
    "distill.teacher": "weights.safetensors",
    "init": "weights.safetensors",
    "space.table": "",
    "latency_table": "",
}
BYTES = 4  # eight digits; the readable part tells most cells apart already


def identity(config: RunConfig, cells: Path) -> str:
    """The name of a cell's folder: TARGET-METHOD-eEPOCHS-lrRATE-sSEED-DIGEST, METHOD being the
    training's own, `search`, or `detectSIZE-` and the detector's. `cells` is the folder in which
    cells lie.

    Raises: OSError for a file that cannot be read.
    """
    values = config.model_dump(mode="json")
    for key in LEFT_OUT:
        _replace(values, key, lambda value: None)
    for key, inside in PATHS.items():
        _replace(values, key, functools.partial(_without_path, inside=inside, cells=cells))
    # Pictures that lie beside the cells are called by where there.
    _replace(values, "data.name", lambda name: name.replace(f":{cells}{os.sep}", ":"))
    method = config.method if isinstance(config, TrainConfig) else "search"
    if isinstance(config, DetectConfig):
        method = f"detect{config.detector.size}-{config.method}"
    recipe = config.train
    readable = f"{Path(config.target).stem}-{method}-e{recipe.epochs}-lr{recipe.lr!r}"
    values = {"command": type(config).__name__, **without_nulls(values)}
    text = json.dumps(values, sort_keys=True)
    return f"{readable}-s{config.seed}-{_digest(text.encode())}"


def without_nulls(values: Any) -> Any:
    """A configuration's values without those that are null, and sections of nothing else."""
    if isinstance(values, dict):
        kept = {key: without_nulls(value) for key, value in values.items()}
        return {key: value for key, value in kept.items() if value not in (None, {})}
    if isinstance(values, list):
        return [without_nulls(value) for value in values]
    return values


def is_table(target: str) -> bool:
    """Whether a target is one's own table, rather than a name."""
    return target.endswith((".yaml", ".yml"))


def table_digest(target: str) -> str:
    """Of a table's content. Raises: OSError."""
    return _file_digest(Path(target))


def _replace(values: dict[str, Any], key: str, change: Any) -> None:
    """Change the value of a dotted key, where there is one."""
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        inner = inner.get(parent) or {}
    if inner.get(last) is not None:
        inner[last] = change(inner[last])


def _without_path(value: str, inside: str, cells: Path) -> str:
    """A cell's identity, a file's name and digest, or the value itself where it is no path."""
    library, at, file = value.partition("@")  # torchvision:NAME@FILE
    path = Path(file if at else value)
    if path.is_relative_to(cells):
        return path.relative_to(cells).as_posix()  # another cell, or a file that it makes
    path = path / inside if inside and path.is_dir() else path
    if not path.is_file():
        return value  # a name, or a mistake that the check of cells tells
    # A table without a name of its own is called as its file.
    return f"{library if at else ''}{path.name}:{_file_digest(path)}"


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of_file(path.resolve(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _digest_of_file(path: Path, changed: int, size: int) -> str:
    """Remembered, since every cell of a study may have the same teacher."""
    return _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=BYTES).hexdigest()
