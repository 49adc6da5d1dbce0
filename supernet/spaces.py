"""The spaces that have a name: tables of choices in configs/spaces, one a file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nasaug.supernet.names import did_you_mean
from nasaug.supernet.space import SearchSpace


def load_space(
    name: str | Path,
    num_classes: int = 1000,
    resolution: int | None = None,
    in_channels: int | None = None,
) -> SearchSpace:
    """A named top-down space, or the user's own from a YAML table (a path that ends in .yaml or
    .yml). `resolution` and `in_channels` (1 or 3) replace the table's own where given.

    Raises: ValueError for an unknown name (the nearest is offered) or a table that is wrong;
        FileNotFoundError.
    """
    text = str(name)
    path = Path(text)
    if not text.endswith((".yaml", ".yml")):
        known = space_names()
        if text not in known:
            near = did_you_mean(text, known)
            raise ValueError(f"unknown space {text!r}: {near} (or a YAML table's path)")
        path = _folder() / f"{text}.yaml"
    return SearchSpace.table(path, num_classes, resolution, in_channels)


def space_names() -> tuple[str, ...]:
    """The names that `load_space` knows."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def _folder() -> Path:
    return Path(str(files("nasaug.configs").joinpath("spaces")))
