"""Pixels that boxes belong to: stored or turned pictures, pictures of other kinds, damaged ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from nasaug.detection import read_picture
from nasaug.detection.picture import picture_fault

ORIENTATION = 0x0112


def _turned(path: Path, orientation: int, size: tuple[int, int] = (60, 40)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def _pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_annotated_size_tells_whether_boxes_are_on_the_turned_picture(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    path = _turned(tmp_path / f"a.{ending}", orientation)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
        assert torch.equal(read_picture(path, 60, 40), _pixels(stored))
    if orientation >= 5:
        assert torch.equal(read_picture(path, 40, 60), _pixels(upright))
    else:
        with pytest.raises(ValueError, match="must have the annotated size, 40 x 60 pixels"):
            read_picture(path, 40, 60)


def test_without_a_note_the_sides_are_not_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (60, 40)).save(path)
    assert picture_fault(path, 60, 40) is None
    fault = f"its picture {path} must have the annotated size, 40 x 60 pixels, but has 60 x 40"
    assert picture_fault(path, 40, 60) == fault


def test_grey_and_16_bits(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 60), 7, dtype=np.uint8)).save(grey)
    assert torch.equal(read_picture(grey, 60, 40), torch.full((3, 40, 60), 7, dtype=torch.uint8))
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((40, 60), 100 * 257, dtype=np.uint16)).save(deep)
    assert read_picture(deep, 60, 40).unique().tolist() == [100]


def test_damaged_and_missing_pictures_are_named(tmp_path: Path) -> None:
    path = _turned(tmp_path / "a.jpg", 1)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=rf"{path} cannot be read: .*truncated"):
        read_picture(path, 60, 40)
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read"):
        read_picture(tmp_path / "b.jpg", 60, 40)


def test_a_picture_that_may_not_be_read_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "a.jpg"
    folder.mkdir()
    os.chmod(folder, stat.S_IRWXU)
    fault = picture_fault(folder, 60, 40)
    assert fault is not None
    assert "cannot be read" in fault
