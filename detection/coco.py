"""COCO folders: one JSON file a part, with the boxes of all its pictures.

The format is that of Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014,
arXiv 1405.0312) and cocodataset.org/#format-data. A box is (x, y, width, height) in edges from 0,
so that nothing is added or taken away. Numbers of categories have gaps (COCO's 80 end at 90):
labels are 0 .. K - 1 in the order of the numbers, and `category_ids` leads back.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

from nasaug.detection.annotated import AnnotatedImage, AnnotatedImages
from nasaug.detection.faults import Faults, fitted_box
from nasaug.detection.parts import Object, Parts, annotated
from nasaug.detection.picture import picture_fault
from nasaug.training import read_json_object

YEAR = "2017"


def read_coco(
    path: Path, classes: tuple[str, ...] | None, faults: Faults, check_pictures: bool
) -> Parts:
    """`PATH/annotations/instances_train2017.json` and `val2017`, pictures in `PATH/train2017` and
    `PATH/val2017` (or `PATH/images/train2017`). The year may be another one, or none.

    `val` is the test part, as COCO's own test pictures have no published boxes; where there is
    `instances_test2017.json` as well, each means what it says.

    Raises: ValueError for a file that is missing or damaged, a part without pictures, categories
        that are there twice or that differ between parts.
    """
    files = {kind: _annotations(path, kind) for kind in ("train", "val", "test")}
    train, rest = files["train"], [files[kind] for kind in ("val", "test") if files[kind]]
    if train is None or not rest:
        raise ValueError(
            f"{path} is no COCO data: it needs {path / 'annotations'}/instances_train{YEAR}.json "
            f"and instances_val{YEAR}.json"
        )
    names: dict[int, str] | None = None
    parts = []
    for file in (train, *rest):
        assert file is not None
        content = read_json_object(file)
        own = _categories(file, content)
        if names is not None and own != names:
            raise ValueError(f"{file} has other categories than {train}; both need the same ones")
        names = own
        if classes is None:
            classes = tuple(own[number] for number in sorted(own))
        parts.append(_part(file, content, own, classes, faults, check_pictures))
    assert names is not None and classes is not None
    number_of = {name: number for number, name in names.items()}
    missing = next((name for name in classes if name not in number_of), None)
    if missing is not None:
        raise ValueError(f"{train} has no category {missing!r}, which is one of the classes")
    numbers = tuple(number_of[name] for name in classes)
    return Parts(parts[0], parts[1] if len(parts) == 3 else None, parts[-1], classes, numbers)


def _annotations(path: Path, kind: str) -> Path | None:
    """The file of a part. Raises: ValueError where there are several and none is of 2017."""
    found = sorted((path / "annotations").glob(f"instances_{kind}*.json"))
    wanted = [file for file in found if file.stem == f"instances_{kind}{YEAR}"] or found
    if len(wanted) > 1:
        raise ValueError(
            f"{path / 'annotations'} has several files of {kind} ({found[0].name}, "
            f"{found[1].name}), and it is not clear which to read; leave one there"
        )
    return wanted[0] if wanted else None


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Names by number. Raises: ValueError for none, and for a number or name there twice."""
    names: dict[int, str] = {}
    for entry in _entries(file, content, "categories"):
        number, name = entry.get("id"), entry.get("name")
        if not _whole(number) or not isinstance(name, str):
            raise ValueError(f"{file}: a category needs an id and a name, but one is {entry}")
        if number in names or name in names.values():
            raise ValueError(
                f"{file}: category {number} ({name}) is there twice, by its id or its name; each "
                "needs its own"
            )
        names[number] = name
    if not names:
        raise ValueError(f"{file} has no categories; at least one is needed")
    return names


def _entries(file: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} is damaged: it must hold a list of objects under {key!r}")
    return entries


