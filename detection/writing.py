"""Composed scenes as real Pascal VOC and COCO folders, which any tool for these formats reads."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nasaug.detection.scenes import Scene, SceneStyle, compose
from nasaug.supernet import did_you_mean
from nasaug.training import Dataset, ImageArray, write_atomically

PARTS = ("train", "val", "test")
PICTURES = ("jpg", "png")
QUALITY = 95
YEAR = "2017"


def write_scenes(
    folder: str | Path,
    format: str,
    counts: Mapping[str, int],
    items: Dataset,
    style: SceneStyle | None = None,
    seed: int = 0,
    picture: str = "jpg",
) -> Path:
    """Write scenes into `folder`, as `format` "voc" or "coco"; returns it.

    `counts` says how many of "train", "val" and "test". Each part is composed of that part's items
    of the data set `items` alone (`val`: the validation part), so that no item is in two parts. A
    scene is a function of (seed, part, number): both formats show the same ones, and a longer part
    begins as a shorter one does. `picture` is "jpg", as these sets have, or "png", which keeps
    every pixel; files are the same byte for byte where Pillow's version is.

    VOC: JPEGImages, Annotations, ImageSets/Main and, for our reader, labels.txt. COCO:
    annotations/instances_train2017.json and so on, train2017 and so on; `area` is the number of
    pixels seen of an item.

    Raises: ValueError for a folder that is not empty, unknown names and counts below 1.
    """
    folder = Path(folder)
    for what, name, known in (("format", format, WRITERS), ("picture", picture, PICTURES)):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}: {did_you_mean(name, known)}")
    if set(counts) != set(PARTS) or min(counts.values()) < 1:
        raise ValueError(
            f"counts must say how many scenes train, val and test have, at least 1, but got "
            f"{dict(counts)}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} must be a new or an empty folder, but it has something in it")
    sources = dict(zip(PARTS, (items.train, items.validation, items.test), strict=True))
    for part, source in sources.items():
        if not isinstance(source, ImageArray):
            raise ValueError(f"the items of {items.name} ({part}) must be in memory, not in files")
    style = style or SceneStyle()
    scenes = {
        part: _scenes(source, style, f"{seed}/{part}", counts[part])
        for part, source in sources.items()
        if isinstance(source, ImageArray)
    }
    WRITERS[format](folder, scenes, items.classes, picture)
    return folder


def _scenes(source: ImageArray, style: SceneStyle, key: str, count: int) -> Iterator[Scene]:
    return (compose(source, style, random.Random(f"{key}/{i}")) for i in range(count))


def _write_voc(
    folder: Path, parts: Mapping[str, Iterator[Scene]], classes: tuple[str, ...], picture: str
) -> None:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {}
    number = 0
    for part, scenes in parts.items():
        lists[part] = []
        for scene in scenes:
            number += 1
            name = f"{number:06}"
            _save(scene, folder / "JPEGImages" / f"{name}.{picture}")
            text = _voc_annotation(scene, f"{name}.{picture}", classes)
            (folder / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
            lists[part].append(name)
    lists["trainval"] = lists["train"] + lists["val"]
    (folder / "labels.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    # Last: without its lists a folder that is half written is no data.
    for part, names in lists.items():
        write_atomically(folder / "ImageSets" / "Main" / f"{part}.txt", "\n".join(names) + "\n")


def _voc_annotation(scene: Scene, file: str, classes: tuple[str, ...]) -> str:
    """The XML of VOC2007; pixels are counted from 1 and a box's last pixel belongs to it."""
    height, width = scene.pixels.shape[:2]
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, **values: object) -> None:
        for name, value in values.items():
            ElementTree.SubElement(parent, name).text = str(value)

    add(root, folder="VOC2007", filename=file)
    add(ElementTree.SubElement(root, "source"), database="Composed scenes")
    depth = 3 if scene.pixels.ndim == 3 else 1
    add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=depth)
    add(root, segmented=0)
    for (x0, y0, x1, y1), label in zip(scene.boxes, scene.labels, strict=True):
        thing = ElementTree.SubElement(root, "object")
        add(thing, name=classes[label], pose="Unspecified", truncated=0, difficult=0)
        bounds = ElementTree.SubElement(thing, "bndbox")
        add(bounds, xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _write_coco(
    folder: Path, parts: Mapping[str, Iterator[Scene]], classes: tuple[str, ...], picture: str
) -> None:
    files: dict[Path, str] = {}
    image_id = annotation_id = 0
    for part, scenes in parts.items():
        (folder / f"{part}{YEAR}").mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for scene in scenes:
            image_id += 1
            name = f"{image_id:012}.{picture}"
            _save(scene, folder / f"{part}{YEAR}" / name)
            height, width = scene.pixels.shape[:2]
            image = {"id": image_id, "file_name": name, "width": width, "height": height}
            images.append(image | {"license": 1})
            for entry in _coco_annotations(scene):
                annotation_id += 1
                annotations.append({"id": annotation_id, "image_id": image_id, **entry})
        content = {
            "info": {"description": "Composed scenes", "version": "1.0"},
            "licenses": [{"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"}],
            "categories": [
                {"id": label + 1, "name": name, "supercategory": "item"}
                for label, name in enumerate(classes)
            ],
            "images": images,
            "annotations": annotations,
        }
        files[folder / "annotations" / f"instances_{part}{YEAR}.json"] = json.dumps(content)
    (folder / "annotations").mkdir()
    for path, text in files.items():
        write_atomically(path, text)


def _coco_annotations(scene: Scene) -> Iterator[dict[str, Any]]:
    rows = zip(scene.boxes, scene.labels, scene.areas, strict=True)
    for (x0, y0, x1, y1), label, area in rows:
        yield {
            "category_id": label + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": area,
            "iscrowd": 0,
            "segmentation": [],
        }


def _save(scene: Scene, path: Path) -> None:
    from PIL import Image

    options: dict[str, Any] = (
        {"compress_level": 1} if path.suffix == ".png" else {"quality": QUALITY, "subsampling": 0}
    )
    Image.fromarray(scene.pixels).save(path, **options)


Writer = Callable[[Path, Mapping[str, Iterator[Scene]], tuple[str, ...], str], None]
WRITERS: dict[str, Writer] = {"voc": _write_voc, "coco": _write_coco}
