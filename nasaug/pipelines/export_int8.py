"""What int8 costs: top-1 before and after on all test images, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasaug.comparing.statistics import paired
from nasaug.console import progress_bar
from nasaug.export import INT8, Calibration, Format, Method, Model, Runner
from nasaug.pipelines.export_source import Source
from nasaug.training import Batches, calibration_batches, evaluation_batches

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Quantisation:
    """How int8 is asked for: `images` of the training part set the ranges; top-1 may fall by
    `max_drop` points."""

    images: int = 512
    method: Method = "minmax"
    max_drop: float = 1.0


def quantised(
    source: Source,
    model: Model,
    name: str,
    kind: Format,
    path: Path,
    wanted: Quantisation,
    before: Tensor,
) -> dict[str, Any]:
    """Write the int8 version of `path` beside it and judge it; `before` are the `hits` of the
    evaluated network."""
    assert kind.quantise is not None
    batches = calibration_batches(source.data, source.view, wanted.images, CALIBRATION_BATCH)
    images = [images for images, _ in batches]
    goal = path.with_name(path.name + INT8)
    kind.quantise(model, goal, Calibration(images, wanted.method))
    after = hits(kind.open(goal, torch.get_num_threads()), judged_on(source), f"{name} int8")
    found = paired(after.tolist(), before.tolist())
    return {
        "format": name,
        "images": len(after),
        "top1_before": float(before.mean()),
        "top1_after": float(after.mean()),
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "bytes_before": sum(file.stat().st_size for file in kind.files(path)),
        "bytes_after": sum(file.stat().st_size for file in kind.files(goal)),
        "calibration_images": sum(map(len, images)),
        "calibration": wanted.method if wanted.method in kind.ranges else kind.ranges[0],
        "max_drop": wanted.max_drop,
        "passed": 100 * float(before.mean() - after.mean()) <= wanted.max_drop,
    }


def judged_on(source: Source) -> Batches:
    return evaluation_batches(source.data, source.data.test, source.view)


def hits(run: Runner, batches: Batches, said: str) -> Tensor:
    """Whether each image is told right: 1.0 or 0.0, (N,) float64."""
    found = []
    with torch.inference_mode(), progress_bar(f"test images, {said}") as bar:
        for done, (images, labels) in enumerate(batches, 1):
            found.append((run(images).argmax(1) == labels).double())
            bar(done, len(batches), {})
    return torch.cat(found)