def _part(
    file: Path,
    content: dict[str, Any],
    names: dict[int, str],
    classes: tuple[str, ...],
    faults: Faults,
    check_pictures: bool,
) -> AnnotatedImages | None:
    """The pictures of a part in the order of the file, without what is faulty."""
    folder = _picture_folder(file)
    pictures = _pictures(file, content, folder, faults, check_pictures)
    label_of = {number: classes.index(name) for number, name in names.items() if name in classes}
    listed = {entry["id"] for entry in content["images"] if _whole(entry.get("id"))}
    objects: dict[int, list[Object]] = {number: [] for number in pictures}
    seen: set[int] = set()
    for entry in _entries(file, content, "annotations"):
        identity, owner = entry.get("id"), entry.get("image_id")
        where = f"{file}, annotation {identity}"
        if not _whole(owner) or owner not in listed:
            faults.add(where, f"it is of image {owner}, which the file does not list")
            continue
        if owner not in pictures:
            continue  # Its picture is faulty, which has been said.
        if not _whole(identity) or identity in seen:
            faults.add(where, "every annotation needs an id of its own, a whole number")
            continue
        seen.add(identity)
        name, width, height = pictures[owner]
        found = _object(entry, width, height, label_of, names)
        if isinstance(found, str):
            faults.add(f"{where} ({name})", found)
        else:
            objects[owner].append(found)
    images: list[AnnotatedImage] = [
        annotated(str(folder / name), (width, height), objects[number], number)
        for number, (name, width, height) in pictures.items()
    ]
    return AnnotatedImages.of(images) if images else None


def _picture_folder(file: Path) -> Path:
    name = file.stem.removeprefix("instances_")
    top = file.parent.parent
    folder = next((place for place in (top / name, top / "images" / name) if place.is_dir()), None)
    if folder is None:
        raise ValueError(f"{top / name} is missing: the pictures of {file} lie there")
    return folder


def _pictures(
    file: Path, content: dict[str, Any], folder: Path, faults: Faults, check_pictures: bool
) -> dict[int, tuple[str, int, int]]:
    """(file name, width, height) by the image's id.

    Raises: ValueError where there is not one entry.
    """
    entries = _entries(file, content, "images")
    if not entries:
        raise ValueError(f"{file} lists no picture; a part needs at least one")
    pictures: dict[int, tuple[str, int, int]] = {}
    files: set[str] = set()
    for entry in entries:
        number, name = entry.get("id"), entry.get("file_name")
        width, height = entry.get("width"), entry.get("height")
        where = f"{file}, image {number} ({name})"
        if not _side(width) or not _side(height) or not _whole(number) or not isinstance(name, str):
            faults.add(where, "an image needs an id, a file_name, a width and a height")
        elif number in pictures or name in files:
            faults.add(where, "every image needs an id and a file of its own")
        elif not (folder / name).is_file():
            faults.add(where, f"the picture {folder / name} is missing")
        elif check_pictures and (fault := picture_fault(folder / name, width, height)):
            faults.add(where, fault)
        else:
            pictures[number] = name, width, height
            files.add(name)
    return pictures


def _object(
    entry: dict[str, Any], width: int, height: int, label_of: dict[int, int], names: dict[int, str]
) -> Object | str:
    """One annotation, or what is wrong with it."""
    box, category = entry.get("bbox"), entry.get("category_id")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
        return f"a bbox must be [x, y, width, height], but is {box}"
    if not _whole(category) or category not in label_of:
        called = names.get(category, category) if _whole(category) else category
        return f"category {called!r} is none of the {len(label_of)} classes"
    x, y, across, down = box
    edges, fault = fitted_box((x, y, x + across, y + down), width, height)
    if fault:
        return fault
    area = entry.get("area", across * down)
    if not _number(area) or not 0 <= area < math.inf:
        return f"an area must be a finite number of at least 0, but is {area}"
    return edges, label_of[category], area, False, bool(entry.get("iscrowd", 0))


def _whole(value: object) -> TypeGuard[int]:
    """A number that a tensor holds."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _side(value: object) -> TypeGuard[int]:
    return _whole(value) and value > 0


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) or _whole(value)
