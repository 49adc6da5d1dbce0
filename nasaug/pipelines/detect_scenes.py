"""Scenes to try detection on, where no data set of photographs is at hand."""

from __future__ import annotations

from collections.abc import Mapping

from nasaug.console import emit_json, say
from nasaug.detection import SceneStyle, write_scenes
from nasaug.search import parse_band
from nasaug.training import load_dataset


def run_scenes(
    folder: str,
    kind: str,
    items: str,
    data_dir: str | None,
    counts: Mapping[str, int],
    size: str,
    colour: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Raises: ValueError for a folder that is not empty, unknown names, wrong counts and sizes."""
    try:
        low, high = parse_band(size)
    except ValueError:
        raise ValueError(
            f"--size must be a number of pixels such as 128, or 96..256, but got {size!r}"
        ) from None
    style = SceneStyle(sizes=(low or high, high), colour=colour)
    path = write_scenes(folder, kind, counts, load_dataset(items, data_dir), style, seed)
    if as_json:
        emit_json({"folder": str(path), "format": kind, **counts})
        return
    many = ", ".join(f"{number:,} {part}" for part, number in counts.items())
    say(f"{many} scenes are in {path}; next: nasaug detect train --data {kind}:{path}")
