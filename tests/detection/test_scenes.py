"""Composed scenes: exact boxes, enough of everything to be seen, parts and formats that agree."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.detection import SceneStyle, compose, load_detection_set, read_picture, write_scenes
from nasaug.training import Dataset, ImageArray

COUNTS = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def flat() -> ImageArray:
    """One item: a white block of 10 x 16 pixels on black."""
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    images[0, 0, 4:20, 9:19] = 255
    return ImageArray(images, torch.tensor([4]))


def test_a_box_is_tight_around_what_is_drawn(flat: ImageArray) -> None:
    """A flat item is the only thing of its colour, so that it can be found in the pixels."""
    for seed in range(20):
        scene = compose(flat, SceneStyle(items=(1, 1), sizes=(64, 100)), random.Random(seed))
        ((x0, y0, x1, y1),) = scene.boxes
        colour = scene.pixels[(y0 + y1) // 2, (x0 + x1) // 2]
        rows, columns = (scene.pixels == colour).all(2).nonzero()
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x0, y0, x1, y1]
        assert scene.areas == ((x1 - x0) * (y1 - y0),)
        assert scene.labels == (4,)
        longer = max(x1 - x0, y1 - y0) / min(scene.pixels.shape[:2])
        assert 0.2 - 0.02 <= longer <= 0.6 + 0.02
        assert (y1 - y0) / (x1 - x0) == pytest.approx(1.6, rel=0.15)


def test_overlapping_items_are_boxed_by_what_is_seen(flat: ImageArray) -> None:
    """Each flat item has a colour of its own: what is seen of it is counted in the pixels."""
    style = SceneStyle(items=(5, 5), scales=(0.5, 0.7), sizes=(64, 64))
    overlapping = 0
    for seed in range(30):
        scene = compose(flat, style, random.Random(seed))
        for number, (box, area) in enumerate(zip(scene.boxes, scene.areas, strict=True)):
            y, x = np.argwhere(scene.owners == number)[0]
            seen = (scene.pixels == scene.pixels[y, x]).all(2)
            rows, columns = seen.nonzero()
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert found == box
            assert seen.sum() == area
            overlapping += area < (box[2] - box[0]) * (box[3] - box[1])
    assert overlapping > 20


@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.7])
def test_no_item_is_hidden_by_more_than_the_style_allows(flat: ImageArray, hidden: float) -> None:
    """A flat item's whole size follows from its longer side: 1.6 times the shorter one."""
    style = SceneStyle(items=(6, 6), scales=(0.5, 0.5), sizes=(64, 64), hidden=hidden)
    counts, least = [], 1.0
    for seed in range(30):
        scene = compose(flat, style, random.Random(seed))
        counts.append(len(scene.boxes))
        least = min(least, *(area / (32 * 20) for area in scene.areas))
    assert least >= 1 - hidden
    assert hidden == 0 or least < 1 - hidden + 0.2
    assert 1 <= min(counts) <= max(counts) <= 6


def test_styles_are_kept(clothes: Dataset) -> None:
    assert isinstance(clothes.train, ImageArray)
    style = SceneStyle(sizes=(96, 160), items=(2, 3), colour=False)
    scenes = [compose(clothes.train, style, random.Random(seed)) for seed in range(30)]
    assert {scene.pixels.ndim for scene in scenes} == {2}
    sides = [side for scene in scenes for side in scene.pixels.shape]
    assert 96 <= min(sides) < 110
    assert 150 < max(sides) <= 160
    assert {len(scene.items) for scene in scenes} == {2, 3}
    assert all(
        scene.labels == tuple(int(clothes.train.labels[item]) for item in scene.items)
        for scene in scenes
    )


def test_both_formats_show_the_same_scenes(voc_scenes: Path, coco_scenes: Path) -> None:
    voc = load_detection_set(f"voc:{voc_scenes}")
    coco = load_detection_set(f"coco:{coco_scenes}")
    assert voc.classes == coco.classes
    assert voc.category_ids == coco.category_ids
    for ours, theirs in ((voc.train, coco.train), (voc.validation, coco.validation)):
        for first, second in zip(ours, theirs, strict=True):
            assert torch.equal(first.boxes, second.boxes)
            assert torch.equal(first.labels, second.labels)
            assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
            assert (second.areas <= first.areas).all()


