"""The scenes of a study: made once, beside its cells, and known by their settings.

    CELLS/VERSION/scenes/FORMAT-DIGEST/     the folder that readers of VOC or COCO know
    CELLS/VERSION/scenes/FORMAT-DIGEST.new/ while it is being made
    CELLS/VERSION/scenes/FORMAT-DIGEST.lock held by who makes it

All studies that ask for the same scenes share them, and a cell's identity, which holds the place of
its pictures, holds these settings. Scenes to train on are composed of training images, those to
judge by of test images (see `nasaug.detection.write_scenes`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path

from nasaug.comparing.identity import without_nulls
from nasaug.console import say
from nasaug.detect_study_config import ScenesSection
from nasaug.detection import SceneStyle, write_scenes
from nasaug.training import load_dataset

SCENES = "scenes"


def scenes_folder(scenes: ScenesSection, root: Path) -> Path:
    """Where they lie; `root` is the folder in which cells do."""
    text = json.dumps(without_nulls(scenes.model_dump(mode="json")), sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return root / SCENES / f"{scenes.format}-{digest}"


def scene_style(scenes: ScenesSection) -> SceneStyle:
    """Raises: ValueError for sizes, objects and scales out of their ranges."""
    return SceneStyle(scenes.size, scenes.objects, scenes.scales, colour=not scenes.grey)


def make_scenes(scenes: ScenesSection, folder: Path, data_dir: str | None) -> None:
    """Make them in `folder`, unless they are there. What was left half made is made anew.

    Raises: ValueError for items that are not there or in colour; OSError.
    """
    style, items = scene_style(scenes), load_dataset(scenes.items, data_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f"{folder.name}.new")
    counts = {"train": scenes.train, "val": scenes.val, "test": scenes.test}
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another study may be making the same
        if folder.is_dir():
            return
        say(f"making {sum(counts.values()):,} scenes in {folder}")
        shutil.rmtree(new, ignore_errors=True)
        try:
            write_scenes(new, scenes.format, counts, items, style, scenes.seed)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
