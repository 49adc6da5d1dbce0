"""How long judging a detector takes, beside other libraries in one run.

    OMP_NUM_THREADS=1 python benchmarks/detection.py --rounds 5

The detections are made up: of every object a box near it, as an SSD leaves them, and wrong ones,
so many a picture that they make up COCO's 100. All libraries judge the same ones, from tensors to
the numbers, round by round in turn; medians of the seconds, with the least and the most: of the
clock, and those of the processor alone, which count on a machine that does other work. The bar:
5,000 objects' mAP in under 5 seconds on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from nasaug.detection import AnnotatedImage, AnnotatedImages, Detections, judge_detections

SIDE = 512
Judged = Callable[[], float]


def made_up(
    objects: int, a_picture: int, detections: int, classes: int, seed: int = 0
) -> tuple[list[Detections], AnnotatedImages]:
    """`objects` in pictures of `a_picture` each, with `detections` found in each picture."""
    generator = torch.Generator().manual_seed(seed)
    found, images = [], []
    for number in range(-(-objects // a_picture)):
        count = min(a_picture, objects - number * a_picture)
        truth = boxes(count, generator)
        labels = torch.randint(classes, (count,), generator=generator)
        nothing = torch.zeros(count, dtype=torch.bool)
        areas = (truth[:, 2:] - truth[:, :2]).prod(1)
        images.append(
            AnnotatedImage(
                f"{number}.jpg", SIDE, SIDE, truth, labels, areas, nothing, nothing, number + 1
            )
        )
        near = truth + torch.randn(count, 4, generator=generator) * 6
        near = torch.cat([near[:, :2], torch.maximum(near[:, 2:], near[:, :2] + 1)], 1)
        wrong = detections - count  # and less sure than the others
        unsure = torch.rand(wrong, generator=generator) / 2
        guesses = torch.randint(classes, (wrong,), generator=generator)
        found.append(
            Detections(
                torch.cat([near, boxes(wrong, generator)]),
                torch.cat([torch.rand(count, generator=generator), unsure]),
                torch.cat([labels, guesses]),
            )
        )
    return found, AnnotatedImages.of(images)


def boxes(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * SIDE * 0.7
    sides = 8 + torch.rand(count, 2, generator=generator) * SIDE * 0.3
    return torch.cat([corner, corner + sides], 1)


def by_pycocotools(found: list[Detections], truths: AnnotatedImages, classes: int) -> float:
    entries: list[dict[str, Any]] = []
    for image in truths:
        rows = (entry(image.image_id, box) for box in image.boxes.double().tolist())
        for row, label, area in zip(rows, image.labels.tolist(), image.areas.tolist(), strict=True):
            more = {"id": len(entries) + 1, "area": area, "iscrowd": 0}
            entries.append(row | {"category_id": label} | more)
    results = []
    for each, image in zip(found, truths, strict=True):
        rows = (entry(image.image_id, box) for box in each.boxes.double().tolist())
        labels = zip(rows, each.labels.tolist(), each.scores.tolist(), strict=True)
        results += [row | {"category_id": label, "score": score} for row, label, score in labels]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports on itself
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": image.image_id} for image in truths],
            "categories": [{"id": label, "name": str(label)} for label in range(classes)],
            "annotations": entries,
        }
        reference.createIndex()
        judged = COCOeval(reference, reference.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


def entry(image_id: int, box: list[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {"image_id": image_id, "bbox": [x0, y0, x1 - x0, y1 - y0]}


def by_torchmetrics(found: list[Detections], truths: AnnotatedImages) -> float:
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(
        [{"boxes": f.boxes, "scores": f.scores, "labels": f.labels} for f in found],
        [{"boxes": t.boxes, "labels": t.labels} for t in truths],
    )
    return float(metric.compute()["map"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--a-picture", type=int, default=7, help="objects; COCO has 7")
    parser.add_argument("--detections", type=int, default=100, help="in each picture")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.detections < given.a_picture:
        parser.error("--detections must be at least --a-picture")
    torch.set_num_threads(1)
    found, truths = made_up(given.objects, given.a_picture, given.detections, given.classes)
    names = [str(label) for label in range(given.classes)]
    ways: dict[str, Judged] = {
        "nasaug, VOC": lambda: judge_detections(found, truths, names, "voc").mean_ap,
        "nasaug, COCO": lambda: judge_detections(found, truths, names, "coco").mean_ap,
        "torchmetrics with faster-coco-eval": lambda: by_torchmetrics(found, truths),
        "pycocotools": lambda: by_pycocotools(found, truths, given.classes),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    maps: dict[str, float] = {}
    for _ in range(given.rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter(), time.process_time()
            maps[name] = way()
            ended = time.perf_counter(), time.process_time()
            seconds[name].append((ended[0] - began[0], ended[1] - began[1]))
    print(
        f"{given.objects:,} objects in {len(truths):,} pictures, "
        f"{len(truths) * given.detections:,} detections, {given.classes} classes"
    )
    for name, both in seconds.items():
        clock, processor = zip(*both[1:], strict=True)  # the first round warms up
        print(f"{name}: mAP {maps[name]:.6f} in {told(clock)}; processor {told(processor)}")


def told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
