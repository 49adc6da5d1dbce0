"""The data sets by name, each as three parts kept apart: train, validation, test.

The search and every choice during training see the validation part only; the test part is for one
look at the end. A long tail may be made of the training part; the other two stay as balanced as
they are. Nothing is downloaded unless asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from nasaug.supernet import did_you_mean
from nasaug.training.csv_images import read_csv_images
from nasaug.training.folders import read_image_folder
from nasaug.training.idx import read_idx
from nasaug.training.imagenet import imagenet_builder
from nasaug.training.pairs import in_pairs, pair_classes
from nasaug.training.parts import Builder, ImageArray, Part, Parts
from nasaug.training.splits import at_most, imbalanced, stratified_split
from nasaug.training.transfer_sets import transfer_builder

__all__ = ["DATASETS", "Dataset", "ImageArray", "Part", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Three parts, the classes' names, and the mean and deviation of the channels in 0..1."""

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def digest(self) -> str:
        """Tells data sets apart by their training part: pixels, or files' names, and labels."""
        part = self.train
        content = (
            part.images.numpy().tobytes()
            if isinstance(part, ImageArray)
            else repr(part.paths).encode()
        )
        digest = hashlib.blake2b(part.labels.numpy().tobytes(), digest_size=16)
        digest.update(content)
        return digest.hexdigest()

    @property
    def native_size(self) -> int | None:
        """The side of the images in pixels; None where it varies (image files)."""
        return self.train.images.shape[-1] if isinstance(self.train, ImageArray) else None


