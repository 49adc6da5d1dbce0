"""mAP against pycocotools, torchmetrics and the VOC devkit's definition, and what always holds."""

from __future__ import annotations

import contextlib
import io
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from nasaug.detection import (
    AnnotatedImage,
    AnnotatedImages,
    Detections,
    judge_detections,
    load_detection_set,
)

CLASSES = ("cat", "dog", "cow")
Rows = np.ndarray[Any, np.dtype[Any]]


def picture(boxes: Rows, labels: Rows, number: int, flag: str = "crowd", share: float = 0) -> Any:
    """Random areas below the boxes', and a random `share` of the objects with the `flag`."""
    rng = np.random.default_rng(number)
    edges = torch.from_numpy(boxes.astype(np.float32))
    areas = (edges[:, 2:] - edges[:, :2]).prod(1) * torch.from_numpy(
        rng.uniform(0.5, 1, len(edges))
    )
    nothing = torch.zeros(len(labels), dtype=torch.bool)
    flags = {"difficult": nothing, "crowd": nothing}
    flags[flag] = torch.from_numpy(rng.random(len(labels)) < share)
    return AnnotatedImage(
        f"{number}.jpg",
        400,
        400,
        edges,
        torch.from_numpy(labels).long(),
        areas.float(),
        image_id=number,
        **flags,
    )


def detections(boxes: Rows, scores: Rows, labels: Rows) -> Detections:
    return Detections(
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(scores.astype(np.float32)),
        torch.from_numpy(labels).long(),
    )


