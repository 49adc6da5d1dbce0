"""What is wrong in a Pascal VOC folder: told with the file's name, skipped and counted if asked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nasaug.detection import load_detection_set

Write = Callable[..., Path]
Text = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, write_voc: Write, cat: str) -> Path:
    lists = {"train": {"a": cat + cat, "b": cat}, "val": {"c": cat}, "test": {"d": cat}}
    return write_voc(tmp_path / "data", lists)


def _edit(folder: Path, old: str, new: str) -> None:
    """The first object of picture a."""
    path = folder / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace(old, new, 1))


OBJECTS: dict[str, tuple[tuple[str, str], str]] = {
    "outside": (
        ("<xmax>20<", "<xmax>62<"),
        "object 1 (cat): a box must lie inside its picture of 60 x 40 pixels, but its edges are "
        "(10, 10, 62, 30)",
    ),
    "wholly outside": (("<xmin>11</xmin>", "<xmin>61.5</xmin>"), "(60.5, 10, 20, 30)"),
    "left of 0": (("<ymin>11<", "<ymin>-1<"), "must lie inside its picture"),
    "zero size": (
        ("<xmin>11<", "<xmin>21<"),
        "object 1 (cat): a box must be wider and higher than 0 pixels, but its edges are "
        "(20, 10, 20, 30)",
    ),
    "negative size": (("<ymin>11<", "<ymin>35<"), "wider and higher than 0 pixels"),
    "nan": (("<xmin>11<", "<xmin>nan<"), "the edges of a box must be finite numbers, but are (nan"),
    "infinite": (("<xmax>20<", "<xmax>inf<"), "must be finite numbers"),
    "no number": (("<xmin>11<", "<xmin>left<"), "object 1: it cannot be read: could not convert"),
    "no edge": (("<xmax>20</xmax>", ""), "object 1: it cannot be read: it has no bndbox/xmax"),
    "no name": (("<name>cat</name>", ""), "object 1: it cannot be read: it has no name"),
}


@pytest.mark.parametrize("fault", OBJECTS)
def test_a_faulty_object(folder: Path, fault: str) -> None:
    change, message = OBJECTS[fault]
    _edit(folder, *change)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load_detection_set(f"voc:{folder}")
    assert str(raised.value).startswith(f"{folder / 'Annotations' / 'a.xml'}, object 1")
    assert str(raised.value).endswith("leave out what is wrong with skip_bad")
    data = load_detection_set(f"voc:{folder}", skip_bad=True)
    assert len(data.skipped) == 1
    assert message in data.skipped[0]
    assert len(data.train) == 2
    assert len(data.train[0].boxes) == 1


def test_an_unknown_class(folder: Path, voc_object: Text) -> None:
    path = folder / "Annotations" / "d.xml"
    path.write_text(path.read_text().replace("<name>cat<", "<name>dog<"))
    message = f"{path}, object 1 (dog): 'dog' is none of the 1 classes"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_detection_set(f"voc:{folder}")
    data = load_detection_set(f"voc:{folder}", skip_bad=True)
    assert len(data.test[0].boxes) == 0


PAGES: dict[str, tuple[tuple[str, str], str]] = {
    "size": (
        ("<width>60<", "<width>61<"),
        "must have the annotated size, 61 x 40 pixels, but has 60 x 40",
    ),
    "no size": (("<height>40</height>", ""), "cannot be read: it has no size/height"),
    "zero size": (("<height>40<", "<height>0<"), "size must be at least 1 x 1 pixels"),
    "cut off": (("</annotation>", ""), "the annotation cannot be read: no element found"),
    "bomb": (
        ("<annotation>", '<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation>&a;'),
        "it declares a document type",
    ),
}


@pytest.mark.parametrize("fault", PAGES)
def test_a_faulty_page(folder: Path, fault: str) -> None:
    change, message = PAGES[fault]
    _edit(folder, *change)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load_detection_set(f"voc:{folder}")
    assert str(raised.value).startswith(f"{folder / 'Annotations' / 'a.xml'}: ")
    data = load_detection_set(f"voc:{folder}", skip_bad=True)
    assert [Path(image.path).stem for image in data.train] == ["b"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("Annotations/a.xml", "the annotation is missing, though {list} lists it"),
        ("JPEGImages/a.jpg", "the picture is missing, though {list} lists it"),
    ],
)
def test_a_missing_file(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    place = folder / "ImageSets" / "Main" / "train.txt"
    wanted = f"{folder / file}: {message.format(list=place)}"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        load_detection_set(f"voc:{folder}")
    assert len(load_detection_set(f"voc:{folder}", skip_bad=True).train) == 1


def test_a_damaged_picture(folder: Path) -> None:
    (folder / "JPEGImages" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.xml: its picture cannot be read: cannot identify"):
        load_detection_set(f"voc:{folder}")
    assert len(load_detection_set(f"voc:{folder}", check_pictures=False).train) == 2


def test_all_faults_are_counted_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "JPEGImages" / "b.jpg").unlink()
    _edit(folder, "<xmin>11<", "<xmin>nan<")
    with pytest.raises(ValueError, match=r"\(and 1 more faults in voc:"):
        load_detection_set(f"voc:{folder}")
    with caplog.at_level(logging.WARNING):
        data = load_detection_set(f"voc:{folder}", skip_bad=True)
    assert len(data.skipped) == 2
    assert f"voc:{folder}: 2 faulty entries are skipped" in caplog.text


def test_a_pixel_of_rounding_is_cut_off(folder: Path) -> None:
    _edit(folder, "<xmin>11<", "<xmin>0<")
    _edit(folder, "<ymax>30<", "<ymax>41<")
    assert load_detection_set(f"voc:{folder}").train[0].boxes[0].tolist() == [0, 10, 20, 40]


def test_nothing_left_of_a_part(folder: Path) -> None:
    (folder / "JPEGImages" / "d.jpg").unlink()
    with pytest.raises(ValueError, match="nothing is left of the test part, as all of its"):
        load_detection_set(f"voc:{folder}", skip_bad=True)


def _lists(folder: Path) -> Path:
    return folder / "ImageSets" / "Main"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (_lists(f) / "train.txt").write_text("\n"), "train.txt lists no picture"),
        (lambda f: (_lists(f) / "train.txt").unlink(), "train.txt is missing"),
        (lambda f: (_lists(f) / "train.txt").write_text("a\na\n"), "train.txt lists a twice"),
        (
            lambda f: [(_lists(f) / f"{name}.txt").unlink() for name in ("val", "test")],
            "needs a list val.txt or test.txt beside train.txt",
        ),
        (lambda f: (f / "JPEGImages").rename(f / "Pictures"), "JPEGImages is missing"),
        (lambda f: _lists(f).rename(f / "elsewhere"), "is no Pascal VOC data: it needs"),
        (
            lambda f: (_lists(f) / "test.txt").write_text("a\n"),
            "a.jpg is in the training and the t",
        ),
    ],
)
def test_lists(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_detection_set(f"voc:{folder}", skip_bad=True)


def test_a_training_part_without_objects(tmp_path: Path, write_voc: Write, cat: str) -> None:
    lists = {"train": {"a": "", "b": ""}, "test": {"d": cat}}
    with pytest.raises(ValueError, match=r"train\.txt lists no picture with an object on it"):
        load_detection_set(f"voc:{write_voc(tmp_path, lists)}")


@pytest.mark.parametrize("text", ["", "cat\ncat\n"])
def test_names_of_classes_that_cannot_be_used(folder: Path, text: str) -> None:
    (folder / "labels.txt").write_text(text)
    with pytest.raises(ValueError, match=r"labels\.txt must name different classes, one a line"):
        load_detection_set(f"voc:{folder}")


def test_a_kit_without_a_test_list(tmp_path: Path, write_voc: Write, cat: str) -> None:
    write_voc(tmp_path / "VOC2012", {"trainval": {"a": cat}})
    with pytest.raises(ValueError, match="needs the test list of a year"):
        load_detection_set(f"voc:{tmp_path}")
