"""Which weights file a person means: a run, a file, or weights that come with nasaug."""

from __future__ import annotations

from pathlib import Path

from nasaug.console import say
from nasaug.training import shipped_names, shipped_weights


def given_weights(place: str) -> Path:
    """The weights in a finished run's folder (or beside the best.json in it), or a file itself.
    Where there is no such path, the weights that nasaug ships by that name; then that is said.

    Raises: ValueError if there is none.
    """
    path = Path(place)
    path = path.parent if path.name == "best.json" else path
    path = path / "weights.safetensors" if path.is_dir() else path
    if path.exists():
        return path
    shipped = None if Path(place).exists() else shipped_weights(place)
    if shipped is None:
        names = shipped_names()
        theirs = f", or weights that nasaug ships ({', '.join(names)})" if names else ""
        raise ValueError(
            f"{path} does not exist; name a finished run's folder or a weights file{theirs}"
        )
    say(f"{place}: the weights that nasaug ships for it")
    return shipped