def made_up(seed: int, whole: bool = False, flag: str = "crowd") -> tuple[list[Detections], Any]:
    """30 pictures, some empty, with objects of all sizes, some `flag`ged, some on each other; what
    is found is near them, twice, wrong, or sure of equal scores within a picture."""
    rng = np.random.default_rng(seed)
    found, images = [], []
    for number in rng.permutation(30):
        n = int(rng.integers(0, 7))
        corner = rng.uniform(0, 200, (n, 2))
        truth = np.concatenate([corner, corner + rng.uniform(4, 180, (n, 2))], 1)
        # Of another size: two of one size may be overlapped equally, and then their order counts.
        truth = np.concatenate([truth, truth[: n // 3] * (1 if whole else 1.05) + 5])
        labels = rng.integers(0, 2 if seed % 2 else 3, len(truth))
        guesses = np.concatenate([truth, truth, rng.uniform(0, 300, (12, 4))])
        guesses += rng.normal(0, 6, guesses.shape)
        guesses = np.concatenate([np.sort(guesses[:, 0::2]), np.sort(guesses[:, 1::2])], 1)
        guesses = guesses[:, [0, 2, 1, 3]]
        guessed = np.concatenate([labels, labels, rng.integers(0, 3, 12)])
        if whole:
            truth, guesses = np.round(truth), np.round(guesses)
        scores = rng.choice(rng.uniform(0, 1, 20), len(guesses))
        images.append(picture(truth, labels, int(number) + 1, flag, 0.2))
        found.append(detections(guesses, scores, guessed))
    return found, AnnotatedImages.of(images)


def entries(box: Tensor, label: Tensor, image_id: int) -> list[dict[str, Any]]:
    rows = zip(box.double().tolist(), label.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": k + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for (x0, y0, x1, y1), k in rows
    ]


def write_results(path: Path, found: list[Detections], truths: AnnotatedImages) -> Path:
    rows = [
        entry | {"score": score}
        for each, image in zip(found, truths, strict=True)
        for entry, score in zip(
            entries(each.boxes, each.labels, image.image_id), each.scores.tolist(), strict=True
        )
    ]
    path.write_text(json.dumps(rows))
    return path


def pycocotools_stats(truths: Path, results: Path) -> tuple[list[float], Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(truths)
        judged = COCOeval(reference, reference.loadRes(str(results)), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged.stats.tolist(), judged.eval["precision"]


@pytest.mark.parametrize("seed", [0, 1])
def test_coco_is_pycocotools(tmp_path: Path, seed: int) -> None:
    found, truths = made_up(seed)
    rows: list[dict[str, Any]] = []
    for image in truths:
        for entry, area, crowd in zip(
            entries(image.boxes, image.labels, image.image_id),
            image.areas.tolist(),
            image.crowd.tolist(),
            strict=True,
        ):
            rows.append(entry | {"id": len(rows) + 1, "area": area, "iscrowd": int(crowd)})
    content = {
        "images": [{"id": image.image_id, "width": 400, "height": 400} for image in truths],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": rows,
    }
    path = tmp_path / "truths.json"
    path.write_text(json.dumps(content))
    stats, precision = pycocotools_stats(path, write_results(tmp_path / "r.json", found, truths))
    scores = judge_detections(found, truths, CLASSES, "coco")
    ours = [-1 if value is None else value for value in scores.summary.values()]
    assert ours == pytest.approx(stats, abs=1e-6)
    assert all(0 < value < 1 for value in stats)
    for k, name in enumerate(CLASSES):
        parts = [precision[:, :, k, 0, -1].mean(1)[where].mean() for where in (slice(None), 0, 5)]
        expected = [None if value < 0 else pytest.approx(value, abs=1e-6) for value in parts]
        assert list(scores.per_class[name].values()) == expected
    # Odd seeds have no cow.
    assert (scores.per_class["cow"]["AP"] is None) == bool(seed % 2)
    assert (len(scores.notes) == 1) == bool(seed % 2)


def test_coco_on_files_that_both_read(tmp_path: Path, coco_scenes: Path) -> None:
    data = load_detection_set(f"coco:{coco_scenes}")
    rng = torch.Generator().manual_seed(0)
    found = []
    for image in data.test:
        boxes = image.boxes.repeat(3, 1) + torch.randn(3 * len(image.boxes), 4, generator=rng) * 2
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2])
        labels = image.labels.repeat(3)
        labels[::4] = 0
        found.append(Detections(boxes, torch.rand(len(boxes), generator=rng), labels))
    assert data.category_ids == tuple(range(1, 11))
    file = coco_scenes / "annotations" / "instances_test2017.json"
    results = write_results(tmp_path / "results.json", found, data.test)
    stats, _ = pycocotools_stats(file, results)
    scores = judge_detections(found, data.test, data.classes, "coco")
    ours = [-1 if value is None else value for value in scores.summary.values()]
    assert ours == pytest.approx(stats, abs=1e-6)
    assert 0.1 < scores.mean_ap < 0.9


def devkit_ap(found: list[Detections], truths: AnnotatedImages, label: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m, line by line: pixels from 1, a box's last pixel belongs to it."""
    rows = []
    for i, each in sorted(enumerate(found), key=lambda item: truths[item[0]].image_id):
        for box, score, k in zip(each.boxes.numpy(), each.scores, each.labels, strict=True):
            if k == label:
                rows.append((float(score), i, box + np.array([1, 1, 0, 0], np.float32)))
    rows.sort(key=lambda row: -row[0])
    taken: dict[int, set[int]] = defaultdict(set)
    tp, fp = np.zeros(len(rows)), np.zeros(len(rows))
    to_find = sum(int(((t.labels == label) & ~t.difficult).sum()) for t in truths)
    for d, (_, i, bb) in enumerate(rows):
        best, most = -1, -np.inf
        of_class = (truths[i].labels == label).nonzero().flatten().tolist()
        for j in of_class:
            gt = truths[i].boxes[j].numpy() + np.array([1, 1, 0, 0], np.float32)
            iw = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1
            ih = min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if iw > 0 and ih > 0:
                size = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                size += (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1)
                overlap = iw * ih / (size - iw * ih)
                if overlap > most:
                    most, best = overlap, j
        if most < 0.5:
            fp[d] = 1
        elif not truths[i].difficult[best]:
            tp[d] = best not in taken[i]
            fp[d] = best in taken[i]
            taken[i].add(best)
    tps, fps = np.cumsum(tp), np.cumsum(fp)
    with np.errstate(invalid="ignore"):
        recall, precision = tps / to_find, tps / (tps + fps)
    points = [max([0, *precision[recall >= k / 10]], default=0) for k in range(11)]
    steps = np.concatenate([[0], recall, [1]])
    envelope = np.concatenate([[0], np.nan_to_num(precision), [0]])
    for i in range(len(envelope) - 2, -1, -1):
        envelope[i] = max(envelope[i], envelope[i + 1])
    where = np.flatnonzero(steps[1:] != steps[:-1]) + 1
    area = np.sum((steps[where] - steps[where - 1]) * envelope[where])
    return float(area), float(np.mean(points))


@pytest.mark.parametrize("seed", [2, 4, 6])
def test_voc_is_the_devkits(seed: int) -> None:
    found, truths = made_up(seed, whole=True, flag="difficult")
    assert truths.difficult.any()
    scores = judge_detections(found, truths, CLASSES, "voc")
    expected = {name: devkit_ap(found, truths, k) for k, name in enumerate(CLASSES)}
    for name, (area, points) in expected.items():
        assert scores.per_class[name]["AP50"] == pytest.approx(area, abs=1e-12)
        assert scores.per_class[name]["AP50_11point"] == pytest.approx(points, abs=1e-12)
        assert 0.05 < area < 0.95
    means = np.mean(list(expected.values()), axis=0)
    assert list(scores.summary.values()) == pytest.approx(means.tolist(), abs=1e-12)
    assert scores.mean_ap == scores.summary["AP50"]


def test_voc_at_11_recalls_is_torchmetrics_at_every_tenth() -> None:
    """The two find the same where no objects of a class lie on each other. 13 objects of a class:
    no recall is a tenth, which torchmetrics has in float32."""
    rng = np.random.default_rng(0)
    images, found = [], []
    for number in range(13):
        boxes = np.array([[20, 20, 60, 60], [120, 20, 180, 60], [20, 120, 60, 220]], np.float32)
        guesses = np.concatenate([boxes, boxes, boxes + 150]) + rng.normal(0, 5, (9, 4))
        images.append(picture(boxes, np.arange(3), number + 1))
        found.append(detections(guesses, rng.random(9), np.arange(9) % 3))
    truths = AnnotatedImages.of(images)
    metric = MeanAveragePrecision(iou_thresholds=[0.5], extended_summary=True)
    metric.update(
        [{"boxes": f.boxes, "scores": f.scores, "labels": f.labels} for f in found],
        [{"boxes": t.boxes, "labels": t.labels} for t in truths],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = metric.compute()
    points = theirs["precision"][0, ::10, :, 0, -1].mean(0).tolist()
    scores = judge_detections(found, truths, CLASSES, "voc")
    ours = [scores.per_class[name]["AP50_11point"] for name in CLASSES]
    assert ours == pytest.approx(points, abs=1e-6)
    assert 0.3 < min(points) < max(points) < 0.95
    coco = judge_detections(found, truths, CLASSES, "coco")
    assert coco.summary["AP50"] == pytest.approx(float(theirs["map_50"]), abs=1e-6)


seeds = st.integers(0, 10_000)
styles = st.sampled_from(["voc", "coco"])
few = given_settings(max_examples=25, deadline=None)


def distinct(found: list[Detections], seed: int) -> list[Detections]:
    """With other scores, of which no two are equal."""
    rng = np.random.default_rng(seed)
    counts = [len(each.scores) for each in found]
    scores = torch.from_numpy(rng.permutation(sum(counts)).astype(np.float32) + 1) / 1000
    parts = scores.split(counts)
    return [replace(each, scores=part) for each, part in zip(found, parts, strict=True)]


@few
@given(seeds, styles)
def test_a_perfect_detector_has_1(seed: int, style: str) -> None:
    _, truths = made_up(seed, flag="difficult")
    found = [Detections(t.boxes, torch.full((len(t.labels),), 0.5), t.labels) for t in truths]
    summary = judge_detections(found, truths, CLASSES, style).summary
    precisions = [v for k, v in summary.items() if k.startswith("AP") and v is not None]
    assert precisions == pytest.approx([1.0] * len(precisions))


@few
@given(seeds, styles)
def test_a_wrong_detection_that_is_least_sure_never_raises_ap(seed: int, style: str) -> None:
    found, truths = made_up(seed)
    before = judge_detections(found, truths, CLASSES, style).per_class
    wrong = detections(np.array([[350, 350, 399, 399]]), np.array([-1]), np.array([seed % 3]))
    more = [
        Detections(
            torch.cat([each.boxes, wrong.boxes]),
            torch.cat([each.scores, wrong.scores]),
            torch.cat([each.labels, wrong.labels]),
        )
        for each in found
    ]
    after = judge_detections(more, truths, CLASSES, style).per_class
    for name, values in before.items():
        for key, value in values.items():
            new = after[name][key]
            assert (new is None) == (value is None)
            assert new is None or value is None or new <= value + 1e-12


@few
@given(seeds, styles)
def test_the_order_of_pictures_and_boxes_plays_no_part(seed: int, style: str) -> None:
    found, truths = made_up(seed)
    found = distinct(found, seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truths)).tolist()
    moved, images = [], []
    for i in order:
        mine = torch.from_numpy(rng.permutation(len(found[i].scores)))
        each = found[i]
        moved.append(Detections(each.boxes[mine], each.scores[mine], each.labels[mine]))
        image = truths[i]
        own = torch.from_numpy(rng.permutation(len(image.labels)))
        names = ("boxes", "labels", "areas", "difficult", "crowd")
        images.append(replace(image, **{name: getattr(image, name)[own] for name in names}))
    first = judge_detections(found, truths, CLASSES, style)
    second = judge_detections(moved, AnnotatedImages.of(images), CLASSES, style)
    assert first == second


def test_pictures_may_come_in_any_order_with_equal_scores() -> None:
    found, truths = made_up(3)
    order = list(range(len(truths)))[::-1]
    for style in ("voc", "coco"):
        first = judge_detections(found, truths, CLASSES, style)
        again = judge_detections([found[i] for i in order], truths.subset(order), CLASSES, style)
        assert first == again
