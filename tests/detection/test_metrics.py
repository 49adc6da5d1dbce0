"""mAP as VOC and COCO define it: by hand, rule by rule, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from nasaug.detection import (
    AnnotatedImage,
    AnnotatedImages,
    Detections,
    judge_detections,
)

CLASSES = ("cat", "dog", "cow")
Row = tuple[float, float, float, float]


def picture(
    boxes: Sequence[Row], labels: Sequence[int], number: int = 1, **more: Sequence[float]
) -> AnnotatedImage:
    edges = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sizes = (edges[:, 2:] - edges[:, :2]).prod(1)
    flags = {
        name: torch.tensor(more.get(name, [False] * len(labels)), dtype=torch.bool)
        for name in ("difficult", "crowd")
    }
    areas = torch.tensor(more["areas"]) if "areas" in more else sizes
    classes = torch.tensor(labels, dtype=torch.int64)
    return AnnotatedImage(
        f"{number}.jpg", 400, 400, edges, classes, areas, image_id=number, **flags
    )


def detections(
    boxes: Sequence[Row], scores: Sequence[float], labels: Sequence[int] | None = None
) -> Detections:
    labels = [0] * len(boxes) if labels is None else labels
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


NONE = detections([], [])
A: Row = (10, 10, 30, 30)
B: Row = (100, 100, 140, 160)
FAR: Row = (300, 300, 340, 340)


def test_by_hand() -> None:
    """Right, wrong, right: precisions 1, 1/2, 2/3 at the recalls 1/2, 1/2, 1."""
    truths = AnnotatedImages.of([picture([A, B], [0, 0])])
    found = [detections([B, FAR, A], [0.9, 0.8, 0.7])]
    voc = judge_detections(found, truths, ("cat",), "voc")
    assert voc.summary["AP50"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert voc.summary["AP50_11point"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    coco = judge_detections(found, truths, ("cat",), "coco")
    assert coco.summary["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    # A is small, B and what is wrong are medium: among their own, the right ones come first.
    assert (coco.summary["AP_small"], coco.summary["AP_medium"]) == (1.0, 1.0)
    assert (coco.summary["AP_large"], coco.summary["AR_large"]) == (None, None)
    assert (coco.summary["AR_1"], coco.summary["AR_10"]) == (0.5, 1.0)
    assert coco.to_dict()["map"] == coco.mean_ap == coco.summary["AP"]
    assert json.loads(json.dumps(voc.to_dict()))["per_class"] == {"cat": voc.per_class["cat"]}
    assert (voc.pictures, voc.truths, voc.detections, voc.notes) == (1, 2, 3, ())


def test_an_overlap_of_one_half_is_enough() -> None:
    truths = AnnotatedImages.of([picture([(0, 0, 20, 20)], [0])])
    for width, ap in ((10, 1.0), (9, 0.0)):
        found = [detections([(0, 0, width, 20)], [0.5])]
        for style in ("voc", "coco"):
            assert judge_detections(found, truths, ("cat",), style).summary["AP50"] == ap


def test_what_is_found_twice_is_wrong_the_second_time() -> None:
    """VOC's second detection is wrong though another object is free; COCO's takes that one."""
    near: Row = (10, 10, 30, 34)
    truths = AnnotatedImages.of([picture([A, near], [0, 0])])
    found = [detections([A, A], [0.9, 0.8])]
    assert judge_detections(found, truths, ("cat",), "voc").mean_ap == 0.5
    assert judge_detections(found, truths, ("cat",), "coco").summary["AP50"] == 1.0


@pytest.mark.parametrize("style", ["voc", "coco"])
@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_what_is_difficult_or_a_crowd_is_neither_right_nor_wrong(style: str, flag: str) -> None:
    flags = {flag: [False, True]}
    truths = AnnotatedImages.of([picture([A, B], [0, 0], **flags)])
    for boxes in ([A], [B, A], [B, B, A]):
        found = [detections(boxes, [0.9, 0.8, 0.7][: len(boxes)])]
        scores = judge_detections(found, truths, ("cat",), style)
        assert scores.mean_ap == 1.0
        assert scores.truths == 1


@pytest.mark.parametrize("style", ["voc", "coco"])
def test_pictures_without_objects(style: str) -> None:
    """What is found there is wrong; nothing found there is right."""
    truths = AnnotatedImages.of([picture([A], [0]), picture([], [], 2)])
    right = detections([A], [0.5])
    assert judge_detections([right, NONE], truths, ("cat",), style).mean_ap == 1.0
    wrong = detections([A], [0.9])
    assert judge_detections([right, wrong], truths, ("cat",), style).mean_ap == pytest.approx(0.5)
    assert judge_detections([NONE, NONE], truths, ("cat",), style).mean_ap == 0.0


@pytest.mark.parametrize("style", ["voc", "coco"])
def test_classes_without_objects_are_left_out_and_named(style: str) -> None:
    truths = AnnotatedImages.of([picture([A, B], [0, 2], crowd=[False, True])])
    found = [detections([A, A, B], [0.1, 0.9, 0.8], [0, 1, 2])]
    scores = judge_detections(found, truths, CLASSES, style)
    assert scores.mean_ap == 1.0
    assert scores.notes == ("left out, with nothing to find: dog, cow",)
    assert set(scores.per_class["dog"].values()) == {None}
    assert set(scores.per_class["cow"].values()) == {None}


def test_more_than_100_in_a_picture() -> None:
    truths = AnnotatedImages.of([picture([A], [0])])
    found = [detections([FAR] * 100 + [A] * 3, [0.9] * 100 + [0.5] * 3)]
    coco = judge_detections(found, truths, CLASSES[:1], "coco")
    assert coco.mean_ap == 0.0
    assert coco.notes == (
        "3 detections beyond the 100 surest of a picture and class: COCO does not count them",
    )
    voc = judge_detections(found, truths, CLASSES[:1], "voc")
    assert voc.mean_ap == pytest.approx(1 / 101)
    assert voc.notes == ()
    spread = replace(found[0], labels=torch.arange(103) % 2)
    assert judge_detections([spread], truths, CLASSES[:2], "coco").notes[1:] == ()


GOOD = AnnotatedImages.of([picture([A], [0]), picture([B], [1], 2)])
RIGHT = detections([A], [0.9])


@pytest.mark.parametrize(
    ("found", "truths", "style", "message"),
    [
        ([RIGHT], GOOD, "voc", "every picture needs its detections, if only none, but 2 pictures"),
        ([RIGHT, RIGHT], GOOD, "coc", "unknown style of mAP 'coc': did you mean 'coco'"),
        (
            [RIGHT, detections([A], [0.9], [2])],
            GOOD,
            "coco",
            r"labels index the 2 classes, but a detection of 2\.jpg has 2",
        ),
        (
            [RIGHT, detections([A], [0.9], [-1])],
            GOOD,
            "voc",
            r"labels index the 2 classes, but a detection of 2\.jpg has -1",
        ),
        (
            [RIGHT, RIGHT],
            AnnotatedImages.of([picture([A], [0]), picture([B], [7], 2)]),
            "voc",
            r"labels index the 2 classes, but an object of 2\.jpg has 7",
        ),
        (
            [detections([A, B], [0.9, float("nan")]), NONE],
            GOOD,
            "voc",
            r"scores must be finite, but one of 1\.jpg has nan",
        ),
        (
            [NONE, detections([(0, 0, float("inf"), 5)], [0.9])],
            GOOD,
            "voc",
            r"boxes must be finite, but one of 2\.jpg has \[0\.0, 0\.0, inf, 5\.0\]",
        ),
        (
            [detections([(9, 0, 5, 5)], [0.9]), NONE],
            GOOD,
            "coco",
            r"boxes must have x0 <= x1 and y0 <= y1, but one of 1\.jpg has \[9\.0, 0\.0, 5\.0",
        ),
        (
            [RIGHT, RIGHT],
            AnnotatedImages.of([picture([A], [0], 5), picture([B], [1], 5)]),
            "voc",
            "each picture needs an image_id of its own, but two have 5",
        ),
        (
            [RIGHT],
            AnnotatedImages.of([picture([A], [0], difficult=[True])]),
            "voc",
            "mAP needs at least one object to find, but the 1 pictures have none that is neither",
        ),
    ],
)
def test_bad_input(found: list[Detections], truths: Any, style: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_detections(found, truths, CLASSES[:2], style)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "got"),
    [
        (torch.zeros(2, 4), torch.zeros(3), torch.zeros(2).long(), r"scores float32 \(3,\)"),
        (torch.zeros(2, 5), torch.zeros(2), torch.zeros(2).long(), r"boxes float32 \(2, 5\)"),
        (torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2).long(), r"scores float32 \(2, 1\)"),
        (torch.zeros(2, 4), torch.zeros(2), torch.zeros(2), r"labels float32 \(2,\)"),
        (torch.zeros(2, 4).half(), torch.zeros(2), torch.zeros(2).long(), "boxes float16"),
    ],
)
def test_detections_of_wrong_shapes(boxes: Any, scores: Any, labels: Any, got: str) -> None:
    with pytest.raises(ValueError, match=rf"detections need boxes float32 \(n, 4\).*{got}"):
        Detections(boxes, scores, labels)
