"""ImageNet and ImageNet-21K-P as they lie on disk: where they are looked for, how they are read.

A folder for each class, named by its WordNet id (`train/n01440764/*.JPEG`), for `train` and `val`.
`val` is the test part; the validation part is held out of `train`. ImageNet's own archive of
validation images has no folders: it is read with the table of Kaggle's edition, which puts the data
in ILSVRC/Data/CLS-LOC and `LOC_val_solution.csv` (ImageId, then the class first in
PredictionString) at the top. ImageNet-21K-P (Ridnik et al., arXiv 2104.10972) comes as
`imagenet21k_train` and `imagenet21k_val`.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import torch

from nasaug.training.folders import ImagePaths, image_files_below, read_image_folder
from nasaug.training.parts import Builder, Parts

# A place, below a folder where data is looked for, and its folders of training and test images.
Layout = tuple[str, str, str]
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "imagenet": tuple(
        (place, "train", "val") for place in ("", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
    ),
    "imagenet21k-p": tuple(
        (place, f"{prefix}train", f"{prefix}val")
        for place in ("", "imagenet21k-p", "imagenet21k_resized")
        for prefix in ("imagenet21k_", "")
    ),
}
WORDNET_ID = re.compile(r"n\d{8}")
SOLUTION = "LOC_val_solution.csv"


def imagenet_builder(name: str) -> Builder:
    """What reads the data set `name` of `LAYOUTS`: (roots, download) to (train, test, classes).

    Raises: ValueError where nothing is found, naming where it was looked for, and for images of
        `val` whose class cannot be known, with the remedy.
    """

    def build(roots: list[Path], download: bool) -> Parts:
        for root in roots:
            for place, train_name, test_name in LAYOUTS[name]:
                train, test = root / place / train_name, root / place / test_name
                if _has_classes(train):
                    images, classes = read_image_folder(train)
                    return Parts(images, _test_part(test, classes), classes)
        layouts = dict.fromkeys(f"{train}, {test}" for _, train, test in LAYOUTS[name])
        sub_folders = dict.fromkeys(place for place, _, _ in LAYOUTS[name] if place)
        raise ValueError(
            f"{name} was not found (folders {' or '.join(layouts)} with folders of classes such as "
            f"n01440764, in {', '.join(map(str, roots))} or its {', '.join(sub_folders)}): name "
            "its folder with --data-dir or $NASAUG_DATA; it cannot be downloaded without an "
            "account of image-net.org"
        )

    return build


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(
        WORDNET_ID.fullmatch(entry.name) and entry.is_dir() for entry in folder.iterdir()
    )


def _test_part(folder: Path, classes: tuple[str, ...]) -> ImagePaths:
    """The images of `folder`, by their folders or, where they have none, by Kaggle's table."""
    if not folder.is_dir():
        raise ValueError(f"{folder.parent} has training images, but {folder} is not a folder")
    if any(entry.is_dir() for entry in folder.iterdir()):
        return read_image_folder(folder, classes)[0]
    # In ILSVRC/Data/CLS-LOC/val the table lies three folders further up than val's own.
    tables = [above / SOLUTION for above in list(folder.parents)[:4]]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise ValueError(
            f"{folder} has no folder of a class in it, so its images have no labels: put them "
            "into folders of their classes, as train has them (torchvision.datasets.ImageNet does "
            f"so from the archives), or put Kaggle's {SOLUTION} into {folder.parent}"
        )
    return _by_table(folder, table, classes)


def _by_table(folder: Path, table: Path, classes: tuple[str, ...]) -> ImagePaths:
    """Raises: ValueError for an image that the table lacks, and for a class not in `classes`."""
    label_of = {name: label for label, name in enumerate(classes)}
    class_of = _read_table(table)
    paths = image_files_below(folder)
    if not paths:
        raise ValueError(f"{folder} has no images in it")
    labels = []
    for path in paths:
        name = class_of.get(Path(path).stem)
        if name is None:
            raise ValueError(f"{table} does not list {path}")
        if name not in label_of:
            raise ValueError(f"{table} has {path} of class {name!r}, which train has no folder of")
        labels.append(label_of[name])
    return ImagePaths(tuple(paths), torch.tensor(labels))


def _read_table(path: Path) -> dict[str, str]:
    """The class of each image by its name. Raises: ValueError for another kind of file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, restval="")
            if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
                raise ValueError("it must have the columns ImageId and PredictionString")
            return {row["ImageId"]: row["PredictionString"].partition(" ")[0] for row in rows}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not Kaggle's table of validation images: {error}") from None
