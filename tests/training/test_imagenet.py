"""ImageNet as it lies on disk: where it is found, how it is read, what is said when it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nasaug.training import Dataset, load_dataset
from nasaug.training.folders import ImagePaths

WriteImage = Callable[..., Path]
CLASSES = ("n01440764", "n01443537", "n02119789")
PLACES = ("", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, write_image: WriteImage) -> Path:
    """Four training and two validation images of each class, in folders of their classes."""
    folder = tmp_path_factory.mktemp("original")
    for part, count in (("train", 4), ("val", 2)):
        for label in CLASSES:
            for number in range(count):
                write_image(folder / part / label / f"{label}_{number}.JPEG", seed=number)
    return folder


@pytest.fixture
def root(tmp_path: Path, original: Path) -> Callable[[str], Path]:
    """Puts the images in a place below the folder that it returns."""

    def make(place: str) -> Path:
        shutil.copytree(original, tmp_path / "data" / place)
        return tmp_path / "data"

    return make


def _flatten(val: Path) -> list[str]:
    """`val` without folders of classes, as in the original archive; the rows of Kaggle's table."""
    rows = []
    for number, path in enumerate(sorted(val.rglob("*.JPEG"))):
        name = f"ILSVRC2012_val_{number:08d}"
        rows.append(f"{name},{path.parent.name} 1 2 3 4 {path.parent.name} 5 6 7 8 ")
        path.rename(val / f"{name}.JPEG")
    for label in CLASSES:
        (val / label).rmdir()
    return ["ImageId,PredictionString", *reversed(rows)]


def _is_complete(data: Dataset) -> bool:
    assert isinstance(data.train, ImagePaths) and isinstance(data.test, ImagePaths)
    counts = [part.labels.bincount().tolist() for part in (data.train, data.validation, data.test)]
    of_their_class = all(
        CLASSES[label] in path
        for path, label in zip(data.train.paths, data.train.labels.tolist(), strict=True)
    )
    return data.classes == CLASSES and counts == [[3] * 3, [1] * 3, [2] * 3] and of_their_class


@pytest.mark.parametrize("place", PLACES)
def test_imagenet_is_found_in_its_usual_places(place: str, root: Callable[[str], Path]) -> None:
    """val is the test part; the validation part is held out of train."""
    assert _is_complete(load_dataset("imagenet", root(place)))


@pytest.mark.parametrize("place", ["", "imagenet21k-p", "imagenet21k_resized"])
@pytest.mark.parametrize("prefix", ["", "imagenet21k_"])
def test_imagenet_21k_p_is_found_in_its_usual_places(
    place: str, prefix: str, root: Callable[[str], Path]
) -> None:
    folder = root(place)
    for part in ("train", "val"):
        (folder / place / part).rename(folder / place / f"{prefix}{part}")
    assert _is_complete(load_dataset("imagenet21k-p", folder))


def test_folder_of_the_environment_is_looked_in(
    root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASAUG_DATA", str(root("imagenet")))
    assert _is_complete(load_dataset("imagenet"))


def test_other_training_folders_are_passed_over(
    root: Callable[[str], Path], write_image: WriteImage
) -> None:
    """A folder `train` whose classes are not WordNet's is some other data set."""
    folder = root("imagenet")
    write_image(folder / "train" / "cat" / "0.jpg")
    write_image(folder / "ILSVRC2012" / "train" / "n123" / "0.jpg")
    assert _is_complete(load_dataset("imagenet", folder))


@pytest.mark.parametrize("above", [0, 1, 3])
def test_validation_images_without_folders_are_read_by_kaggles_table(
    above: int, root: Callable[[str], Path]
) -> None:
    folder = root("ILSVRC/Data/CLS-LOC")
    val = folder / "ILSVRC/Data/CLS-LOC/val"
    rows = _flatten(val)
    (val.parents[above] / "LOC_val_solution.csv").write_text("\n".join(rows))
    data = load_dataset("imagenet", folder)
    assert _is_complete(data)
    assert isinstance(data.test, ImagePaths)
    assert data.test.paths[0].endswith("ILSVRC2012_val_00000000.JPEG")


def test_validation_images_without_folders_or_table_are_refused_with_the_remedy(
    root: Callable[[str], Path],
) -> None:
    folder = root("")
    _flatten(folder / "val")
    with pytest.raises(ValueError) as caught:
        load_dataset("imagenet", folder)
    said = str(caught.value)
    assert f"{folder / 'val'} has no folder of a class in it" in said
    assert "put them into folders of their classes" in said
    assert f"LOC_val_solution.csv into {folder}" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: ["a,b", *rows[1:]], "is not .*: it must have the columns ImageId and Pred"),
        (lambda rows: [], "is not .*: it must have the columns ImageId and PredictionString"),
        (lambda rows: ["\udcff\udcfe", *rows], "is not Kaggle's table.*can't decode"),
        (lambda rows: rows[:-1], r"does not list .*val_00000000.JPEG"),
        (
            lambda rows: [row.replace("n014", "n999") for row in rows],
            r"has .* of class 'n9994.*no folder",
        ),
        (
            lambda rows: [rows[0], *(row.split(",")[0] for row in rows[1:])],
            r"has .* of class '', which",
        ),
    ],
)
def test_table_that_does_not_fit_is_refused(
    change: Callable[[list[str]], list[str]], said: str, root: Callable[[str], Path]
) -> None:
    folder = root("")
    text = "\n".join(change(_flatten(folder / "val")))
    (folder / "LOC_val_solution.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"LOC_val_solution\.csv {said}"):
        load_dataset("imagenet", folder)


def test_empty_validation_folder_is_refused(root: Callable[[str], Path]) -> None:
    folder = root("")
    rows = _flatten(folder / "val")
    (folder / "LOC_val_solution.csv").write_text("\n".join(rows))
    for path in (folder / "val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="val has no images in it"):
        load_dataset("imagenet", folder)


def test_missing_validation_folder_is_refused(root: Callable[[str], Path]) -> None:
    folder = root("")
    shutil.rmtree(folder / "val")
    with pytest.raises(ValueError, match=r"has training images, but .*val is not a folder"):
        load_dataset("imagenet", folder)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("imagenet", ("train, val", "ILSVRC/Data/CLS-LOC")),
        ("imagenet21k-p", ("imagenet21k_train, imagenet21k_val or train, val", "imagenet21k-p")),
    ],
)
def test_data_that_is_not_there_is_refused_saying_where_it_was_looked_for(
    name: str, named: tuple[str, ...], tmp_path: Path
) -> None:
    """Asking for a download does not help: neither set is to be had without an account."""
    for download in (False, True):
        with pytest.raises(ValueError, match=f"^{name} was not found.*--data-dir") as caught:
            load_dataset(name, tmp_path, download=download)
        said = str(caught.value)
        assert all(word in said for word in (*named, "n01440764", str(tmp_path), "image-net.org"))
        assert "--download" not in said
