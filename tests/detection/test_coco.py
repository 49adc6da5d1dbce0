"""COCO folders: our reader against pycocotools' and torchvision's, and what can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from nasaug.detection import DetectionSet, load_detection_set, read_picture

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("part", "kind"), [("train", "train"), ("validation", "val"), ("test", "test")]
)
def test_pycocotools_reads_the_same(
    scenes: DetectionSet, coco_scenes: Path, part: str, kind: str
) -> None:
    ours = getattr(scenes, part)
    theirs = COCO(coco_scenes / "annotations" / f"instances_{kind}2017.json")
    assert ours.image_ids.tolist() == theirs.getImgIds()
    names = [entry["name"] for entry in theirs.loadCats(scenes.category_ids)]
    assert list(scenes.classes) == names
    for image in ours:
        info = theirs.loadImgs([image.image_id])[0]
        assert Path(image.path) == coco_scenes / f"{kind}2017" / info["file_name"]
        assert (image.width, image.height) == (info["width"], info["height"])
        entries = theirs.loadAnns(theirs.getAnnIds([image.image_id]))
        boxes = image.boxes.clone()
        boxes[:, 2:] -= boxes[:, :2]
        assert boxes.tolist() == [entry["bbox"] for entry in entries]
        assert image.areas.tolist() == [entry["area"] for entry in entries]
        categories = [scenes.category_ids[label] for label in image.labels]
        assert categories == [entry["category_id"] for entry in entries]
        assert image.crowd.tolist() == [bool(entry["iscrowd"]) for entry in entries]


def test_torchvision_shows_the_same_pixels(scenes: DetectionSet, coco_scenes: Path) -> None:
    file = coco_scenes / "annotations" / "instances_test2017.json"
    theirs = CocoDetection(coco_scenes / "test2017", file)
    for image, (picture, target) in zip(scenes.test, theirs, strict=True):
        pixels = read_picture(image.path, image.width, image.height)
        assert pixels.permute(1, 2, 0).numpy().tobytes() == picture.tobytes()
        assert len(target) == len(image.boxes)


def test_numbers_with_gaps_crowds_and_floats(tmp_path: Path, write_coco: Write) -> None:
    def change(part: dict[str, Any]) -> None:
        part["annotations"][0] |= {"iscrowd": 1, "category_id": 7, "bbox": [0.25, 1, 59.75, 39]}
        del part["annotations"][1]["area"]

    data = load_detection_set(f"coco:{write_coco(tmp_path / 'data', change)}", validation=0.01)
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (3, 7)
    train, held = list(data.train), list(data.validation)
    images = {image.image_id: image for image in (*train, *held)}
    assert images[1].labels.tolist() == [1]
    assert images[1].crowd.tolist() == [True]
    assert images[1].boxes.tolist() == [[0.25, 1, 60, 40]]
    assert images[1].areas.tolist() == [150.5]
    assert images[2].areas.tolist() == [210.0]
    assert [len(train), len(held)] == [2, 1]
    assert data.test.image_ids.tolist() == [101, 102, 103]


def test_pictures_without_an_object_stay(tmp_path: Path, write_coco: Write) -> None:
    folder = write_coco(tmp_path / "data", lambda part: part["annotations"].clear())
    data = load_detection_set(f"coco:{folder}")
    assert len(data.train) + len(data.validation) == 3
    assert data.train.boxes.shape == (0, 4)


def test_pictures_in_a_folder_images(tmp_path: Path, write_coco: Write) -> None:
    data = load_detection_set(f"coco:{write_coco(tmp_path / 'data', pictures='images/{}2017')}")
    assert "/images/val2017/" in data.test[0].path


def test_given_classes_decide_the_labels(tmp_path: Path, write_coco: Write) -> None:
    data = load_detection_set(f"coco:{write_coco(tmp_path / 'data')}", classes=["dog", "cat"])
    assert data.category_ids == (7, 3)
    assert set(data.train.labels.tolist()) == {1}


def _first(part: dict[str, Any]) -> dict[str, Any]:
    entry = part["annotations"][0]
    assert isinstance(entry, dict)
    return entry


OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "outside": (
        {"bbox": [50, 10, 12, 5]},
        "a box must lie inside its picture of 60 x 40 pixels, but its edges are (50, 10, 62, 15)",
    ),
    "zero size": (
        {"bbox": [5, 10, 0, 5]},
        "a box must be wider and higher than 0 pixels, but its edges are (5, 10, 5, 15)",
    ),
    "negative size": ({"bbox": [5, 10, 3, -5]}, "a box must be wider and higher than 0 pixels"),
    "nan": ({"bbox": [5, float("nan"), 3, 5]}, "the edges of a box must be finite numbers"),
    "beyond numbers": ({"bbox": [5, 5, 10**400, 3]}, "a bbox must be [x, y, width, height]"),
    "three numbers": ({"bbox": [5, 5, 3]}, "a bbox must be [x, y, width, height], but is [5, 5"),
    "text": ({"bbox": [5, "5", 3, 3]}, "a bbox must be [x, y, width, height]"),
    "unknown class": ({"category_id": 4}, "category 4 is none of the 2 classes"),
    "no class": ({"category_id": None}, "category None is none of the 2 classes"),
    "area": ({"area": float("nan")}, "an area must be a finite number of at least 0, but is nan"),
}


@pytest.mark.parametrize("fault", OBJECTS)
def test_a_faulty_annotation(tmp_path: Path, write_coco: Write, fault: str) -> None:
    change, message = OBJECTS[fault]
    folder = write_coco(tmp_path / "data", lambda part: _first(part).update(change))
    file = folder / "annotations" / "instances_train2017.json"
    with pytest.raises(ValueError) as raised:
        load_detection_set(f"coco:{folder}")
    assert str(raised.value).startswith(f"{file}, annotation 1001 (000000000001.jpg): {message}")
    data = load_detection_set(f"coco:{folder}", skip_bad=True)
    assert len(data.skipped) == 1
    assert len(data.train.labels) + len(data.validation.labels) == 2


ENTRIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "annotation of no image": (
        lambda part: _first(part).update(image_id=77),
        "annotation 1001: it is of image 77, which the file does not list",
    ),
    "annotation twice": (
        lambda part: _first(part).update(id=1002),
        "annotation 1002: every annotation needs an id of its own",
    ),
    "image twice": (
        lambda part: part["images"].append(part["images"][0]),
        "image 1 (000000000001.jpg): every image needs an id and a file of its own",
    ),
    "file twice": (
        lambda part: part["images"].append(part["images"][0] | {"id": 5}),
        "image 5 (000000000001.jpg): every image needs an id and a file of its own",
    ),
    "number beyond 64 bits": (
        lambda part: part["images"].append(part["images"][0] | {"id": 2**63}),
        "an image needs an id, a file_name",
    ),
    "no size": (
        lambda part: part["images"][0].pop("width"),
        "image 1 (000000000001.jpg): an image needs an id, a file_name, a width and a height",
    ),
    "other size": (
        lambda part: part["images"][0].update(width=61),
        "000000000001.jpg must have the annotated size, 61 x 40 pixels, but has 60 x 40",
    ),
    "missing picture": (
        lambda part: part["images"][0].update(file_name="gone.jpg"),
        "image 1 (gone.jpg): the picture ",
    ),
}


@pytest.mark.parametrize("fault", ENTRIES)
def test_a_faulty_entry(tmp_path: Path, write_coco: Write, fault: str) -> None:
    change, message = ENTRIES[fault]
    folder = write_coco(tmp_path / "data", change)
    with pytest.raises(ValueError) as raised:
        load_detection_set(f"coco:{folder}")
    assert str(folder / "annotations" / "instances_train2017.json") in str(raised.value)
    assert message in str(raised.value)
    assert len(load_detection_set(f"coco:{folder}", skip_bad=True).skipped) == 1


FILES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "category number twice": (
        lambda part: part["categories"].append({"id": 3, "name": "cow"}),
        "category 3 (cow) is there twice, by its id or its name",
    ),
    "category name twice": (
        lambda part: part["categories"].append({"id": 9, "name": "cat"}),
        "category 9 (cat) is there twice",
    ),
    "category without a name": (
        lambda part: part["categories"].append({"id": 9}),
        "a category needs an id and a name, but one is {'id': 9}",
    ),
    "no category": (lambda part: part["categories"].clear(), "has no categories"),
    "other categories": (
        lambda part: part["categories"].pop(),
        "has other categories than",
    ),
    "no pictures": (lambda part: part["images"].clear(), "lists no picture; a part needs"),
    "no list": (lambda part: part.pop("annotations"), "list of objects under 'annotations'"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_cannot_be_used(tmp_path: Path, write_coco: Write, fault: str) -> None:
    """Skipping is no way out of these."""
    change, message = FILES[fault]
    folder = write_coco(tmp_path / "data", change)
    with pytest.raises(ValueError) as raised:
        load_detection_set(f"coco:{folder}", skip_bad=True)
    assert message in str(raised.value)
    assert str(folder / "annotations" / "instances_") in str(raised.value)


def test_missing_and_damaged_files(tmp_path: Path, write_coco: Write) -> None:
    folder = write_coco(tmp_path / "data")
    file = folder / "annotations" / "instances_val2017.json"
    (folder / "val2017").rename(folder / "elsewhere")
    with pytest.raises(ValueError, match="val2017 is missing: the pictures of"):
        load_detection_set(f"coco:{folder}")
    file.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_detection_set(f"coco:{folder}")
    file.unlink()
    with pytest.raises(ValueError, match="is no COCO data: it needs"):
        load_detection_set(f"coco:{folder}")


def test_several_years_and_an_unknown_class(tmp_path: Path, write_coco: Write) -> None:
    folder = write_coco(tmp_path / "data")
    with pytest.raises(ValueError, match="has no category 'cow', which is one of the classes"):
        load_detection_set(f"coco:{folder}", classes=["cow", "cat"])
    file = folder / "annotations" / "instances_val2017.json"
    for year in ("2014", "2015"):
        file.with_name(f"instances_val{year}.json").write_text(json.dumps({}))
    assert len(load_detection_set(f"coco:{folder}").test) == 3
    file.unlink()
    with pytest.raises(ValueError, match="has several files of val"):
        load_detection_set(f"coco:{folder}")


def test_a_subset_of_the_classes_leaves_the_others_out_when_asked(
    tmp_path: Path, write_coco: Write
) -> None:
    folder = write_coco(tmp_path / "data", lambda part: _first(part).update(category_id=7))
    with pytest.raises(ValueError, match="category 'dog' is none of the 1 classes"):
        load_detection_set(f"coco:{folder}", classes=["cat"])
    data = load_detection_set(f"coco:{folder}", classes=["cat"], skip_bad=True)
    assert torch.cat([data.train.labels, data.validation.labels]).tolist() == [0, 0]
