"""Average precision of detections, as Pascal VOC and as COCO define it, on plain arrays.

Both sort a class's detections by score, call each right or wrong, and average the precision over
the recall; they differ in nearly everything else.

- VOC: Everingham et al., "The PASCAL Visual Object Classes Challenge" (IJCV 2010), section 4.2, and
  the devkit's VOCevaldet.m. A detection stands or falls by the object that it overlaps most; an
  intersection over union (IoU) of at least 0.5 finds it, the first detection of an object is right
  and every other one wrong. AP is the area under the precision's envelope (VOC2010 and later), or
  the mean of it at the recalls 0, 0.1, ..., 1 (VOC2007). It is our own: no kept library has it.
- COCO: Lin et al., "Microsoft COCO" (ECCV 2014) and cocodataset.org/#detection-eval, by
  faster-coco-eval, which gives pycocotools' numbers. A detection takes the best object that is
  still free, at the IoUs 0.50, 0.55, ..., 0.95; the precision is read at 101 recalls; of each
  picture and class the 100 surest detections count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

VOC_OVERLAP = 0.5
COCO_MOST = 100
# The twelve numbers of COCO's summary, in its order.
COCO_SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Summary = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class BoxRows:
    """Boxes of all pictures. `picture` (n,) counts from 0, `boxes` is (n, 4). `worth` (n,) is a
    detection's score or an object's area in pixels. `ignored` (n,): neither right nor wrong."""

    picture: Indices
    boxes: Floats
    labels: Indices
    worth: Floats
    ignored: Flags


def _voc(found: BoxRows, truth: BoxRows, classes: int) -> tuple[Summary, list[Summary]]:
    order = np.argsort(-found.worth, kind="stable")
    overlap, nearest = (each[order] for each in _most_overlapping(found, truth, classes))
    hit = overlap >= VOC_OVERLAP
    neither = hit.copy()
    neither[hit] = truth.ignored[nearest[hit]]
    # The first claim on an object is right.
    claims = np.flatnonzero(hit & ~neither)
    right = np.zeros(len(order), np.bool_)
    right[claims[np.unique(nearest[claims], return_index=True)[1]]] = True
    to_find = np.bincount(truth.labels[~truth.ignored], minlength=classes)
    labels = found.labels[order]
    values = [_voc_ap(right[(labels == k) & ~neither], int(to_find[k])) for k in range(classes)]
    return {name: _mean([each[name] for each in values]) for name in values[0]}, values


def _voc_ap(right: Flags, to_find: int) -> Summary:
    """A class's AP; `right` (n,) is in the order of falling scores."""
    if not to_find:
        return {"AP50": None, "AP50_11point": None}
    rights = np.cumsum(right)
    precision = rights / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # A recall of at least k / 10, in whole numbers: 3 of 10 reach 0.3.
    first = np.searchsorted(10 * rights, np.arange(11) * to_find)
    return {
        "AP50": float(envelope[right].sum() / to_find),
        "AP50_11point": float(np.append(envelope, 0.0)[first].sum() / 11),
    }


def _most_overlapping(found: BoxRows, truth: BoxRows, classes: int) -> tuple[Floats, Indices]:
    """Each detection's largest IoU with an object of its picture and class, and that object's row:
    the first of several. Without any, 0 and row 0."""
    order = np.argsort(truth.picture * classes + truth.labels, kind="stable")
    groups = (truth.picture * classes + truth.labels)[order]
    own = found.picture * classes + found.labels
    begin = np.searchsorted(groups, own, "left")
    counts = np.searchsorted(groups, own, "right") - begin
    # All pairs of a detection with an object, the detections one after the other.
    start = np.cumsum(counts) - counts
    detection = np.repeat(np.arange(len(own)), counts)
    thing = order[np.repeat(begin - start, counts) + np.arange(counts.sum())]
    iou = _iou(found.boxes[detection], truth.boxes[thing])
    some = counts > 0
    overlap, nearest = np.zeros(len(own)), np.zeros(len(own), np.int64)
    overlap[some] = np.maximum.reduceat(iou, start[some]) if some.any() else 0
    best = np.flatnonzero(iou == overlap[detection])
    rows, first = np.unique(detection[best], return_index=True)
    nearest[rows] = thing[best[first]]
    return overlap, nearest


def _iou(a: Floats, b: Floats) -> Floats:
    """Of pairs: a, b (n, 4) -> (n,); 0 for two boxes without an area."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = sides.clip(0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - common
    iou: Floats = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return iou


def _coco(found: BoxRows, truth: BoxRows, classes: int) -> tuple[Summary, list[Summary]]:
    pictures = int(max(found.picture.max(initial=0), truth.picture.max(initial=0))) + 1
    truths = COCO(
        {
            "images": [{"id": i} for i in range(pictures)],
            "categories": [{"id": label, "name": str(label)} for label in range(classes)],
            "annotations": [
                # An object 0 would count as not found.
                {"id": i + 1, "image_id": j, "category_id": k, "bbox": b, "area": a, "iscrowd": c}
                for i, (j, k, b, a, c) in enumerate(_rows(truth))
            ],
        }
    )
    detections = [
        {"image_id": j, "category_id": k, "bbox": b, "score": score, "segmentation": []}
        for j, k, b, score, _ in _rows(found)
    ]
    judged = COCOeval_faster(truths, truths.loadRes(detections), "bbox")
    judged.run()
    stats = [None if value < 0 else float(value) for value in judged.stats]
    # (IoUs, recalls, classes, sizes, limits): of objects of all sizes, with all that counts.
    precision = judged.eval["precision"][:, :, :, 0, -1]
    values: list[Summary] = []
    for label in range(classes):
        by_overlap = precision[:, :, label].mean(1)
        parts = {"AP": by_overlap.mean(), "AP50": by_overlap[0], "AP75": by_overlap[5]}
        values.append({k: None if v < 0 else float(v) for k, v in parts.items()})
    return dict(zip(COCO_SUMMARY, stats, strict=True)), values


def _rows(boxes: BoxRows) -> Iterator[tuple[int, int, list[float], float, int]]:
    """Picture, label, (x, y, width, height), worth, and whether it is ignored, 0 or 1."""
    corners = np.concatenate([boxes.boxes[:, :2], boxes.boxes[:, 2:] - boxes.boxes[:, :2]], 1)
    columns = boxes.picture, boxes.labels, corners, boxes.worth, boxes.ignored.astype(np.int64)
    return zip(*(column.tolist() for column in columns), strict=True)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


# Each maps (detections, objects, number of classes) to the summary and the classes' own values.
STYLES: dict[str, Callable[[BoxRows, BoxRows, int], tuple[Summary, list[Summary]]]] = {
    "voc": _voc,
    "coco": _coco,
}