def test_files_are_the_same_for_a_seed(clothes: Dataset, tmp_path: Path) -> None:
    def written(name: str, **options: Any) -> dict[str, bytes]:
        folder = write_scenes(tmp_path / name, "coco", COUNTS, clothes, picture="png", **options)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    first = written("first", seed=3)
    assert len(first) == 3 + 7
    assert written("second", seed=3) == first
    other = written("third", seed=4)
    assert other.keys() == first.keys()
    assert not any(first[name] == other[name] for name in first if name.endswith("png"))


def test_png_keeps_every_pixel(clothes: Dataset, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "data", "voc", COUNTS, clothes, seed=3, picture="png")
    data = load_detection_set(f"voc:{folder}")
    assert data.classes == clothes.classes
    parts = {"train": (data.train, clothes.train), "test": (data.test, clothes.test)}
    for name, (part, source) in parts.items():
        assert isinstance(source, ImageArray)
        for number, image in enumerate(part):
            scene = compose(source, SceneStyle(), random.Random(f"3/{name}/{number}"))
            pixels = read_picture(image.path, image.width, image.height)
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), scene.pixels)
            assert image.boxes.tolist() == [list(box) for box in scene.boxes]
            assert image.labels.tolist() == list(scene.labels)


def test_each_part_shows_the_items_of_its_own_part(clothes: Dataset, tmp_path: Path) -> None:
    """With items of one class a part, the labels tell where they come from."""

    def only(part: Any, label: int) -> ImageArray:
        assert isinstance(part, ImageArray)
        return part.subset((part.labels == label).nonzero()[:, 0])

    data = replace(
        clothes,
        train=only(clothes.train, 1),
        validation=only(clothes.validation, 5),
        test=only(clothes.test, 8),
    )
    folder = write_scenes(tmp_path / "data", "coco", COUNTS, data)
    found = load_detection_set(f"coco:{folder}")
    parts = (found.train, found.validation, found.test)
    assert [set(part.labels.tolist()) for part in parts] == [{1}, {5}, {8}]


def test_grey_scenes_are_grey_files(clothes: Dataset, tmp_path: Path) -> None:
    style = SceneStyle(colour=False)
    folder = write_scenes(tmp_path / "data", "voc", COUNTS, clothes, style)
    image = load_detection_set(f"voc:{folder}").train[0]
    with Image.open(image.path) as picture:
        assert picture.mode == "L"
    pixels = read_picture(image.path, image.width, image.height)
    assert torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (16, 64)}, "sizes must be a smallest and a largest value between 32 and 4096"),
        ({"items": (3, 2)}, "items must be a smallest and a largest value between 1 and 100, but "),
        ({"scales": (0.5, 1.5)}, "scales must be a smallest and a largest value between 0.1 and 1"),
        ({"hidden": 1.0}, "hidden must be a share of at least 0, below 1, but got 1.0"),
    ],
)
def test_bad_styles(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SceneStyle(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "cocoo"}, "unknown format 'cocoo': did you mean 'coco'?"),
        ({"picture": "jpeg"}, "unknown picture 'jpeg': did you mean 'jpg'?"),
        ({"counts": {"train": 1, "val": 1}}, "counts must say how many scenes train, val and test"),
        ({"counts": COUNTS | {"val": 0}}, "at least 1, but got {'train': 3, 'val': 0, 'test': 2}"),
    ],
)
def test_bad_requests(
    clothes: Dataset, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    wanted = {"format": "voc", "counts": COUNTS} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        write_scenes(tmp_path, items=clothes, **wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(clothes: Dataset, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="must be a new or an empty folder"):
        write_scenes(tmp_path, "voc", COUNTS, clothes)


def test_items_in_colour_are_refused() -> None:
    source = ImageArray(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(ValueError, match="grey pictures on black, but these have 3 channels"):
        compose(source, SceneStyle(), random.Random(0))
