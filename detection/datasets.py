"""Detection data by name: `voc:PATH` and `coco:PATH`, each as three parts kept apart.

Where the data has no validation part of its own, one is held out of the training part; the test
part is what papers report on. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from nasaug.detection.annotated import AnnotatedImages, DetectionSet
from nasaug.detection.coco import read_coco
from nasaug.detection.faults import Faults
from nasaug.detection.parts import Parts
from nasaug.detection.voc import read_voc
from nasaug.supernet import did_you_mean

SPLIT_SEED = 0
# Path, classes if given, where faults go, whether pictures are looked at.
Reader = Callable[[Path, tuple[str, ...] | None, Faults, bool], Parts]
READERS: dict[str, Reader] = {"voc": read_voc, "coco": read_coco}


def load_detection_set(
    name: str,
    validation: float = 0.1,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_pictures: bool = True,
) -> DetectionSet:
    """The set `voc:PATH` or `coco:PATH` (see `READERS`, and each reader for what it looks for).

    `validation` is the share of the training pictures held out, the same every time, where the data
    has no validation part of its own. `classes` are the names to learn, in the order of their
    labels, instead of the data's own. Annotations are checked; with `skip_bad` what is wrong is
    left out (an object, or a whole picture where its file is), logged and told in `skipped`.
    `check_pictures` compares every picture's size with its annotation, which opens every file once.

    Raises: ValueError for an unknown kind of data, and for data that is missing, empty or faulty,
        naming the file and the object in it.
    """
    kind, colon, place = name.partition(":")
    if kind not in READERS:
        raise ValueError(
            f"unknown detection data {name!r}: {did_you_mean(kind, READERS)} (voc:PATH, coco:PATH)"
        )
    if not colon or not place:
        raise ValueError(f"detection data needs the folder it lies in: {kind}:PATH")
    if not 0 < validation < 1:
        raise ValueError(f"validation must be a share between 0 and 1, but got {validation}")
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise ValueError(f"classes must be different names, at least one, but got {list(classes)}")
    faults = Faults(name)
    parts = READERS[kind](
        Path(place), None if classes is None else tuple(classes), faults, check_pictures
    )
    skipped = faults.settle(skip_bad)
    train, held, test = parts.train, parts.validation, parts.test
    if train is None or test is None:
        empty = "training" if train is None else "test"
        raise ValueError(
            f"{name}: nothing is left of the {empty} part, as all of its pictures are faulty "
            f"({skipped[0]})"
        )
    if held is None:
        train, held = held_out(train, validation)
    _check_apart(name, {"training": train, "validation": held, "test": test})
    return DetectionSet(name, parts.classes, parts.category_ids, train, held, test, skipped)


def held_out(part: AnnotatedImages, share: float) -> tuple[AnnotatedImages, AnnotatedImages]:
    """(kept, held out) pictures: `share` of them, at least one, drawn alike every time.

    Raises: ValueError for a part of one picture.
    """
    if len(part) < 2:
        raise ValueError("a single training picture leaves none to validate on; two are needed")
    count = min(max(1, round(share * len(part))), len(part) - 1)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return part.subset(order[count:].sort().values), part.subset(order[:count].sort().values)


def _check_apart(name: str, parts: dict[str, AnnotatedImages]) -> None:
    """Raises: ValueError for a picture in two parts: it would be judged by what it was taught."""
    owner: dict[bytes, str] = {}
    for kind, part in parts.items():
        for path in part.paths.tolist():
            other = owner.setdefault(path, kind)
            if other != kind:
                raise ValueError(
                    f"{name}: {path.decode(errors='replace')} is in the {other} and the {kind} "
                    "part; it belongs to one of them only"
                )
