"""Pascal VOC folders: an XML file a picture, lists of pictures for each part.

The format is that of Everingham et al., "The Pascal Visual Object Classes Challenge" (IJCV 2010),
section 3 and its development kit. Pixels are counted from 1 there and a box names its first and its
last pixel: xmin = 1, xmax = 1 is one pixel wide. As edges that is (xmin - 1, ymin - 1, xmax, ymax),
which keeps the widths that VOC's own evaluation uses (xmax - xmin + 1), and so its overlaps.

The XML parser is Python's own. What makes XML files dangerous (entities that grow, or that name
other files) has to be declared in a document type; annotations have none, so a file with one is
refused before anything of it is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from nasaug.detection.annotated import AnnotatedImage, AnnotatedImages
from nasaug.detection.faults import Faults, fitted_box
from nasaug.detection.parts import Parts, annotated
from nasaug.detection.picture import picture_fault

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = Path("ImageSets", "Main")
EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True)
class _Page:
    """An annotation file as it is written, boxes as edges."""

    path: Path
    picture: Path
    width: int
    height: int
    objects: tuple[_Object, ...]


def read_voc(
    path: Path, classes: tuple[str, ...] | None, faults: Faults, check_pictures: bool
) -> Parts:
    """A development kit (`PATH/VOC2007`, `PATH/VOC2012`, or those in `PATH/VOCdevkit`), or one
    folder of the same format (`PATH/Annotations`, `PATH/ImageSets/Main`, `PATH/JPEGImages`).

    A kit is used as papers do: `trainval` of every year to train on, `test` of the first year that
    has it (07+12); with VOC's own classes. In one folder the lists mean what they say: `train`,
    `val` and `test`; without `test`, `val` is the test part. Its classes are the lines of
    `PATH/labels.txt`, or else those that its training annotations name, in alphabetical order.

    Raises: ValueError for a folder, list or part that is missing or empty, naming it.
    """
    if (path / LISTS).is_dir():
        return _read_folder(path, classes, faults, check_pictures)
    kit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = sorted(year for year in kit.glob("VOC*") if (year / LISTS).is_dir())
    if not years:
        raise ValueError(
            f"{path} is no Pascal VOC data: it needs {LISTS} in it, or folders VOC2007 or VOC2012 "
            "that have it"
        )
    tests = [year for year in years if _list(year, "test").is_file()]
    if not tests:
        raise ValueError(
            f"{kit} needs the test list of a year ({_list(years[0], 'test')}), which VOC2007 has; "
            "a single year without it can be read as voc:PATH/VOC2012"
        )
    classes = classes or VOC_CLASSES
    train = [page for year in years for page in _pages(year, "trainval", faults)]
    test = _pages(tests[0], "test", faults)
    parts = [_part(pages, classes, faults, check_pictures) for pages in (train, test)]
    return Parts(parts[0], None, parts[1], classes, tuple(range(1, len(classes) + 1)))


def _read_folder(
    path: Path, classes: tuple[str, ...] | None, faults: Faults, check_pictures: bool
) -> Parts:
    names = [name for name in ("val", "test") if _list(path, name).is_file()]
    if not names:
        raise ValueError(f"{path / LISTS} needs a list val.txt or test.txt beside train.txt")
    train = _pages(path, "train", faults)
    classes = classes or _named_classes(path / "labels.txt")
    if classes is None:
        classes = tuple(sorted({thing.name for page in train for thing in page.objects}))
        if not classes:
            raise ValueError(f"{_list(path, 'train')} lists no picture with an object on it")
    pages = [train, *(_pages(path, name, faults) for name in names)]
    parts = [_part(some, classes, faults, check_pictures) for some in pages]
    validation = parts[1] if len(parts) == 3 else None
    return Parts(parts[0], validation, parts[-1], classes, tuple(range(1, len(classes) + 1)))


def _named_classes(path: Path) -> tuple[str, ...] | None:
    """Raises: ValueError for a file without a name, or with one twice."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} must name different classes, one a line, but has {list(names)}")
    return names


