"""What the tests of this room share: folders in the sets' own formats, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.detection import DetectionSet, load_detection_set, write_scenes
from nasaug.training import Dataset, load_dataset

Write = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clothes() -> Dataset:
    return load_dataset("fashion-mnist-mini")


@pytest.fixture(scope="session")
def coco_scenes(clothes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "coco"
    return write_scenes(folder, "coco", {"train": 24, "val": 6, "test": 5}, clothes, seed=1)


@pytest.fixture(scope="session")
def voc_scenes(clothes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where torchvision looks for VOC2007 below a root."""
    folder = tmp_path_factory.mktemp("scenes") / "VOCdevkit" / "VOC2007"
    return write_scenes(folder, "voc", {"train": 24, "val": 6, "test": 5}, clothes, seed=1)


@pytest.fixture(scope="session")
def scenes(coco_scenes: Path) -> DetectionSet:
    return load_detection_set(f"coco:{coco_scenes}")


def random_picture(path: Path, width: int = 60, height: int = 40, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def write_picture() -> Write:
    return random_picture


@pytest.fixture(scope="session")
def voc_object() -> Callable[..., str]:
    """The text of an object as VOC's files have it: its name, (xmin, ymin, xmax, ymax), more."""

    def text(name: str, box: Sequence[object], more: str = "") -> str:
        edges = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        bounds = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges)
        return f"<object><name>{name}</name>{more}<bndbox>{bounds}</bndbox></object>"

    return text


@pytest.fixture(scope="session")
def cat(voc_object: Callable[..., str]) -> str:
    return voc_object("cat", (11, 11, 20, 30))


@pytest.fixture(scope="session")
def write_voc() -> Write:
    """A VOC folder of pictures of 60 x 40: by list, by picture, the text of its objects."""

    def write(folder: Path, lists: dict[str, dict[str, str]]) -> Path:
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for part, pictures in lists.items():
            text = "".join(f"{identity}\n" for identity in pictures)
            (folder / "ImageSets" / "Main" / f"{part}.txt").write_text(text)
            for identity, objects in pictures.items():
                random_picture(folder / "JPEGImages" / f"{identity}.jpg")
                size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
                xml = f"<annotation>{size}{objects}</annotation>"
                (folder / "Annotations" / f"{identity}.xml").write_text(xml)
        return folder

    return write


def coco_part(first: int, pictures: int = 3) -> dict[str, Any]:
    """A part of 60 x 40 pictures with one annotation each; categories with a gap."""
    numbers = range(first, first + pictures)
    return {
        "images": [
            {"id": n, "file_name": f"{n:012}.jpg", "width": 60, "height": 40} for n in numbers
        ],
        "annotations": [
            {
                "id": 1000 + n,
                "image_id": n,
                "category_id": 3,
                "bbox": [10, 10, 10.5, 20],
                "area": 150.5,
                "iscrowd": 0,
            }
            for n in numbers
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture(scope="session")
def write_coco() -> Write:
    """A COCO folder of two parts; `change` edits the training part before it is written."""

    def write(
        folder: Path,
        change: Callable[[dict[str, Any]], object] = lambda part: None,
        pictures: str = "{}2017",
        count: int = 3,
    ) -> Path:
        (folder / "annotations").mkdir(parents=True)
        for kind, first in (("train", 1), ("val", 101)):
            part = coco_part(first, count)
            for image in part["images"]:
                random_picture(folder / pictures.format(kind) / image["file_name"])
            if kind == "train":
                change(part)
            path = folder / "annotations" / f"instances_{kind}2017.json"
            path.write_text(json.dumps(part))
        return folder

    return write
