"""The five data sets that NetAug's networks are transferred to, as they lie on disk.

Food-101 (Bossard et al., ECCV 2014), Oxford 102 Flowers (Nilsback and Zisserman, ICVGIP 2008),
Stanford Cars (Krause et al., 3DRR 2013), CUB-200-2011 (Wah et al., 2011) and Oxford-IIIT Pets
(Parkhi et al., CVPR 2012), with their official training and test parts. Flowers has a validation
part of its own. torchvision reads what it knows; CUB-200-2011 is read here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nasaug.training.archives import unpack
from nasaug.training.cub200 import read_cub200
from nasaug.training.folders import ImagePaths
from nasaug.training.parts import Builder, Parts


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    folder: its folder, below one where data is looked for. needed: files and folders in it.
    archives: names as they are downloaded, each with the folder (below the same) that it is
    unpacked into. read(root): the parts. download(root): torchvision's, where it has one.
    """

    folder: str
    needed: tuple[str, ...]
    archives: dict[str, str]
    read: Callable[[Path], Parts]
    download: Callable[[Path], object] | None = None


def _food101(root: Path) -> Parts:
    from torchvision.datasets import Food101

    train, test = (Food101(root, split, loader=str) for split in ("train", "test"))
    return Parts(_part(train), _part(test), tuple(train.classes))


def _flowers102(root: Path) -> Parts:
    from torchvision.datasets import Flowers102

    splits = ("train", "val", "test")
    train, validation, test = (Flowers102(root, split, loader=str) for split in splits)
    return Parts(_part(train), _part(test), tuple(Flowers102.classes), _part(validation))


def _cars(root: Path) -> Parts:
    from torchvision.datasets import StanfordCars

    train, test = (StanfordCars(root, split, loader=str) for split in ("train", "test"))
    return Parts(_part(train), _part(test), tuple(map(str, train.classes)))


def _pets(root: Path) -> Parts:
    from torchvision.datasets import OxfordIIITPet

    train, test = (OxfordIIITPet(root, split) for split in ("trainval", "test"))
    # The one of the four that has no `loader`: asked for an item it would decode the picture.
    parts = [
        ImagePaths(tuple(map(str, data._images)), torch.tensor(data._labels, dtype=torch.int64))
        for data in (train, test)
    ]
    return Parts(parts[0], parts[1], tuple(train.classes))


def _part(data: Any) -> ImagePaths:
    """Of a data set of torchvision's whose `loader` hands back the path."""
    items = [data[index] for index in range(len(data))]
    paths = tuple(path for path, _ in items)
    return ImagePaths(paths, torch.tensor([int(label) for _, label in items], dtype=torch.int64))


def _downloads(name: str) -> Callable[[Path], object]:
    def download(root: Path) -> object:
        from torchvision import datasets

        return getattr(datasets, name)(root, download=True)

    return download


LAYOUTS: dict[str, Layout] = {
    "food101": Layout(
        "food-101",
        ("meta/train.json", "meta/test.json", "images"),
        {"food-101.tar.gz": ""},
        _food101,
        _downloads("Food101"),
    ),
    "flowers102": Layout(
        "flowers-102",
        ("setid.mat", "imagelabels.mat", "jpg"),
        {"102flowers.tgz": "flowers-102"},
        _flowers102,
        _downloads("Flowers102"),
    ),
    "cars": Layout(
        "stanford_cars",
        (
            "devkit/cars_meta.mat", "devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat", "cars_train", "cars_test",
        ),
        {
            "car_devkit.tgz": "stanford_cars", "cars_train.tgz": "stanford_cars",
            "cars_test.tgz": "stanford_cars",
        },
        _cars,
    ),
    "cub200": Layout(
        "CUB_200_2011",
        (
            "images.txt", "train_test_split.txt", "image_class_labels.txt", "classes.txt", "images",
        ),
        {"CUB_200_2011.tgz": ""},
        read_cub200,
    ),
    "pets": Layout(
        "oxford-iiit-pet",
        ("annotations/trainval.txt", "annotations/test.txt", "images"),
        {"images.tar.gz": "oxford-iiit-pet", "annotations.tar.gz": "oxford-iiit-pet"},
        _pets,
        _downloads("OxfordIIITPet"),
    ),
}  # fmt: skip


