"""The lists of CUB-200-2011: what is said of the line that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nasaug.training import load_dataset

Write = Callable[[str, Path], object]


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("images.txt", "2 003", "two 003", r"images\.txt, line 2: .*but it is 'two 003\."),
        ("images.txt", "2 003", "1 003", r"images\.txt, line 2: a number not seen before"),
        ("image_class_labels.txt", "5 3", "5", r"image_class_labels\.txt, line 5: .*is '5'"),
        ("image_class_labels.txt", "5 3", "5 x", r"image_class_labels\.txt, line 5: 'x' is not"),
        ("image_class_labels.txt", "5 3", "5 9", "no class 9, which image 5 is of"),
        ("image_class_labels.txt", "5 3\n", "", r"_labels\.txt does not list image 5 of images"),
        ("train_test_split.txt", "4 0\n", "", r"split\.txt does not list image 4"),
        ("train_test_split.txt", "4 0", "4 2", r"split\.txt has 2 for image 4; it must be 1"),
        ("classes.txt", "3 003.Sooty_Albatross\n", "", "no class 3, which image 2 is of"),
    ],
)
def test_a_damaged_list_is_named_with_its_line(
    file: str, old: str, new: str, said: str, write: Write, tmp_path: Path
) -> None:
    write("cub200", tmp_path)
    path = tmp_path / "CUB_200_2011" / file
    text = path.read_text()
    assert text.count(f"\n{old}") + text.startswith(old) == 1
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        load_dataset("cub200", tmp_path)


def test_images_are_numbered_in_any_order(write: Write, tmp_path: Path) -> None:
    write("cub200", tmp_path)
    before = load_dataset("cub200", tmp_path)
    path = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after = load_dataset("cub200", tmp_path)
    assert before.train.labels.tolist() == after.train.labels.tolist()
    assert before.digest() == after.digest()
