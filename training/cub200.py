"""CUB-200-2011 by its own lists (Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011).

images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
image_class_labels.txt   1 1        (image, class)
train_test_split.txt     1 0        (image, whether it is for training)
classes.txt              1 001.Black_footed_Albatross
"""

from __future__ import annotations

from pathlib import Path

import torch

from nasaug.training.folders import ImagePaths
from nasaug.training.parts import Parts


def read_cub200(root: Path) -> Parts:
    """The official training and test parts of `root`/CUB_200_2011.

    Raises: ValueError naming the list, and its line, that is damaged; OSError.
    """
    folder = root / "CUB_200_2011"
    names = _read_list(folder / "images.txt")
    class_of = _numbers(folder / "image_class_labels.txt", names)
    is_training = _numbers(folder / "train_test_split.txt", names)
    for image, given in is_training.items():
        if given not in (0, 1):
            raise ValueError(
                f"train_test_split.txt has {given} for image {image}; it must be 1 (training) or 0"
            )
    classes = _read_list(folder / "classes.txt")
    label_of = {number: label for label, number in enumerate(sorted(classes))}
    parts = []
    for wanted in (1, 0):
        images = [image for image in names if is_training[image] == wanted]
        for image in images:
            if class_of[image] not in label_of:
                raise ValueError(
                    f"classes.txt names no class {class_of[image]}, which image {image} is of"
                )
        labels = [label_of[class_of[image]] for image in images]
        paths = tuple(str(folder / "images" / names[image]) for image in images)
        parts.append(ImagePaths(paths, torch.tensor(labels, dtype=torch.int64)))
    return Parts(parts[0], parts[1], tuple(_title(classes[number]) for number in sorted(classes)))


def _title(name: str) -> str:
    """001.Black_footed_Albatross as Black footed Albatross."""
    return name.rpartition(".")[2].replace("_", " ")


def _read_list(path: Path) -> dict[int, str]:
    """The text of each line by the number that it begins with."""
    found: dict[int, str] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        number, _, rest = text.partition(" ")
        if not number.isdecimal() or not rest.strip() or int(number) in found:
            raise ValueError(
                f"{path.name}, line {line}: a number not seen before and a text are needed, but it "
                f"is {text!r}"
            )
        found[int(number)] = rest.strip()
    return found


def _numbers(path: Path, images: dict[int, str]) -> dict[int, int]:
    """A list's numbers, one for each of the images."""
    found = _read_list(path)
    for line, text in enumerate(found.values(), 1):
        if not text.isdecimal():
            raise ValueError(f"{path.name}, line {line}: {text!r} is not a number")
    missing = next((image for image in images if image not in found), None)
    if missing is not None:
        raise ValueError(f"{path.name} does not list image {missing} of images.txt")
    return {image: int(text) for image, text in found.items()}