def load_dataset(
    name: str,
    folder: str | Path | None = None,
    validation: float = 0.1,
    download: bool = False,
    imbalance: float = 1.0,
    per_class: int | None = None,
) -> Dataset:
    """A data set by name (see `DATASETS`), NAME:PATH, `imagefolder:PATH` or `csv:FILE`.

    `folder` is where to look first (then $NASAUG_DATA, the system's folder, a cache in the home
    folder); NAME:PATH looks in PATH alone. `validation` is the share of the training part held
    out, stratified, the same images every time, where the data set has no validation part of its
    own. `per_class` keeps at most so many training images of each class (see `at_most`);
    `imbalance` above 1 makes a long tail of the training part (see `imbalanced`). Both act on what
    is left of it; validation and test stay as they are.

    Raises: ValueError for an unknown name (the nearest is offered), for data that cannot be used
        (one class, damaged files) and for data that is not there, saying where it was looked for.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation must be a share between 0 and 1, but got {validation}")
    kind, colon, path = name.partition(":")
    if colon and not path and kind in (*FROM_PATHS, *DATASETS):
        raise ValueError(f"{name} lacks a path after the colon")
    if colon and kind in FROM_PATHS:
        data = _assembled(name, FROM_PATHS[kind](Path(path)), validation)
    else:
        data = _assembled(name, _named(kind, path, folder, download), validation)
        data = _in_pairs(data) if kind in PAIRED else data
    train = data.train if per_class is None else at_most(data.train, per_class)
    return replace(data, train=imbalanced(train, imbalance))


def _named(kind: str, path: str, folder: str | Path | None, download: bool) -> Parts:
    if kind not in DATASETS:
        places = ", ".join(f"{prefix}:PATH" for prefix in FROM_PATHS)
        raise ValueError(f"unknown data set {kind!r}: {did_you_mean(kind, DATASETS)} (or {places})")
    if path and kind in EMBEDDED:
        raise ValueError(f"{kind} comes with the package; leave out :{path}")
    if path and folder is not None:
        raise ValueError(
            f"{kind}:{path} says where the data lie, and so does --data-dir (data.dir) {folder}; "
            "leave one of them out"
        )
    return DATASETS[kind](_roots(path or folder), download)


def _assembled(name: str, parts: Parts, validation: float) -> Dataset:
    """Three parts of what was read: what it has none of is held out of the training part."""
    train, test, classes, own_validation = parts
    if len(train.labels.unique()) < 2:
        raise ValueError(f"{name} has images of one class only; at least two are needed")
    if test is None:
        train, test = _held_out(train, TEST_SHARE)
    if own_validation is None:
        train, own_validation = _held_out(train, validation)
    channels = train.images.shape[1] if isinstance(train, ImageArray) else 3
    mean, std = CHANNEL_STATISTICS[channels]
    return Dataset(name, classes, train, own_validation, test, mean, std)


def _held_out(part: Part, share: float) -> tuple[Part, Part]:
    kept, held = stratified_split(part.labels, share)
    return part.subset(kept), part.subset(held)


def _in_pairs(data: Dataset) -> Dataset:
    """Two items a picture, paired within each part: no two parts share an item."""

    def paired(part: Part) -> ImageArray:
        assert isinstance(part, ImageArray)
        return ImageArray(*in_pairs(part.images, part.labels, len(data.classes)))

    try:
        train, validation, test = map(paired, (data.train, data.validation, data.test))
    except ValueError as error:
        raise ValueError(f"{data.name}: {error}") from None
    classes = pair_classes(data.classes)
    return replace(data, classes=classes, train=train, validation=validation, test=test)


def _roots(folder: str | Path | None) -> list[Path]:
    if folder is not None:
        return [Path(folder)]
    given = os.environ.get("NASAUG_DATA")
    roots = [Path(given)] if given else []
    return [*roots, Path("/usr/share/datasets"), Path.home() / ".cache" / "nasaug"]


def _fashion_mnist_mini(roots: list[Path], download: bool) -> Parts:
    with files("nasaug.training.embedded").joinpath("fashion_mnist_mini.npz").open("rb") as file:
        arrays = np.load(file)
        parts = [
            ImageArray(
                torch.from_numpy(arrays[f"{part}_images"])[:, None],
                torch.from_numpy(arrays[f"{part}_labels"]).long(),
            )
            for part in ("train", "test")
        ]
    return Parts(parts[0], parts[1], CLOTHES)


def _fashion_mnist(roots: list[Path], download: bool) -> Parts:
    """IDX files, gzipped or plain, as the authors, torchvision and Debian lay them out."""
    places = [root / sub for root in roots for sub in ("", "fashion-mnist", "FashionMNIST/raw")]
    for place in places:
        for ending in (".gz", ""):
            if (place / f"train-images-idx3-ubyte{ending}").exists():
                parts = [_read_pair(place, part, ending) for part in ("train", "t10k")]
                return Parts(parts[0], parts[1], CLOTHES)
    if download:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(roots[-1], download=True)
        return _fashion_mnist(roots, download=False)
    raise ValueError(_not_found("fashion-mnist", "train-images-idx3-ubyte(.gz)", roots))


def _read_pair(place: Path, part: str, ending: str) -> ImageArray:
    """Images and labels of one part. Raises: ValueError if they do not belong together."""
    images = read_idx(place / f"{part}-images-idx3-ubyte{ending}")
    labels = read_idx(place / f"{part}-labels-idx1-ubyte{ending}")
    whole = images.ndim == 3 and labels.ndim == 1 and len(images) == len(labels) > 0
    if not whole or labels.max() >= len(CLOTHES):
        raise ValueError(
            f"{place}/{part}-images and {part}-labels do not belong together: {images.shape} "
            f"images, {labels.shape} labels, which must be below {len(CLOTHES)}"
        )
    pixels = torch.from_numpy(images.copy())[:, None]
    return ImageArray(pixels, torch.from_numpy(labels.copy()).long())


def _cifar(name: str) -> Builder:
    def build(roots: list[Path], download: bool) -> Parts:
        from torchvision import datasets

        kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        for root in roots:
            # Without this file torchvision would only say "corrupted".
            if (root / kind.base_folder).is_dir() or (download and root == roots[-1]):
                try:
                    parts = [kind(root, train, download=download) for train in (True, False)]
                except RuntimeError as error:
                    raise ValueError(f"{name} in {root} cannot be used: {error}") from None
                arrays = [
                    ImageArray(
                        torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
                        torch.tensor(part.targets),
                    )
                    for part in parts
                ]
                return Parts(arrays[0], arrays[1], tuple(parts[0].classes))
        raise ValueError(_not_found(name, kind.base_folder, roots))

    return build


def _half(build: Builder, first: int) -> Builder:
    """Five of the ten classes of clothes, from `first` on, as a data set of its own."""

    def of_classes(part: Part) -> Part:
        assert isinstance(part, ImageArray)
        chosen = part.subset(((part.labels >= first) & (part.labels < first + 5)).nonzero()[:, 0])
        return replace(chosen, labels=chosen.labels - first)

    def build_half(roots: list[Path], download: bool) -> Parts:
        parts = build(roots, download)
        assert parts.test is not None
        classes = parts.classes[first : first + 5]
        return Parts(of_classes(parts.train), of_classes(parts.test), classes)

    return build_half


def _image_folder(path: Path) -> Parts:
    """`PATH/train/CLASS/*`, `PATH/val/CLASS/*` and `PATH/test/CLASS/*`.

    With `test` and `val`, each is what it says; with one of them, it is the test part and the
    validation part is held out from `train`.
    """
    train, classes = read_image_folder(path / "train")
    if len(classes) < 2:
        raise ValueError(f"{path / 'train'} has one class only ({classes[0]}); two are needed")
    others = [name for name in ("val", "test") if (path / name).is_dir()]
    if not others:
        raise ValueError(f"{path} needs a folder val or test beside train")
    parts = [read_image_folder(path / name, classes)[0] for name in others]
    return Parts(train, parts[-1], classes, parts[0] if len(parts) == 2 else None)


def _not_found(name: str, file: str, roots: list[Path]) -> str:
    looked = ", ".join(str(root) for root in roots)
    return (
        f"{name} was not found ({file} in {looked}): name its folder with --data-dir or "
        "$NASAUG_DATA, or allow the download with --download"
    )


CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Fashion-MNIST's own for grey images, ImageNet's for colour.
CHANNEL_STATISTICS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.286,), (0.353,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
DATASETS: dict[str, Builder] = {
    "fashion-mnist-mini": _fashion_mnist_mini,
    "fashion-mnist": _fashion_mnist,
    "fashion-mnist-mini-pairs": _fashion_mnist_mini,
    "fashion-mnist-pairs": _fashion_mnist,
    "fashion-mnist-mini-first": _half(_fashion_mnist_mini, 0),
    "fashion-mnist-mini-second": _half(_fashion_mnist_mini, 5),
    "fashion-mnist-first": _half(_fashion_mnist, 0),
    "fashion-mnist-second": _half(_fashion_mnist, 5),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "imagenet": imagenet_builder("imagenet"),
    "imagenet21k-p": imagenet_builder("imagenet21k-p"),
    "food101": transfer_builder("food101"),
    "flowers102": transfer_builder("flowers102"),
    "cars": transfer_builder("cars"),
    "cub200": transfer_builder("cub200"),
    "pets": transfer_builder("pets"),
}
# Data of one's own: what comes before the colon, and the path after it.
FROM_PATHS: dict[str, Callable[[Path], Parts]] = {
    "imagefolder": _image_folder,
    "csv": read_csv_images,
}
EMBEDDED = tuple(name for name in DATASETS if name.startswith("fashion-mnist-mini"))
# Of data without a test part. Fixed, so that the test images do not depend on `validation`.
TEST_SHARE = 0.2
# Shown as pictures of two items, made when the parts are apart (see `nasaug.training.pairs`).
PAIRED = ("fashion-mnist-mini-pairs", "fashion-mnist-pairs")
