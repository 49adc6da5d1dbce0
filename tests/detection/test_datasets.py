"""Detection data by name, the validation part held out, parts as values."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nasaug.detection import AnnotatedImages, DetectionSet, load_detection_set
from nasaug.detection.datasets import held_out

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vok:x", {}, "unknown detection data 'vok:x': did you mean 'voc'? (voc:PATH, coco:PATH)"),
        ("coco", {}, "needs the folder it lies in: coco:PATH"),
        ("voc:", {}, "needs the folder it lies in: voc:PATH"),
        ("coco:x", {"validation": 1.0}, "must be a share between 0 and 1, but got 1.0"),
        ("coco:x", {"classes": []}, "classes must be different names, at least one, but got []"),
        ("coco:x", {"classes": ["a", "a"]}, "classes must be different names"),
        ("coco:/nowhere", {}, "/nowhere is no COCO data: it needs /nowhere/annotations/instances_"),
        ("voc:/nowhere", {}, "/nowhere is no Pascal VOC data"),
    ],
)
def test_bad_requests(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_detection_set(name, **options)  # type: ignore[arg-type]


def test_the_validation_part_is_the_same_every_time(tmp_path: Path, write_coco: Write) -> None:
    folder = write_coco(tmp_path / "data", count=20)
    first, second = (load_detection_set(f"coco:{folder}", validation=0.3) for _ in range(2))
    ids = [first.train.image_ids.tolist(), first.validation.image_ids.tolist()]
    assert ids == [second.train.image_ids.tolist(), second.validation.image_ids.tolist()]
    assert [len(part) for part in ids] == [14, 6]
    assert sorted(ids[0] + ids[1]) == [*range(1, 21)]


def test_a_single_picture_cannot_be_shared(scenes: DetectionSet) -> None:
    with pytest.raises(ValueError, match="a single training picture leaves none to validate on"):
        held_out(scenes.train.subset([0]), 0.1)


def test_parts_are_sequences_of_pictures(scenes: DetectionSet) -> None:
    part = scenes.train
    images = list(part)
    assert len(images) == len(part) == 24
    counts = part.first.diff().tolist()
    assert counts == [len(image.labels) for image in images]
    chosen = part.subset(torch.tensor([5, 2]))
    assert chosen.first.tolist() == [0, counts[5], counts[5] + counts[2]]
    for image, wanted in zip(chosen, (images[5], images[2]), strict=True):
        assert image.path == wanted.path
        assert image.image_id == wanted.image_id
        assert torch.equal(image.boxes, wanted.boxes)
        assert torch.equal(image.areas, wanted.areas)
    assert part[-1].path == images[23].path
    with pytest.raises(IndexError):
        part[24]
    with pytest.raises(ValueError, match="needs at least one picture, but got none"):
        AnnotatedImages.of([])


def test_digests_tell_sets_apart(scenes: DetectionSet, coco_scenes: Path) -> None:
    digest = scenes.digest()
    assert load_detection_set(f"coco:{coco_scenes}").digest() == digest
    file = coco_scenes / "annotations" / "instances_train2017.json"
    text = file.read_text()
    try:
        file.write_text(text.replace('"category_id": 3', '"category_id": 4', 1))
        assert load_detection_set(f"coco:{coco_scenes}").digest() != digest
    finally:
        file.write_text(text)
