"""How good a detector is: mean average precision (mAP) as Pascal VOC and as COCO define it.

What the two mean by it, with papers, is in `precision.py`; here a detector's findings are checked,
brought together and summed up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasaug.detection.annotated import AnnotatedImages
from nasaug.detection.precision import COCO_MOST, STYLES, BoxRows, Floats, Indices
from nasaug.supernet import did_you_mean


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture, in any order.

    `boxes` float32 (n, 4): (x0, y0, x1, y1) in pixels of the picture as it lies on the disk, edges
    as those of an `AnnotatedImage`. `scores` float32 (n,): the larger, the surer. `labels` int64
    (n,) index the classes.

    Raises: ValueError for other shapes or types.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        n = len(self.scores) if self.scores.ndim == 1 else -1
        wanted: dict[str, tuple[Tensor, torch.dtype, tuple[int, ...]]] = {
            "boxes": (self.boxes, torch.float32, (n, 4)),
            "scores": (self.scores, torch.float32, (n,)),
            "labels": (self.labels, torch.int64, (n,)),
        }
        if any(t.dtype != dtype or t.shape != shape for t, dtype, shape in wanted.values()):
            got = ", ".join(f"{k} {t.dtype} {tuple(t.shape)}" for k, (t, *_) in wanted.items())
            raise ValueError(
                "detections need boxes float32 (n, 4), scores float32 (n,) and labels int64 (n,), "
                f"but got {got.replace('torch.', '')}; convert them, and use the same n"
            )


@dataclass(frozen=True)
class DetectionScores:
    """What a detector's findings are worth, as fractions; None where nothing defines it.

    `summary`: means over the classes that have something to find. voc: AP50, AP50_11point. coco:
    `COCO_SUMMARY`. Its first is `mean_ap`. `per_class`: AP50 and AP50_11point, or AP, AP50 and
    AP75, by class. `truths` counts the objects to find, `detections` all of them. `notes` say in
    words what did not count.
    """

    style: str
    summary: Mapping[str, float | None]
    per_class: Mapping[str, Mapping[str, float | None]]
    pictures: int
    truths: int
    detections: int
    notes: tuple[str, ...]

    @property
    def mean_ap(self) -> float:
        """mAP, by which detectors are compared: VOC's AP50 (area), or COCO's AP (0.50:0.95)."""
        value = next(iter(self.summary.values()))
        assert value is not None, "judging refuses pictures with nothing to find"
        return value

    def to_dict(self) -> dict[str, Any]:
        return {
            "style": self.style,
            "map": self.mean_ap,
            **self.summary,
            "per_class": {name: dict(values) for name, values in self.per_class.items()},
            "pictures": self.pictures,
            "truths": self.truths,
            "detections": self.detections,
            "notes": list(self.notes),
        }


def judge_detections(
    predictions: Sequence[Detections],
    truths: AnnotatedImages,
    classes: Sequence[str],
    style: str = "voc",
) -> DetectionScores:
    """The mAP of `predictions`, one a picture in the order of `truths`, by the rules of `style`.

    Objects that are difficult (VOC) or crowds (COCO) are neither to be found nor wrong to find; a
    set that has the other kind has it treated as its own. All that is found in pictures without
    objects is wrong. Classes without an object have no AP and are left out of all means, which
    `notes` say. Of equal scores the first counts first, pictures by their `image_id`, so that the
    order of the pictures plays no part.

    Raises: ValueError for an unknown style, another number of predictions than pictures, pictures
        of one `image_id`, labels that are none of the classes, a score or box that is not finite
        or whose edges are swapped, and pictures in which there is nothing to find.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style of mAP {style!r}: {did_you_mean(style, STYLES)}")
    if len(predictions) != len(truths):
        raise ValueError(
            f"every picture needs its detections, if only none, but {len(truths)} pictures have "
            f"{len(predictions)}"
        )
    order = truths.image_ids.argsort()
    numbers = truths.image_ids[order]
    if (numbers.diff() == 0).any():
        twice = numbers[1:][numbers.diff() == 0][0]
        raise ValueError(f"each picture needs an image_id of its own, but two have {int(twice)}")
    _check(predictions, truths, len(classes))
    found = _found([predictions[i] for i in order.tolist()])
    truth = _truth(truths.subset(order))
    to_find = np.bincount(truth.labels[~truth.ignored], minlength=len(classes))
    if not to_find.any():
        raise ValueError(
            f"mAP needs at least one object to find, but the {len(truths)} pictures have none that "
            "is neither difficult nor a crowd"
        )
    summary, values = STYLES[style](found, truth, len(classes))
    return DetectionScores(
        style=style,
        summary=summary,
        per_class=dict(zip(classes, values, strict=True)),
        pictures=len(truths),
        truths=int(to_find.sum()),
        detections=len(found.labels),
        notes=tuple(_notes(found, to_find, classes, style)),
    )