def _list(folder: Path, name: str) -> Path:
    return folder / LISTS / f"{name}.txt"


def _pages(folder: Path, name: str, faults: Faults) -> list[_Page]:
    """The annotations of all pictures that a list names.

    Raises: ValueError for a list that is missing or empty, or that names a picture twice.
    """
    path = _list(folder, name)
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: it lists the pictures of a part") from None
    # Lists of one class have a second column.
    ids = [words[0] for line in lines if (words := line.split())]
    if not ids:
        raise ValueError(f"{path} lists no picture; a part needs at least one")
    if len(set(ids)) < len(ids):
        twice = next(identity for identity, count in Counter(ids).items() if count > 1)
        raise ValueError(f"{path} lists {twice} twice; take one of the lines away")
    try:
        files = os.listdir(folder / "JPEGImages")
    except FileNotFoundError:
        raise ValueError(f"{folder / 'JPEGImages'} is missing: the pictures lie there") from None
    pictures = {os.path.splitext(file)[0]: file for file in sorted(files, reverse=True)}
    pages = []
    for identity in ids:
        annotation = folder / "Annotations" / f"{identity}.xml"
        picture = folder / "JPEGImages" / pictures.get(identity, f"{identity}.jpg")
        if not annotation.is_file():
            faults.add(str(annotation), f"the annotation is missing, though {path} lists it")
        elif identity not in pictures:
            faults.add(str(picture), f"the picture is missing, though {path} lists it")
        else:
            page = _read_page(annotation, picture, faults)
            pages += [page] if page else []
    return pages


class _NoDocumentType(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it declares a document type, which an annotation has no use for")


def _read_page(path: Path, picture: Path, faults: Faults) -> _Page | None:
    """One annotation file, or None for one that cannot be read, which is a fault."""
    try:
        parser = ElementTree.XMLParser(target=_NoDocumentType())
        root = ElementTree.fromstring(path.read_bytes(), parser=parser)
        width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
        if min(width, height) < 1:
            raise ValueError(f"its size must be at least 1 x 1 pixels, but is {width} x {height}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        faults.add(str(path), f"the annotation cannot be read: {error}")
        return None
    objects = []
    for number, node in enumerate(root.findall("object"), 1):
        try:
            # `bndbox` of the object itself: its parts (head, hand, foot) have theirs.
            first_x, first_y, last_x, last_y = (
                float(_text(node, f"bndbox/{edge}")) for edge in EDGES
            )
            difficult = (node.findtext("difficult") or "0").strip() == "1"
            name = _text(node, "name")
        except ValueError as error:
            faults.add(f"{path}, object {number}", f"it cannot be read: {error}")
            continue
        box = (first_x - 1, first_y - 1, last_x, last_y)
        objects.append(_Object(name, box, difficult))
    return _Page(path, picture, width, height, tuple(objects))


def _text(node: ElementTree.Element, path: str) -> str:
    text = (node.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"it has no {path}")
    return text


def _part(
    pages: Iterable[_Page], classes: tuple[str, ...], faults: Faults, check_pictures: bool
) -> AnnotatedImages | None:
    """The pictures of a part, without what is faulty."""
    label_of = {name: label for label, name in enumerate(classes)}
    images: list[AnnotatedImage] = []
    for page in pages:
        if check_pictures:
            fault = picture_fault(page.picture, page.width, page.height)
            if fault:
                faults.add(f"{page.path}", fault)
                continue
        objects = []
        for number, thing in enumerate(page.objects, 1):
            box, fault = fitted_box(thing.box, page.width, page.height)
            if thing.name not in label_of:
                fault = f"{thing.name!r} is none of the {len(classes)} classes"
            if fault:
                faults.add(f"{page.path}, object {number} ({thing.name})", fault)
                continue
            area = (box[2] - box[0]) * (box[3] - box[1])
            objects.append((box, label_of[thing.name], area, thing.difficult, False))
        size = (page.width, page.height)
        images.append(annotated(str(page.picture), size, objects, len(images) + 1))
    return AnnotatedImages.of(images) if images else None
