"""Which weights file a person means: a run, a file, or weights that come with nasaug."""

from __future__ import annotations

from pathlib import Path

from nasaug.console import say
from nasaug.detection import holds_detector
from nasaug.training import shipped_names, shipped_weights


def given_weights(place: str, detectors: bool = False) -> Path:
    """The weights in a finished run's folder (or beside the best.json in it), or a file itself.
    Where there is no such path, the weights that nasaug ships by that name; then that is said.

    Raises: ValueError if there is none, and for a detector's unless `detectors` will do.
    """
    path = Path(place)
    path = path.parent if path.name == "best.json" else path
    path = path / "weights.safetensors" if path.is_dir() else path
    if path.exists():
        if not detectors and path.suffix == ".safetensors" and holds_detector(path):
            raise ValueError(
                f"{path} holds a detector, and a network for classes is needed; name the training "
                "that the detector began with, or use nasaug detect"
            )
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