def transfer_builder(name: str) -> Builder:
    """What reads the data set `name` of `LAYOUTS`: (roots, download) to its parts.

    A root holds the data set's folder, or is it. With `download`, archives that lie there are
    unpacked into the last root (one is enough to begin with), and where there are none torchvision
    downloads what it offers.

    Raises: ValueError naming the file that is missing or damaged, where it was looked for and what
        helps.
    """
    layout = LAYOUTS[name]

    def build(roots: list[Path], download: bool) -> Parts:
        places = [_holder(root, layout) for root in roots]
        found = next((place for place in places if not _missing(place, layout)), None)
        if found is None and download:
            found = _fetched(name, places)
        if found is None:
            raise ValueError(_not_found(name, places))
        try:
            parts = layout.read(found)
        except Exception as error:  # a damaged list can fail anywhere inside torchvision
            said = repr(error) if isinstance(error, LookupError) else str(error)
            lists = ", ".join(needed for needed in layout.needed if "." in needed)
            raise ValueError(
                f"{name} in {found / layout.folder} cannot be used ({said}): of its lists "
                f"({lists}) one is damaged; unpack or download them again"
            ) from None
        _check(name, found / layout.folder, parts)
        return parts

    return build


def _holder(root: Path, layout: Layout) -> Path:
    """The folder that has the data set's own in it: `root`, or the one above where that is it."""
    return root.parent if root.name == layout.folder and not (root / root.name).is_dir() else root


def _missing(place: Path, layout: Layout) -> list[Path]:
    paths = [place / layout.folder / name for name in layout.needed]
    return [path for path in paths if not path.exists()]


def _archives(place: Path, layout: Layout) -> list[Path]:
    """Those that lie in a place, or in the data set's folder there."""
    folders = (place, place / layout.folder)
    found = [folder / name for name in layout.archives for folder in folders]
    return [path for path in found if path.is_file()]


def _fetched(name: str, places: list[Path]) -> Path | None:
    """Unpack what lies there; else download it. Returns the place of the whole, or None."""
    layout, goal = LAYOUTS[name], places[-1]
    for place in places:
        for archive in _archives(place, layout):
            unpack(archive, goal / layout.archives[archive.name])
    if _missing(goal, layout) and layout.download is not None:
        try:
            layout.download(goal)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be downloaded to {goal}: {error}") from None
    return None if _missing(goal, layout) else goal


def _not_found(name: str, places: list[Path]) -> str:
    layout = LAYOUTS[name]
    begun = next((place for place in places if (place / layout.folder).is_dir()), None)
    packed = [archive for place in places for archive in _archives(place, layout)]
    if begun is not None:
        said = f"{name} in {begun / layout.folder} is not complete: {_missing(begun, layout)[0]} "
        said += "is missing"
    else:
        looked = ", ".join(str(place / layout.folder) for place in places)
        said = f"{name} was not found (looked for {looked})"
    if packed:
        return (
            f"{said}, but {packed[0]} is there and not unpacked: add --download, which unpacks it "
            f"into {places[-1] / layout.archives[packed[0].name]}"
        )
    offer = (
        "or allow the download with --download"
        if layout.download is not None
        else f"torchvision offers no download, so get {', '.join(layout.archives)} from its authors"
    )
    return f"{said}: name its folder with {name}:PATH, --data-dir or $NASAUG_DATA; {offer}"


def _check(name: str, folder: Path, parts: Parts) -> None:
    """Raises: ValueError for an empty part, a class without a name, a missing image."""
    for title, part in (
        ("training", parts.train), ("validation", parts.validation), ("test", parts.test),
    ):  # fmt: skip
        if part is None:
            continue
        assert isinstance(part, ImagePaths)
        if len(part) == 0:
            raise ValueError(f"{name} in {folder} has no {title} images: its list is empty")
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(parts.classes):
            raise ValueError(
                f"{name} in {folder} has {title} images of classes {low + 1} to {high + 1}, but "
                f"names for {len(parts.classes)}"
            )
        missing = [path for path in part.paths if not Path(path).is_file()]
        if missing:
            raise ValueError(
                f"{name} in {folder} lacks {len(missing):,} of its {len(part):,} {title} images, "
                f"such as {missing[0]}; unpack its images again"
            )
