"""Image files in a folder a class: which parts they become, and what is said when they cannot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nasaug.training import Dataset, View, evaluation_batches, load_dataset, training_batches
from nasaug.training.datasets import Part
from nasaug.training.folders import ImagePaths

WriteImage = Callable[..., Path]
VIEW = View(resolution=16, in_channels=3, workers=0)


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    """Ten images of each of two classes to train on, two of each to test on."""
    for part, count in (("train", 10), ("test", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                write_image(tmp_path / part / label / f"{number}.png", seed=number)
    return tmp_path


def _names(part: Part) -> list[str]:
    assert isinstance(part, ImagePaths)
    return ["/".join(Path(path).parts[-3:]) for path in part.paths]


def _load(folder: Path) -> Dataset:
    return load_dataset(f"imagefolder:{folder}")


def _first(data: Dataset, view: View = VIEW) -> Tensor:
    images, _ = next(iter(evaluation_batches(data, data.test, view)))
    return images


def test_three_folders_are_the_three_parts(folder: Path, write_image: WriteImage) -> None:
    write_image(folder / "val" / "dog" / "0.png")
    data = _load(folder)
    assert len(data.train) == 20
    assert _names(data.validation) == ["val/dog/0.png"]
    assert _names(data.test)[0] == "test/cat/0.png"
    assert data.classes == ("cat", "dog")
    assert data.validation.labels.tolist() == [1]


@pytest.mark.parametrize("name", ["val", "test"])
def test_of_two_folders_the_other_is_the_test_part(name: str, folder: Path) -> None:
    """The validation part is a tenth of the training folder, of each class."""
    (folder / "test").rename(folder / name)
    data = _load(folder)
    assert len(data.test) == 4
    assert all(image.startswith(name) for image in _names(data.test))
    assert data.validation.labels.tolist() == [0, 1]
    both = [*_names(data.train), *_names(data.validation)]
    assert sorted(both) == sorted(f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(10))


def test_images_below_a_class_in_any_depth_are_its(folder: Path, write_image: WriteImage) -> None:
    write_image(folder / "test" / "dog" / "small" / "brown" / "x.JPG")
    data = _load(folder)
    assert len(data.test) == 5
    assert data.test.labels.tolist() == [0, 0, 1, 1, 1]


def test_other_files_are_passed_over(folder: Path) -> None:
    (folder / "test" / "dog" / "notes.txt").write_text("good dogs")
    (folder / "test" / "list.csv").write_text("")
    assert len(_load(folder).test) == 4


def test_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere/train is not a folder"):
        _load(tmp_path / "nowhere")


def test_training_folder_alone_is_refused(folder: Path) -> None:
    (folder / "test").rename(folder / "Test")
    with pytest.raises(ValueError, match="needs a folder val or test"):
        _load(folder)


def test_folder_without_classes_is_refused_by_name(folder: Path) -> None:
    (folder / "val").mkdir()
    with pytest.raises(ValueError, match="val has no folder of a class"):
        _load(folder)


def test_class_without_images_is_refused_by_name(folder: Path) -> None:
    (folder / "train" / "emu").mkdir()
    with pytest.raises(ValueError, match=r"emu has no images \(\.jpg"):
        _load(folder)


def test_one_class_is_refused(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "train" / "cat" / "0.png")
    write_image(tmp_path / "test" / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"one class only \(cat\)"):
        _load(tmp_path)


@pytest.mark.parametrize("part", ["val", "test"])
def test_class_that_was_not_trained_is_refused_by_name(
    part: str, folder: Path, write_image: WriteImage
) -> None:
    write_image(folder / part / "emu" / "0.png")
    with pytest.raises(ValueError, match=f"{part} has a class that the training part lacks: emu"):
        _load(folder)


def test_classes_of_one_image_are_refused(tmp_path: Path, write_image: WriteImage) -> None:
    """Nothing could be held out of them."""
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            write_image(tmp_path / part / label / "0.png")
    with pytest.raises(ValueError, match="one image only: none is left to validate on"):
        _load(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off", None])
def test_image_that_cannot_be_read_is_named_while_iterating(
    content: bytes | None, workers: int, folder: Path, write_image: WriteImage
) -> None:
    """Damaged, or gone since the folder was read; also where other processes decode."""
    bad = write_image(folder / "test" / "dog" / "bad.jpg")
    data = _load(folder)
    bad.unlink() if content is None else bad.write_bytes(content)
    batches = evaluation_batches(data, data.test, View(16, 3, workers=workers), batch_size=4)
    iterator = iter(batches)
    next(iterator)
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be read"):
        next(iterator)


def test_truncated_jpeg_is_named(folder: Path, write_image: WriteImage) -> None:
    bad = write_image(folder / "test" / "cat" / "bad.jpg")
    bad.write_bytes(bad.read_bytes()[:-200])
    data = _load(folder)
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be read: .*truncated"):
        list(evaluation_batches(data, data.test, VIEW))


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg"), ("L", "jpg")],
)
def test_images_of_all_modes_decode_to_colour(
    mode: str, ending: str, folder: Path, write_image: WriteImage
) -> None:
    """As Pillow converts them: each is compared with its own conversion, saved as colour."""
    path = write_image(folder / "test" / "cat" / f"0.{ending}", mode=mode)
    with Image.open(path) as image:
        assert image.mode == mode
        colour = image.convert("RGB")
    mixed = _first(_load(folder))[0]
    path.unlink()
    colour.save(folder / "test" / "cat" / "0.png")
    assert torch.equal(_first(_load(folder))[0], mixed)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_all_sizes_become_batches(
    channels: int, folder: Path, write_image: WriteImage
) -> None:
    Image.new("RGB", (3, 90)).save(folder / "test" / "cat" / "0.png")
    images = _first(_load(folder), View(16, channels, workers=0))
    assert images.shape == (4, channels, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_plain_image_is_normalised_by_imagenets_statistics(folder: Path) -> None:
    Image.new("RGB", (40, 40), (255, 0, 51)).save(folder / "test" / "cat" / "0.png")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.array([1.0, 0.0, 0.2]) - mean) / std
    image = _first(_load(folder))[0]
    assert image.amax((1, 2)).numpy() == pytest.approx(expected, abs=1e-5)
    assert image.amin((1, 2)).numpy() == pytest.approx(expected, abs=1e-5)


def test_evaluation_shows_the_centre(folder: Path) -> None:
    """Resized to resolution / 0.875 and cropped: a frame of less than a 16th is not seen."""
    picture = Image.new("RGB", (160, 160), (255, 0, 0))
    picture.paste((0, 0, 255), (8, 8, 152, 152))
    picture.save(folder / "test" / "cat" / "0.png")
    red = _first(_load(folder), View(112, 3, workers=0))[0, 0]
    assert float(red.max()) == pytest.approx(-0.485 / 0.229, abs=1e-5)


def test_each_training_image_is_augmented_on_its_own(folder: Path, write_image: WriteImage) -> None:
    """Copies of one image are shown in as many ways, and in others in the next epoch."""
    for label, number in itertools.product(("cat", "dog"), range(10)):
        write_image(folder / "train" / label / f"{number}.png", seed=1)
    batches = training_batches(_load(folder), VIEW, 18, seed=0)
    shown = [image for epoch in (0, 1) for x, _ in batches.epoch(epoch) for image in x]
    assert len({image.numpy().tobytes() for image in shown}) == 36


@pytest.mark.parametrize(("flip", "crop"), [(False, 0.0), (True, 0.0), (False, 0.125)])
def test_training_images_are_augmented_only_as_asked(flip: bool, crop: float, folder: Path) -> None:
    """Cropped and coloured, mirrored, or neither; compared with what evaluation shows."""
    data = _load(folder)
    plain, _ = next(iter(evaluation_batches(data, data.train, VIEW)))
    seen = []
    for epoch in range(4):
        view = View(16, 3, flip=flip, crop=crop, workers=0)
        seen += [image for x, _ in training_batches(data, view, 6, 0).epoch(epoch) for image in x]
    as_evaluated = [any(torch.equal(image, other) for other in plain) for image in seen]
    mirrored = [any(torch.equal(image.flip(2), other) for other in plain) for image in seen]
    if crop:
        assert not any(as_evaluated) and not any(mirrored)
    elif flip:
        assert any(as_evaluated) and any(mirrored)
        assert all(a or m for a, m in zip(as_evaluated, mirrored, strict=True))
    else:
        assert all(as_evaluated)
