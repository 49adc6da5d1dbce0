"""The five data sets as they lie on disk: where they are found, how read, what is said if not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from nasaug.training import Dataset, View, load_dataset, training_batches
from nasaug.training.datasets import Part
from nasaug.training.folders import ImagePaths

Written = list[tuple[Path, int, str]]
Write = Callable[[str, Path], Written]
FolderOf = Callable[[str], str]
Packed = Callable[[str, Path], list[Path]]
CLASSES = {
    "food101": ("apple_pie", "waffles"),
    "cars": ("AM General Hummer SUV 2000", "Acura RL Sedan 2012"),
    "cub200": ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross"),
    "pets": ("Abyssinian", "American Bulldog", "Egyptian Mau"),
}
A_LIST = {
    "food101": "meta/test.json",
    "flowers102": "setid.mat",
    "cars": "devkit/cars_train_annos.mat",
    "cub200": "image_class_labels.txt",
    "pets": "annotations/trainval.txt",
}


def _items(*parts: Part) -> list[tuple[Path, int]]:
    found = []
    for part in parts:
        assert isinstance(part, ImagePaths)
        found += [(Path(p), n) for p, n in zip(part.paths, part.labels.tolist(), strict=True)]
    return found


def _is_whole(data: Dataset, written: Written) -> bool:
    """Every image once, in its official part, with its label."""
    of = {
        part: [(path, label) for path, label, its in written if its == part]
        for part in ("train", "val", "test")
    }
    if of["val"]:
        assert _items(data.validation) == of["val"] and _items(data.train) == of["train"]
    else:
        assert sorted(_items(data.train, data.validation)) == sorted(of["train"])
        assert len(data.validation) == len(data.validation.labels.unique())
    return _items(data.test) == of["test"]


def test_official_parts_are_read(name: str, write: Write, tmp_path: Path) -> None:
    written = write(name, tmp_path)
    data = load_dataset(name, tmp_path)
    assert _is_whole(data, written)
    if name == "flowers102":
        assert len(data.classes) == 102
        assert (data.classes[0], data.classes[101]) == ("pink primrose", "blackberry lily")
    else:
        assert data.classes == CLASSES[name]
    assert data.native_size is None
    images, labels = next(iter(training_batches(data, View(16, 3, workers=0), 2, seed=0)))
    assert images.shape == (2, 3, 16, 16) and labels.max() < len(data.classes)


def test_it_is_named_by_its_path_or_by_the_folder_that_holds_it(
    name: str, write: Write, folder_of: FolderOf, tmp_path: Path
) -> None:
    written = write(name, tmp_path)
    for path in (tmp_path, tmp_path / folder_of(name)):
        data = load_dataset(f"{name}:{path}")
        assert _is_whole(data, written)
        assert data.name == f"{name}:{path}"


def test_it_is_found_where_data_lie(
    name: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write(name, tmp_path / "mine")
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "mine"))
    assert _is_whole(load_dataset(name), written)
    monkeypatch.delenv("NASAUG_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "mine").rename(tmp_path / ".cache" / "nasaug")
    cached = load_dataset(name)
    assert [p.name for p, _ in _items(cached.test)] == [
        p.name for p, _, s in written if s == "test"
    ]


def test_what_is_not_there_is_named_with_the_places_and_the_remedy(
    name: str, folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ValueError, match=f"{name} was not found") as caught:
        load_dataset(name)
    said = str(caught.value)
    for place in (tmp_path / "mine", tmp_path / "home" / ".cache" / "nasaug"):
        assert str(place / folder_of(name)) in said
    assert f"{name}:PATH, --data-dir or $NASAUG_DATA" in said
    offered = name not in ("cars", "cub200")
    assert ("--download" in said) == offered
    assert ("torchvision offers no download, so get" in said) != offered


@pytest.mark.parametrize("download", [False, True])
def test_a_missing_list_is_named(
    download: bool, write: Write, folder_of: FolderOf, tmp_path: Path
) -> None:
    """Of the two that cannot be downloaded."""
    for name in ("cars", "cub200"):
        write(name, tmp_path)
        gone = tmp_path / folder_of(name) / A_LIST[name]
        gone.unlink()
        with pytest.raises(ValueError, match="is not complete") as caught:
            load_dataset(name, tmp_path, download=download)
        assert f"{gone} is missing" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense\n", b"{}\n", b"MATLAB 5.0 MAT-file" + bytes(200)]
)
def test_a_damaged_list_is_refused_with_the_lists(
    content: bytes, name: str, write: Write, folder_of: FolderOf, tmp_path: Path
) -> None:
    write(name, tmp_path)
    damaged = tmp_path / folder_of(name) / A_LIST[name]
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} in .*{folder_of(name)} ") as caught:
        load_dataset(name, tmp_path)
    said = str(caught.value)
    assert A_LIST[name] in said or "list is empty" in said or "names for" in said


def test_images_that_the_lists_name_must_be_there(
    name: str, write: Write, folder_of: FolderOf, tmp_path: Path
) -> None:
    written = write(name, tmp_path)
    test = [path for path, _, part in written if part == "test"]
    for path in test[:2]:
        path.unlink()
    with pytest.raises(
        ValueError, match=f"lacks 2 of its {len(test)} test images, such as {test[0]}"
    ):
        load_dataset(name, tmp_path)


def test_a_part_without_images_is_named(write: Write, tmp_path: Path) -> None:
    write("food101", tmp_path)
    (tmp_path / "food-101/meta/test.json").write_text(json.dumps({"apple_pie": []}))
    with pytest.raises(ValueError, match=r"food101 in .* has no test images: its list is empty"):
        load_dataset("food101", tmp_path)
    write("flowers102", tmp_path)
    sets: dict[str, Any] = {"trnid": [2, 4], "tstid": [5, 6], "valid": np.zeros((1, 0))}
    savemat(tmp_path / "flowers-102" / "setid.mat", sets)
    with pytest.raises(ValueError, match=r"flowers102 in .* has no validation images"):
        load_dataset("flowers102", tmp_path)


def test_a_class_without_a_name_is_refused(write: Write, tmp_path: Path) -> None:
    write("cars", tmp_path)
    names = np.array([["one", "two", "three"]], object)
    folder = tmp_path / "stanford_cars"
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    test = np.array([[("00001.jpg", np.uint8(4))]], [("fname", "O"), ("class", "O")])
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": np.hstack([test, test])})
    with pytest.raises(ValueError, match="has test images of classes 4 to 4, but names for 3"):
        load_dataset("cars", tmp_path)


def test_archives_are_unpacked_only_when_asked(name: str, packed: Packed, tmp_path: Path) -> None:
    archives = packed(name, tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="is there and not unpacked: add --download") as caught:
        load_dataset(name, tmp_path / "data")
    assert str(archives[0]) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    data = load_dataset(name, tmp_path / "data", download=True)
    assert len(data.test) > 0
    # From now on without being asked, and without the archives.
    for archive in archives:
        archive.unlink()
    assert _items(load_dataset(name, tmp_path / "data").train) == _items(data.train)
    assert not list(tmp_path.rglob(".unpacking-*"))


def test_archives_elsewhere_are_unpacked_into_the_cache(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in $NASAUG_DATA, which may be nobody's to write, stays as it is."""
    packed("pets", tmp_path / "mine")
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = sorted((tmp_path / "mine").rglob("*"))
    data = load_dataset("pets", download=True)
    assert sorted((tmp_path / "mine").rglob("*")) == before
    cache = tmp_path / "home" / ".cache" / "nasaug" / "oxford-iiit-pet"
    assert all(cache in path.parents for path, _ in _items(data.test))


