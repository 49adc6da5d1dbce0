"""Image files by a table: which parts they become, and what is said of the line that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from nasaug.training import Dataset, load_dataset
from nasaug.training.datasets import Part
from nasaug.training.folders import ImagePaths

WriteImage = Callable[..., Path]
HEAD = "path,label,split"


@pytest.fixture
def table(tmp_path: Path, write_image: WriteImage) -> Callable[..., Path]:
    """Writes images 0.png .. 19.png in a folder `images`, and a table of the given lines."""

    def write(*lines: str, images: int = 20, encoding: str = "utf-8") -> Path:
        for number in range(images):
            write_image(tmp_path / "images" / f"{number}.png", seed=number)
        path = tmp_path / "table.csv"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return path

    return write


def _rows(split: str, numbers: Iterable[int]) -> list[str]:
    """Images of the classes cat (even) and dog (odd)."""
    return [f"images/{n}.png,{('cat', 'dog')[n % 2]},{split}" for n in numbers]


def _load(path: Path, validation: float = 0.1) -> Dataset:
    return load_dataset(f"csv:{path}", validation=validation)


def _numbers(part: Part) -> list[int]:
    assert isinstance(part, ImagePaths)
    return [int(Path(path).stem) for path in part.paths]


def test_three_splits_are_the_three_parts(table: Callable[..., Path]) -> None:
    path = table(
        HEAD, *_rows("test", (4, 5, 6)), *_rows("train", range(4)), *_rows("val", (9, 7, 8))
    )
    data = _load(path)
    assert data.classes == ("cat", "dog")
    assert _numbers(data.train) == [0, 1, 2, 3]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert (_numbers(data.validation), data.validation.labels.tolist()) == ([9, 7, 8], [1, 1, 0])
    assert (_numbers(data.test), data.test.labels.tolist()) == ([4, 5, 6], [0, 1, 0])
    assert isinstance(data.train, ImagePaths)
    assert data.train.paths[0] == str(path.parent / "images" / "0.png")


@pytest.mark.parametrize("name", ["val", "test"])
def test_of_two_splits_the_other_is_the_test_part(name: str, table: Callable[..., Path]) -> None:
    data = _load(table(HEAD, *_rows("train", range(10)), *_rows(name, range(10, 14))))
    assert _numbers(data.test) == [10, 11, 12, 13]
    assert data.validation.labels.bincount().tolist() == [1, 1]
    assert sorted([*_numbers(data.train), *_numbers(data.validation)]) == list(range(10))


def test_without_splits_a_fifth_is_the_test_part_whatever_the_validation_share(
    table: Callable[..., Path],
) -> None:
    """So that nobody judges on images that a run with another share was trained on."""
    path = table("label,path", *(f"{n % 2},images/{n}.png" for n in range(20)))
    data, other = _load(path), _load(path, validation=0.4)
    assert data.test.labels.bincount().tolist() == [2, 2]
    assert _numbers(data.test) == _numbers(other.test)
    assert (len(data.validation), len(other.validation)) == (2, 6)
    for one in (data, other):
        parts = (one.train, one.validation, one.test)
        assert sorted(n for part in parts for n in _numbers(part)) == list(range(20))


def test_whole_numbers_are_ordered_by_value(table: Callable[..., Path]) -> None:
    names = ("10", "9", "100")
    assert _load(table("path,label", *(f"images/{n}.png,{names[n % 3]}" for n in range(12)))
                 ).classes == ("9", "10", "100")  # fmt: skip


def test_other_labels_are_ordered_as_texts(table: Callable[..., Path]) -> None:
    names = ("10", "9", "x")
    data = _load(table("path,label", *(f"images/{n}.png,{names[n % 3]}" for n in range(12))))
    assert data.classes == ("10", "9", "x")


def test_what_spreadsheets_write_is_read(
    table: Callable[..., Path], write_image: WriteImage
) -> None:
    """A byte-order mark, Windows' line ends, quotes, spaces, more columns, empty lines."""
    lines = [f'images/{n}.png, "{"a, b" if n % 2 else "c"}",note {n}\r' for n in range(20)]
    lines = [line.replace(', "', ',"') for line in lines]
    data = _load(table("path , label,note\r", *lines[:9], "\r", *lines[9:], encoding="utf-8-sig"))
    assert data.classes == ("a, b", "c")
    assert len(data.train) + len(data.validation) + len(data.test) == 20


def test_absolute_paths_are_taken_as_they_are(table: Callable[..., Path], tmp_path: Path) -> None:
    rows = [f"{tmp_path}/images/{n}.png,{n % 2}" for n in range(20)]
    assert len(_load(table("path,label", *rows)).test) == 4


TRAIN = _rows("train", range(4))
TEST = _rows("test", (4, 5))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1: .*needs the columns path,label.* but has none"),
        (["path;label"], "line 1: .*with commas between them, but has path;label"),
        (["file,label", *TRAIN], "line 1: .* but has file,label"),
        ([HEAD], "table.csv has no rows to train on"),
        ([HEAD, *TEST], "table.csv has no rows to train on"),
        ([HEAD, *TRAIN], "has none of val or test"),
        ([HEAD, *TRAIN, "images/4.png,cat,valid"], "line 6: split must be .*, but is 'valid'"),
        ([HEAD, *TRAIN, "images/4.png,cat,"], "line 6: split must be .*, but is ''"),
        ([HEAD, *TRAIN, "images/4.png,cat"], "line 6: it has another number of fields"),
        ([HEAD, *TRAIN, "images/4.png,a, b,test"], "line 6: it has another number of fields"),
        ([HEAD, *TRAIN, ",cat,test"], "line 6: path is empty"),
        ([HEAD, *TRAIN, "images/4.png, ,test"], "line 6: label is empty"),
        ([HEAD, *TRAIN, "images/44.png,cat,test"], "line 6: .*44.png is not there; .*relative"),
        ([HEAD, *TRAIN, "images,cat,test"], "line 6: .*images is not there"),
        ([HEAD, *TRAIN, "./images/2.png,dog,test"], "line 6: .*2.png is in line 4 already"),
        ([HEAD, *TRAIN, *TEST, "images/6.png,emu,test"], "line 8: .*has the label 'emu'"),
        ([HEAD, *TRAIN, *TEST, "images/6.png,emu,val"], "line 8: .*has the label 'emu'"),
        ([HEAD, "images/4.png,cat,test", "images/6.png,cat,train"], "has images of one class only"),
        ([HEAD, *TRAIN, '"images/4.png,cat,test'], "not a readable CSV file: unexpected end"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(
    lines: list[str], said: str, table: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        _load(table(*lines))
    assert "table.csv" in str(caught.value)


def test_a_line_is_the_one_of_the_file_after_a_label_of_two(table: Callable[..., Path]) -> None:
    lines = [HEAD, 'images/0.png,"cat\nwoman",train', "images/1.png,dog,training"]
    with pytest.raises(ValueError, match="line 4: split must be"):
        _load(table(*lines))


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.csv does not exist; csv:FILE names a table"):
        _load(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="is not a readable CSV file"):
        _load(tmp_path)
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match=r"image\.csv is not a readable CSV file"):
        _load(tmp_path / "image.csv")
    with pytest.raises(ValueError, match="csv: lacks a path after the colon"):
        load_dataset("csv:")
