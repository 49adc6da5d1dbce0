"""Fashion-MNIST from IDX files, wherever and however they lie."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nasaug.training import ImageArray, load_dataset
from nasaug.training.idx import read_idx

LAYOUTS = ("", "fashion-mnist", "FashionMNIST/raw")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.uint8) % 10


def _idx(array: NDArray[np.uint8]) -> bytes:
    """As http://yann.lecun.com/exdb/mnist describes it."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def _write(folder: Path, ending: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if ending else bytes
    for part, images, labels in (("train", IMAGES, LABELS), ("t10k", IMAGES[:20], LABELS[:20])):
        (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(_idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(_idx(labels)))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fashion_mnist_is_found_in_a_given_folder(layout: str, ending: str, tmp_path: Path) -> None:
    _write(tmp_path / layout, ending)
    data = load_dataset("fashion-mnist", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    assert isinstance(data.test, ImageArray)
    assert torch.equal(data.test.images, torch.from_numpy(IMAGES[:20, None]))
    assert data.test.labels.tolist() == LABELS[:20].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fashion_mnist_is_found_by_the_environment(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the system's own folder."""
    _write(tmp_path / layout, ".gz")
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    data = load_dataset("fashion-mnist")
    assert len(data.test) == 20


def test_given_folder_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "other"))
    _write(tmp_path / "given", "")
    assert len(load_dataset("fashion-mnist", tmp_path / "given").test) == 20


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_fashion_mnist_has_60000_and_10000_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NASAUG_DATA", raising=False)
    data = load_dataset("fashion-mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.validation.labels.bincount().tolist() == [600] * 10


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("left", [0, 1, 6, 30])
def test_cut_off_file_is_refused_by_name(file: str, ending: str, left: int, tmp_path: Path) -> None:
    _write(tmp_path, ending)
    path = tmp_path / f"{file}{ending}"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(left, len(whole) - 1)])
    with pytest.raises(ValueError, match=f"{file}.*IDX file"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\x0d\1\0\0\0\1\0\0\0\0",  # floats
        b"\1\0\x08\1\0\0\0\1\0",  # no zeros in front
        b"\0\0\x08\1\0\0\0\1\0\0",  # a byte too many
        b"\0\0\x08\xff",  # 255 dimensions that are not there
        b"not an IDX file",
    ],
)
def test_other_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images is not .*IDX file"):
        read_idx(path)


def test_damaged_gzip_is_refused_by_name(tmp_path: Path) -> None:
    """Whichever bit of it has flipped; one that does not matter (a time stamp's) is let pass."""
    path, labels = tmp_path / "labels.gz", _idx(LABELS)
    whole = gzip.compress(labels)
    for index, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            assert read_idx(path).tolist() == LABELS.tolist()
        except ValueError as error:
            assert "labels.gz is not" in str(error)


def test_missing_labels_are_refused_by_name(tmp_path: Path) -> None:
    _write(tmp_path, "")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte"):
        load_dataset("fashion-mnist", tmp_path)


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "")
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(_idx(np.zeros(40, dtype=np.uint8)))
    with pytest.raises(ValueError, match="fashion-mnist has images of one class only"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("train-labels-idx1", LABELS[:39]),
        ("train-labels-idx1", np.arange(41, dtype=np.uint8) % 10),
        ("t10k-labels-idx1", np.full(20, 10, dtype=np.uint8)),  # there are ten classes
        ("train-labels-idx1", LABELS[:, None]),
        ("train-images-idx3", IMAGES[:, 0]),
        ("train-images-idx3", IMAGES[:0]),
    ],
)
def test_images_and_labels_that_do_not_match_are_refused_by_name(
    file: str, array: NDArray[np.uint8], tmp_path: Path
) -> None:
    _write(tmp_path, "")
    (tmp_path / f"{file}-ubyte").write_bytes(_idx(array))
    part = file.partition("-")[0]
    with pytest.raises(ValueError, match=f"{part}-labels do not belong together") as caught:
        load_dataset("fashion-mnist", tmp_path)
    assert str(tmp_path) in str(caught.value)
