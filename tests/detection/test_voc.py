"""Pascal VOC folders: our reader against torchvision's, and what the format leaves to know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import VOCDetection

from nasaug.detection import VOC_CLASSES, load_detection_set, read_picture

Write = Callable[..., Path]
Text = Callable[..., str]


@pytest.mark.parametrize(("part", "image_set"), [("train", "train"), ("test", "test")])
def test_torchvision_reads_the_same(voc_scenes: Path, part: str, image_set: str) -> None:
    data = load_detection_set(f"voc:{voc_scenes}")
    ours = getattr(data, part)
    theirs = VOCDetection(voc_scenes.parents[1], year="2007", image_set=image_set)
    assert len(ours) == len(theirs) > 0
    for image, (picture, target) in zip(ours, theirs, strict=True):
        notes = target["annotation"]
        size = notes["size"]
        assert (image.width, image.height) == (int(size["width"]), int(size["height"]))
        assert (image.width, image.height) == picture.size
        assert [data.classes[label] for label in image.labels] == [
            thing["name"] for thing in notes["object"]
        ]
        wanted = [
            [int(thing["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for thing in notes["object"]
        ]
        from_one = torch.tensor([1.0, 1.0, 0.0, 0.0])
        assert torch.equal(image.boxes + from_one, torch.tensor(wanted).float())
        pixels = read_picture(image.path, image.width, image.height)
        assert pixels.permute(1, 2, 0).numpy().tobytes() == picture.tobytes()


def test_boxes_are_edges_from_0_of_the_object_itself(
    tmp_path: Path, write_voc: Write, voc_object: Text, cat: str
) -> None:
    head = "<part><name>head</name><bndbox><xmin>30</xmin><ymin>30</ymin><xmax>31</xmax>"
    head += "<ymax>31</ymax></bndbox></part>"
    objects = voc_object("cat", (1, 1, 60, 40), head + "<difficult>1</difficult>")
    objects += voc_object("dog", (" 11 ", "5.5", 11, 5.75), "<difficult>0</difficult>")
    lists = {"train": {"a": objects}, "val": {"b": cat}, "test": {"c": cat}}
    image = load_detection_set(f"voc:{write_voc(tmp_path, lists)}").train[0]
    assert image.boxes.tolist() == [[0, 0, 60, 40], [10, 4.5, 11, 5.75]]
    assert image.areas.tolist() == [2400, 1.25]
    assert image.difficult.tolist() == [True, False]
    assert image.crowd.tolist() == [False, False]


def test_a_kit_is_07_12(tmp_path: Path, write_voc: Write, voc_object: Text, cat: str) -> None:
    car = voc_object("car", (2, 2, 5, 5))
    old = {f"{n:06}": cat for n in range(10)}
    new = {f"2012_{n:06}": car for n in range(10)}
    kit = tmp_path / "VOCdevkit"
    write_voc(kit / "VOC2007", {"trainval": old, "test": {"009999": car}, "train": {"000001": cat}})
    write_voc(kit / "VOC2012", {"trainval": new, "test": {"2012_009999": car}})
    for name in (f"voc:{tmp_path}", f"voc:{kit}"):
        data = load_detection_set(name, validation=0.2)
        assert data.classes == VOC_CLASSES
        assert data.category_ids == tuple(range(1, 21))
        assert [Path(image.path).stem for image in data.test] == ["009999"]
        names = [Path(image.path).stem for part in (data.train, data.validation) for image in part]
        assert sorted(names) == sorted([*old, *new])
        assert len(data.validation) == 4
        assert {data.classes[label] for label in data.train.labels} == {"cat", "car"}


def test_one_folder_means_what_its_lists_say(
    tmp_path: Path, write_voc: Write, voc_object: Text, cat: str
) -> None:
    dog = voc_object("dog", (1, 1, 5, 5))
    lists = {"train": {"a": dog, "b": cat}, "val": {"c": cat}, "test": {"d": cat, "e": ""}}
    data = load_detection_set(f"voc:{write_voc(tmp_path, lists)}")
    parts = [data.train, data.validation, data.test]
    assert [[Path(i.path).stem for i in part] for part in parts] == [["a", "b"], ["c"], ["d", "e"]]
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [1, 0]
    assert data.test[1].boxes.shape == (0, 4)


def test_without_test_val_is_the_test_part(tmp_path: Path, write_voc: Write, cat: str) -> None:
    lists = {"train": {"a": cat, "b": cat, "c": cat}, "val": {"d": cat}}
    data = load_detection_set(f"voc:{write_voc(tmp_path, lists)}")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [2, 1, 1]
    assert Path(data.test[0].path).stem == "d"


def test_given_classes_decide_the_labels(tmp_path: Path, write_voc: Write, cat: str) -> None:
    lists = {"train": {"a": cat}, "val": {"b": cat}, "test": {"c": cat}}
    data = load_detection_set(f"voc:{write_voc(tmp_path, lists)}", classes=["zebra", "cat"])
    assert data.classes == ("zebra", "cat")
    assert data.train.labels.tolist() == [1]
    (tmp_path / "labels.txt").write_text("dog\n\n gnu \ncat\n")
    data = load_detection_set(f"voc:{tmp_path}")
    assert data.classes == ("dog", "gnu", "cat")
    assert data.train.labels.tolist() == [2]


def test_pictures_of_any_ending_and_lists_of_two_columns(
    tmp_path: Path, write_voc: Write, write_picture: Write, cat: str
) -> None:
    lists = {"train": {"a": cat}, "val": {"b": cat}, "test": {"c": cat}}
    folder = write_voc(tmp_path, lists)
    pictures = folder / "JPEGImages"
    (pictures / "a.jpg").rename(pictures / "a.JPEG")
    (pictures / "b.jpg").unlink()
    write_picture(pictures / "b.png")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a  1\n\n")
    data = load_detection_set(f"voc:{folder}")
    assert data.train[0].path.endswith("a.JPEG")
    assert data.validation[0].path.endswith("b.png")
