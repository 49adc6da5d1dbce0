"""Where a target's weights start when they are not fresh: at those of a run, or of a file.

Fine-tuning what a search down found begins with the weights that it inherited (Once-for-All,
Section 3.4); a finished training can be gone on with in the same way, by another recipe.
"""

from __future__ import annotations

from pathlib import Path

from nasaug.supernet import Architecture, Network
from nasaug.training import load_weights


def started_from(place: str, target: Architecture) -> Network:
    """`target` with the weights of `place`: a finished run's folder (or the best.json in it), or a
    weights file.

    Raises: ValueError if there are none, or they are of another network; the resolution may
        differ.
    """
    path = Path(place)
    path = path.parent if path.name == "best.json" else path
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"--init {place}: {path} does not exist; name a finished run's folder or a weights "
            "file, or choose fresh or supernet"
        )
    theirs = load_weights(path)
    difference = _difference(theirs.arch.canonical(), target.canonical())
    if difference is not None:
        raise ValueError(
            f"--init {place}: the weights are not of {target.name}, but of {theirs.arch.name}: "
            f"{difference}; choose the --target that they are of (a search down: its folder), or "
            "leave --init out"
        )
    net = Network(target.canonical(), init=None)
    net.load_state_dict(theirs.state_dict())
    return net


def _difference(theirs: Architecture, ours: Architecture) -> str | None:
    """In a few words, what tells two networks apart besides their resolution."""
    if theirs.in_channels != ours.in_channels:
        return f"they read {theirs.in_channels} channels, not {ours.in_channels}"
    if len(theirs.rows) != len(ours.rows):
        return f"they have {len(theirs.rows)} rows, not {len(ours.rows)}"
    for name, row, own in zip(ours.row_names, theirs.rows, ours.rows, strict=True):
        if name == "classifier" and row != own:
            return f"they tell {theirs.num_classes} classes apart, not {ours.num_classes}"
        if row != own:
            return f"{name} differs"
    return None
