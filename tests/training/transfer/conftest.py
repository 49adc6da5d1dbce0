"""Small data sets in the on-disk formats of the five that networks are transferred to: folders,
lists, MATLAB files and archives as their authors and torchvision lay them out."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

# (image file, label from 0, part): what was written, in the order of the lists.
Written = list[tuple[Path, int, str]]


def _picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_food101(root: Path) -> Written:
    """meta/train.json and test.json: class -> names without an ending."""
    folder = root / "food-101"
    written: Written = []
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        lists: dict[str, list[str]] = {}
        # Not in order, as classes are by their names.
        for name, label in (("waffles", 1), ("apple_pie", 0)):
            lists[name] = [f"{name}/{1000 * label + number}" for number in numbers]
            for entry in lists[name]:
                path = _picture(folder / "images" / f"{entry}.jpg", len(written))
                written.append((path, label, part))
        (folder / "meta").mkdir(exist_ok=True)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(lists))
    return written


def write_flowers102(root: Path) -> Written:
    """setid.mat: trnid, valid and tstid; imagelabels.mat: labels from 1, of images from 1."""
    folder = root / "flowers-102"
    labels = [1, 3, 3, 1, 3, 1, 102, 102]
    ids = {"train": [2, 4, 7], "val": [1, 3], "test": [5, 6, 8]}
    images = {
        number: _picture(folder / "jpg" / f"image_{number:05d}.jpg", number)
        for number in range(1, len(labels) + 1)
    }
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    keys = {"train": "trnid", "val": "valid", "test": "tstid"}
    sets = {keys[part]: np.array([numbers], np.uint16) for part, numbers in ids.items()}
    savemat(folder / "setid.mat", sets)
    return [(images[n], labels[n - 1] - 1, part) for part in ids for n in ids[part]]


def write_cars(root: Path) -> Written:
    """Structs with a box, a class from 1 and a file's name; the test images' labels apart."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")
    kinds = [*((field, "O") for field in fields), ("fname", "O")]
    written: Written = []
    for part, labels, file in (
        ("train", [2, 1, 1, 2, 2, 1], "devkit/cars_train_annos.mat"),
        ("test", [1, 2, 2], "cars_test_annos_withlabels.mat"),
    ):
        rows = []
        for number, label in enumerate(labels, 1):
            path = _picture(folder / f"cars_{part}" / f"{number:05d}.jpg", number)
            written.append((path, label - 1, part))
            rows.append((1, 2, 20, 18, np.uint8(label), path.name))
        savemat(folder / file, {"annotations": np.array([rows], dtype=kinds)})
    return written


def write_cub200(root: Path) -> Written:
    """Four lists of "number text"; class names with their number before them."""
    folder = root / "CUB_200_2011"
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    lists: dict[str, list[str]] = {
        "classes.txt": [f"{n} {name}" for n, name in enumerate(classes, 1)],
        "images.txt": [], "image_class_labels.txt": [], "train_test_split.txt": [],
    }  # fmt: skip
    written: Written = []
    for number in range(1, 13):
        label, trains = number % 3, number % 4 != 0
        name = f"{classes[label]}/Bird_{number:04d}_{number * 7}.jpg"
        path = _picture(folder / "images" / name, number)
        written.append((path, label, "train" if trains else "test"))
        lists["images.txt"].append(f"{number} {name}")
        lists["image_class_labels.txt"].append(f"{number} {label + 1}")
        lists["train_test_split.txt"].append(f"{number} {int(trains)}")
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return written


def write_pets(root: Path) -> Written:
    """annotations/trainval.txt and test.txt: image, class from 1, species, breed within it."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    breeds = ("Abyssinian", "american_bulldog", "Egyptian_Mau")
    written: Written = []
    for part, file, numbers in (("train", "trainval", range(3)), ("test", "test", range(3, 5))):
        lines = []
        for label, breed in enumerate(breeds):
            for number in numbers:
                name = f"{breed}_{100 + number}"
                path = _picture(folder / "images" / f"{name}.jpg", len(written))
                written.append((path, label, part))
                lines.append(f"{name} {label + 1} {1 if breed[0].isupper() else 2} 1\n")
        (folder / "annotations" / f"{file}.txt").write_text("".join(lines))
    return written


WRITERS: dict[str, Callable[[Path], Written]] = {
    "food101": write_food101,
    "flowers102": write_flowers102,
    "cars": write_cars,
    "cub200": write_cub200,
    "pets": write_pets,
}
# Its archives: name, what is in them, and below which folder that is packed.
ARCHIVES: dict[str, Sequence[tuple[str, tuple[str, ...], str]]] = {
    "food101": [("food-101.tar.gz", ("food-101",), "")],
    "flowers102": [("102flowers.tgz", ("jpg",), "flowers-102")],
    "cars": [
        ("car_devkit.tgz", ("devkit",), "stanford_cars"),
        ("cars_train.tgz", ("cars_train",), "stanford_cars"),
        ("cars_test.tgz", ("cars_test",), "stanford_cars"),
    ],
    "cub200": [("CUB_200_2011.tgz", ("CUB_200_2011",), "")],
    "pets": [
        ("images.tar.gz", ("images",), "oxford-iiit-pet"),
        ("annotations.tar.gz", ("annotations",), "oxford-iiit-pet"),
    ],
}


def pack(name: str, root: Path, goal: Path) -> list[Path]:
    """The archives of the data set that lies below `root`, in `goal`."""
    goal.mkdir(parents=True, exist_ok=True)
    made = []
    for archive, entries, below in ARCHIVES[name]:
        with tarfile.open(goal / archive, "w:gz") as file:
            for entry in entries:
                file.add(root / below / entry, entry)
        made.append(goal / archive)
    return made


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest) -> str:
    """Each of the five in turn."""
    chosen: str = request.param
    return chosen


@pytest.fixture(autouse=True)
def _no_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision knows the digests of the real files of Flowers, which no other can have."""
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)


@pytest.fixture
def write() -> Callable[[str, Path], Written]:
    """Writes a small data set of that name into a folder; returns what is in it."""
    return lambda name, root: WRITERS[name](root)


@pytest.fixture
def folder_of() -> Callable[[str], str]:
    """The folder that a data set comes in."""
    return {
        "food101": "food-101",
        "flowers102": "flowers-102",
        "cars": "stanford_cars",
        "cub200": "CUB_200_2011",
        "pets": "oxford-iiit-pet",
    }.__getitem__


@pytest.fixture
def packed(tmp_path: Path) -> Callable[[str, Path], list[Path]]:
    """Puts archives of a small data set into a folder, as they are downloaded; what Flowers has
    beside its archive lies where torchvision looks for it."""

    def make(name: str, goal: Path) -> list[Path]:
        WRITERS[name](tmp_path / "original")
        archives = pack(name, tmp_path / "original", goal)
        if name == "flowers102":
            (goal / "flowers-102").mkdir()
            for file in ("setid.mat", "imagelabels.mat"):
                shutil.copy(tmp_path / "original" / "flowers-102" / file, goal / "flowers-102")
        if name == "cars":
            (goal / "stanford_cars").mkdir()
            file = "cars_test_annos_withlabels.mat"
            shutil.copy(tmp_path / "original" / "stanford_cars" / file, goal / "stanford_cars")
        shutil.rmtree(tmp_path / "original")
        return archives

    return make
