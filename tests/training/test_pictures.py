"""Picture files of every kind as upright 8-bit colour, against values worked out by hand."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nasaug.training import UnreadablePicture, View, evaluation_batches, load_dataset, open_picture

# Black, dark, white; from corner to corner, so that no turn leaves it as it is.
GREY = np.array([[0, 40, 255], [90, 100, 200]], np.uint8)
WriteImage = Callable[..., Path]


def _pixels(path: Path) -> NDArray[np.uint8]:
    picture = open_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def _as_colour(grey: NDArray[Any]) -> NDArray[Any]:
    return np.stack([grey] * 3, -1)


def _save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA"])
def test_grey_is_the_same_in_every_mode(mode: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "x.png", Image.fromarray(GREY).convert(mode))
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.array_equal(_pixels(path), _as_colour(GREY))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_become_8_by_scaling(ending: str, tmp_path: Path) -> None:
    """v / 257, rounded: 65535 is white, as 255 is. Clipping would make all but the first white."""
    values = np.array([[0, 128, 129, 385], [386, 32_768, 65_406, 65_535]], np.uint16)
    path = _save(tmp_path / f"x.{ending}", Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode == "I;16"
    assert np.array_equal(_pixels(path), _as_colour(np.rint(values / 257)))
    assert _pixels(path)[..., 0].tolist() == [[0, 0, 1, 1], [2, 128, 254, 255]]


def test_8_bits_written_as_16_come_back(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint16)[None]
    path = _save(tmp_path / "x.png", Image.fromarray(every * 257))
    assert np.array_equal(_pixels(path), _as_colour(every))


def test_big_endian_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.frombytes("I;16B", (2, 1), np.array([257, 65_535], ">u2").tobytes()).save(path)
    assert _pixels(path)[..., 0].tolist() == [[1, 255]]


def test_whole_numbers_of_32_bits_are_taken_for_16(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.tif", Image.fromarray(np.array([[0, 65_535]], np.int32)))
    with Image.open(path) as image:
        assert image.mode == "I"
    assert _pixels(path)[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0, 65_536]], np.int32), r"pixels \(I\) reach from 0 to 65536"),
        (np.array([[-1, 5]], np.int32), r"pixels \(I\) reach from -1 to 5"),
        (np.array([[0.0, 1.0]], np.float32), r"pixels \(F\) reach from 0\.0 to 1\.0"),
    ],
)
def test_pixels_without_a_known_range_are_refused(
    values: NDArray[Any], said: str, tmp_path: Path
) -> None:
    path = _save(tmp_path / "x.tif", Image.fromarray(values))
    with pytest.raises(UnreadablePicture, match=rf"x\.tif cannot be read: its {said}.*8 or 16"):
        open_picture(path)


def test_what_is_transparent_is_white_behind(tmp_path: Path) -> None:
    """Opaque, half and not at all, over red: alpha c + (1 - alpha) 255. The colour that lies hidden
    under alpha 0 is not seen."""
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 51], [200, 0, 0, 0]]], np.uint8)
    path = _save(tmp_path / "x.png", Image.fromarray(pixels))
    expected = [[[200, 0, 0], [244, 204, 204], [255, 255, 255]]]
    assert _pixels(path).tolist() == expected


@pytest.mark.parametrize("kind", ["LA", "P", "palette", "RGB", "L", "I;16"])
def test_every_kind_of_transparency_is_white_behind(kind: str, tmp_path: Path) -> None:
    """Two pixels, the first transparent: by a channel, by a palette's entries, by a colour."""
    options: dict[str, Any] = {}
    if kind == "LA":
        image = Image.fromarray(np.array([[[0, 0], [90, 255]]], np.uint8), "LA")
    elif kind in ("P", "palette"):
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        image.putpalette([10, 10, 10, 90, 90, 90])
        options["transparency"] = 0 if kind == "P" else bytes([0, 255])
    elif kind == "I;16":
        image = Image.fromarray(np.array([[1000, 90 * 257]], np.uint16))
        options["transparency"] = 1000
    else:
        image = Image.fromarray(np.array([[10, 90]], np.uint8)).convert(kind)
        options["transparency"] = (10, 10, 10) if kind == "RGB" else 10
    path = _save(tmp_path / "x.png", image, **options)
    assert _pixels(path).tolist() == [[[255] * 3, [90] * 3]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    """Inks to light: red = (1 - cyan)(1 - black)."""
    inks = np.array([0, 255, 255, 0], np.uint8)
    image = Image.fromarray(np.broadcast_to(inks, (16, 16, 4)).copy(), "CMYK")
    path = _save(tmp_path / "x.jpg", image, quality=100)
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
    assert np.abs(_pixels(path).astype(int) - [255, 0, 0]).max() <= 2


# What to do to an upright picture so that the tag makes it upright again; by the standard, row 0
# and column 0 of what is stored are these sides of what is seen.
STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda x: x,  # top, left
    2: lambda x: x[:, ::-1],  # top, right
    3: lambda x: x[::-1, ::-1],  # bottom, right
    4: lambda x: x[::-1],  # bottom, left
    5: lambda x: x.swapaxes(0, 1),  # left, top
    6: lambda x: x.swapaxes(0, 1)[::-1],  # right, top
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda x: x.swapaxes(0, 1)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_photographs_are_turned_upright(orientation: int, ending: str, tmp_path: Path) -> None:
    upright = np.repeat(np.repeat(_as_colour(GREY), 16, 0), 16, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    path = _save(tmp_path / f"x.{ending}", stored, exif=exif, quality=100)
    seen = _pixels(path)
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).max() <= 4


def test_16_bit_pictures_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = _save(tmp_path / "x.png", Image.fromarray(GREY.astype(np.uint16) * 257), exif=exif)
    assert np.array_equal(_pixels(path), _as_colour(GREY[::-1, ::-1]))


@pytest.mark.parametrize("orientation", [0, 9, 6000])
def test_an_unknown_orientation_turns_nothing(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "x.png", Image.fromarray(GREY), exif=exif)
    assert np.array_equal(_pixels(path), _as_colour(GREY))


def test_damage_elsewhere_in_the_exif_does_no_harm(tmp_path: Path) -> None:
    """A byte makes the description (0x010e) a width that is a text. Pillow, which writes EXIF anew
    when it turns a picture by it, cannot do so here, nor need it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture of something"
    path = _save(tmp_path / "x.jpg", Image.new("RGB", (8, 6), (9, 99, 9)), exif=exif)
    content, entry = path.read_bytes(), bytes.fromhex("010e0002")
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, bytes.fromhex("01000002")))
    with Image.open(path) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert open_picture(path).size == (6, 8)


def test_of_several_frames_the_first_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = _save(tmp_path / "x.webp", frames[0], save_all=True, append_images=frames[1:],
                 lossless=True)  # fmt: skip
    assert _pixels(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "cannot identify image file"),
        (b"no image", "cannot identify image file"),
        ("cut", "truncated"),
    ],
)
def test_unreadable_files_are_named(
    content: bytes | str | None, said: str, tmp_path: Path, write_image: WriteImage
) -> None:
    path = write_image(tmp_path / "bad.jpg")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.unlink()
    with pytest.raises(UnreadablePicture, match=rf"image .*bad\.jpg cannot be read: .*{said}"):
        open_picture(path)


def test_whatever_pillow_says_of_a_damaged_file_names_it(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TypeError, as it does for some TIFF files of random bytes."""
    path = write_image(tmp_path / "odd.tif")

    def confused(*_: object) -> None:
        raise TypeError("'float' object cannot be interpreted as an integer")

    monkeypatch.setattr(Image, "open", confused)
    with pytest.raises(UnreadablePicture, match=r"odd\.tif cannot be read: 'float'"):
        open_picture(path)


def test_more_pixels_than_are_safe_are_refused(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadablePicture, match=r"large\.png cannot be read: .*exceeds limit"):
        open_picture(path)


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadablePicture("a/b.jpg", "it is damaged")))
    assert (error.path, error.reason) == ("a/b.jpg", "it is damaged")
    assert str(error) == "image a/b.jpg cannot be read: it is damaged"


def test_pictures_are_shown_so_to_a_network(tmp_path: Path, write_image: WriteImage) -> None:
    """A 16-bit white picture and a transparent one are white in a batch too."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            write_image(tmp_path / part / label / "0.png")
            write_image(tmp_path / part / label / "1.png", seed=1)
    white = Image.fromarray(np.full((20, 20), 65_535, np.uint16))
    white.save(tmp_path / "test" / "a" / "0.png")
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "test" / "a" / "1.png")
    data = load_dataset(f"imagefolder:{tmp_path}")
    images, _ = next(iter(evaluation_batches(data, data.test, View(16, 3, workers=0))))
    expected = (1 - torch.tensor(data.mean)) / torch.tensor(data.std)
    assert torch.allclose(images[:2], expected[:, None, None].expand(2, 3, 16, 16))