def _check(predictions: Sequence[Detections], truths: AnnotatedImages, classes: int) -> None:
    """Raises: ValueError that names the first picture with something wrong."""
    owner = torch.arange(len(predictions)).repeat_interleave(
        torch.tensor([len(each.scores) for each in predictions])
    )
    boxes, scores, labels = (
        torch.cat([getattr(each, name).cpu() for each in predictions])
        for name in ("boxes", "scores", "labels")
    )
    picture = torch.arange(len(truths)).repeat_interleave(truths.first.diff())
    rule = f"labels index the {classes} classes"
    faults = (
        (rule, "an object", truths.labels, _outside(truths.labels, classes), picture),
        (rule, "a detection", labels, _outside(labels, classes), owner),
        ("scores must be finite", "one", scores, ~scores.isfinite(), owner),
        ("boxes must be finite", "one", boxes, ~boxes.isfinite().all(1), owner),
        ("boxes must have x0 <= x1 and y0 <= y1", "one", boxes, _swapped(boxes), owner),
    )
    for rule, what, values, wrong, pictures in faults:
        if wrong.any():
            row = int(wrong.nonzero()[0])
            path = truths[int(pictures[row])].path
            raise ValueError(f"{rule}, but {what} of {path} has {values[row].tolist()}")


def _outside(labels: Tensor, classes: int) -> Tensor:
    return (labels < 0) | (labels >= classes)


def _swapped(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] > boxes[:, 2:]).any(1)


def _found(predictions: Sequence[Detections]) -> BoxRows:
    counts = [len(each.scores) for each in predictions]
    return BoxRows(
        picture=np.repeat(np.arange(len(counts)), counts),
        boxes=_numbers([each.boxes for each in predictions]),
        labels=torch.cat([each.labels for each in predictions]).cpu().numpy(),
        worth=_numbers([each.scores for each in predictions]),
        ignored=np.zeros(sum(counts), np.bool_),
    )


def _truth(truths: AnnotatedImages) -> BoxRows:
    return BoxRows(
        picture=np.repeat(np.arange(len(truths)), truths.first.diff().numpy()),
        boxes=_numbers([truths.boxes]),
        labels=truths.labels.numpy(),
        worth=_numbers([truths.areas]),
        ignored=(truths.difficult | truths.crowd).numpy(),
    )


def _numbers(tensors: list[Tensor]) -> Floats:
    # float64: a sum of float32 areas would move overlaps across the thresholds.
    values: Floats = torch.cat(tensors).detach().cpu().double().numpy()
    return values


def _notes(found: BoxRows, to_find: Indices, classes: Sequence[str], style: str) -> list[str]:
    notes = []
    without = [name for name, count in zip(classes, to_find, strict=True) if not count]
    if without:
        notes.append(f"left out, with nothing to find: {', '.join(without)}")
    groups = np.unique(found.picture * len(classes) + found.labels, return_counts=True)[1]
    beyond = int((groups - COCO_MOST).clip(0).sum())
    if style == "coco" and beyond:
        notes.append(
            f"{beyond:,} detections beyond the {COCO_MOST} surest of a picture and class: "
            "COCO does not count them"
        )
    return notes
