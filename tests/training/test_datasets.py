"""The data sets by name: what is in their parts, and what is said when they cannot be had."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasaug.training import DATASETS, Dataset, ImageArray, load_dataset
from nasaug.training.datasets import Part


def _pixels(part: Part) -> Counter[bytes]:
    assert isinstance(part, ImageArray)
    return Counter(image.numpy().tobytes() for image in part.images)


def _embedded() -> Any:
    with files("nasaug.training.embedded").joinpath("fashion_mnist_mini.npz").open("rb") as file:
        return dict(np.load(file))


def test_mini_has_balanced_parts_of_8100_900_and_2000_images(mini: Dataset) -> None:
    for part, each in ((mini.train, 810), (mini.validation, 90), (mini.test, 200)):
        assert part.labels.bincount().tolist() == [each] * 10
        assert isinstance(part, ImageArray)
        assert part.images.shape == (10 * each, 1, 28, 28)
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
    assert len(mini.classes) == 10
    assert mini.native_size == 28


def test_mini_is_below_6_megabytes() -> None:
    file = files("nasaug.training.embedded").joinpath("fashion_mnist_mini.npz")
    assert len(file.read_bytes()) < 6e6


def test_minis_parts_share_no_image(mini: Dataset) -> None:
    """Counted, since the source itself holds a few images twice."""
    source = _embedded()
    held = Counter(image.tobytes() for image in source["train_images"])
    assert _pixels(mini.train) + _pixels(mini.validation) == held
    assert _pixels(mini.test) == Counter(image.tobytes() for image in source["test_images"])
    shared = _pixels(mini.test) & held
    assert shared.total() < 5


def test_minis_images_keep_their_labels(mini: Dataset) -> None:
    source = _embedded()
    labels = {
        image.tobytes(): int(label)
        for image, label in zip(source["train_images"], source["train_labels"], strict=True)
    }
    for part in (mini.train, mini.validation):
        assert isinstance(part, ImageArray)
        for image, label in zip(part.images, part.labels.tolist(), strict=True):
            assert labels[image.numpy().tobytes()] == label


def test_split_is_the_same_every_time(mini: Dataset) -> None:
    again = load_dataset("fashion-mnist-mini")
    assert isinstance(mini.validation, ImageArray) and isinstance(again.validation, ImageArray)
    assert torch.equal(mini.validation.images, again.validation.images)
    assert torch.equal(mini.validation.labels, again.validation.labels)


def test_share_of_the_validation_part_can_be_chosen() -> None:
    data = load_dataset("fashion-mnist-mini", validation=0.25)
    assert (len(data.train), len(data.validation)) == (6750, 2250)
    assert data.validation.labels.bincount().tolist() == [225] * 10


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_share_of_the_validation_part_must_be_between_0_and_1(share: float) -> None:
    with pytest.raises(ValueError, match="validation must be a share between 0 and 1"):
        load_dataset("fashion-mnist-mini", validation=share)


@pytest.mark.parametrize("name", ["fashion-mnist-min", "fashion_mnist_mini"])
def test_unknown_name_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*did you mean 'fashion-mnist-mini'"):
        load_dataset(name)


def test_name_that_is_near_to_none_is_refused_with_all() -> None:
    with pytest.raises(ValueError) as caught:
        load_dataset("zzz")
    assert all(name in str(caught.value) for name in (*DATASETS, "imagefolder:PATH", "csv:PATH"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_data_that_is_not_there_is_refused_saying_where_it_was_looked_for(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{name} was not found.*--data-dir") as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_every_place_is_named_when_no_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ValueError) as caught:
        load_dataset("cifar10")
    places = (tmp_path / "mine", Path("/usr/share/datasets"), tmp_path / "home" / ".cache")
    assert all(str(place) in str(caught.value) for place in places)


WriteCifar = Callable[[str, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def write_cifar() -> WriteCifar:
    """CIFAR as it lies on disk, three images a file: pickles of flat RGB planes."""

    def write(name: str, root: Path) -> dict[str, Any]:
        key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
        layout = {
            "cifar10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)]),
            "cifar100": ("cifar-100-python", ["train"]),
        }
        folder, parts = layout[name]
        meta = {"cifar10": "batches.meta", "cifar100": "meta"}[name]
        (root / folder).mkdir()
        rng = np.random.default_rng(0)
        written = {}
        for part in [*parts, "test_batch" if name == "cifar10" else "test"]:
            pixels = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
            written[part] = {"data": pixels, key: [i % 4 for i in range(40)]}
            (root / folder / part).write_bytes(pickle.dumps(written[part]))
        names = {key.replace("labels", "label_names"): ["a", "b", "c", "d"]}
        (root / folder / meta).write_bytes(pickle.dumps(names))
        return {"train": [written[part] for part in parts], "test": written[part], "key": key}

    return write


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_as_torchvision_lays_it_out(
    name: str, write_cifar: WriteCifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_cifar(name, tmp_path)
    # The digests of the real files, which a fake cannot have.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load_dataset(name, tmp_path)
    assert data.classes == ("a", "b", "c", "d")
    images = 40 * len(written["train"])
    assert (len(data.train), len(data.validation)) == (images * 0.9, images * 0.1)
    assert isinstance(data.test, ImageArray)
    expected = torch.from_numpy(written["test"]["data"]).view(-1, 3, 32, 32)
    assert torch.equal(data.test.images, expected)
    assert data.test.labels.tolist() == written["test"][written["key"]]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_damaged_cifar_is_refused_naming_its_folder(
    name: str, write_cifar: WriteCifar, tmp_path: Path
) -> None:
    """The fake's digests are not those that torchvision knows."""
    write_cifar(name, tmp_path)
    with pytest.raises(ValueError, match=f"{name} in .* cannot be used") as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("name", "first"), [("first", 0), ("second", 5)])
def test_halves_of_the_classes_are_data_sets(name: str, first: int, mini: Dataset) -> None:
    """Every image of five classes, labelled from 0, in the same part as in the whole."""
    half = load_dataset(f"fashion-mnist-mini-{name}")
    assert half.classes == mini.classes[first : first + 5]
    for part, whole in ((half.test, mini.test), (half.train, mini.train)):
        assert isinstance(part, ImageArray) and isinstance(whole, ImageArray)
        assert part.labels.bincount().tolist() == [len(whole) // 10] * 5
    source = _embedded()
    of_half = (source["test_labels"] >= first) & (source["test_labels"] < first + 5)
    assert isinstance(half.test, ImageArray)
    assert np.array_equal(half.test.images[:, 0].numpy(), source["test_images"][of_half])
    assert half.test.labels.tolist() == (source["test_labels"][of_half] - first).tolist()
    trained = Counter(image.tobytes() for image in source["train_images"])
    assert _pixels(half.train) + _pixels(half.validation) <= trained


def test_the_halves_share_no_image() -> None:
    first, second = (load_dataset(f"fashion-mnist-mini-{name}") for name in ("first", "second"))
    assert (_pixels(first.train) & _pixels(second.train)).total() == 0
    assert (len(first.train), len(first.validation), len(first.test)) == (4050, 450, 1000)
    assert first.digest() != second.digest()