def test_a_damaged_archive_is_named_and_leaves_nothing(packed: Packed, tmp_path: Path) -> None:
    images, _ = packed("pets", tmp_path)
    images.write_bytes(images.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"images\.tar\.gz cannot be unpacked .*download it again"):
        load_dataset("pets", tmp_path, download=True)
    assert not (tmp_path / "oxford-iiit-pet" / "images").exists()


@pytest.mark.parametrize("name", ["food101", "flowers102", "pets"])
def test_what_torchvision_offers_is_downloaded_when_asked_only(
    name: str,
    write: Write,
    folder_of: FolderOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its download is a stand-in that puts the files where torchvision would."""
    kind = {"food101": "Food101", "flowers102": "Flowers102", "pets": "OxfordIIITPet"}[name]
    method = "download" if name == "flowers102" else "_download"
    written: Written = []

    def stand_in(self: Any) -> None:
        if not (tmp_path / folder_of(name)).exists():
            written.extend(write(name, tmp_path))

    monkeypatch.setattr(f"torchvision.datasets.{kind}.{method}", stand_in)
    with pytest.raises(ValueError, match=f"{name} was not found"):
        load_dataset(name, tmp_path)
    assert not written
    assert _is_whole(load_dataset(name, tmp_path, download=True), written)


def test_a_download_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no way to the host")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet._download", fail)
    with pytest.raises(ValueError, match=r"pets cannot be downloaded to .*: no way to the host"):
        load_dataset("pets", tmp_path, download=True)


def test_a_path_and_a_folder_to_look_in_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pets:here says where .* and so does --data-dir"):
        load_dataset("pets:here", tmp_path)


def test_data_that_comes_with_the_package_has_no_path() -> None:
    with pytest.raises(ValueError, match="fashion-mnist-mini comes with the package; leave out"):
        load_dataset("fashion-mnist-mini:/data")


def test_paths_go_with_other_names_too(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cifar10 was not found") as caught:
        load_dataset(f"cifar10:{tmp_path}")
    assert f"in {tmp_path}): name" in str(caught.value)
    with pytest.raises(ValueError, match="unknown data set 'pet': did you mean 'pets'"):
        load_dataset("pet:here")


def test_an_incomplete_folder_is_completed_by_its_archive(
    packed: Packed, tmp_path: Path, folder_of: FolderOf
) -> None:
    """One of two archives was unpacked by hand."""
    packed("pets", tmp_path)
    shutil.unpack_archive(tmp_path / "annotations.tar.gz", tmp_path / folder_of("pets"))
    with pytest.raises(ValueError, match=r"not complete: .*images is missing, but .*images\.tar"):
        load_dataset("pets", tmp_path)
    assert len(load_dataset("pets", tmp_path, download=True).test) == 6
