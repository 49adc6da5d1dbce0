"""Detecting on pictures of one's own: boxes drawn into them, and all that was found as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nasaug.console import emit_json, emit_table, say, show_log_messages
from nasaug.detection import (
    Detections,
    DetectionView,
    Detector,
    SquareTransform,
    in_picture,
    normalised,
)
from nasaug.pipelines.detect_evaluate import shown_as_trained, trained_detector
from nasaug.setting import choose_device
from nasaug.training import RunFolder, keep_caches, open_picture, write_json
from nasaug.workspace import folders_near

if TYPE_CHECKING:
    from PIL.Image import Image

FOUND = "detections.json"
# Part of the name of a run's folder (see `locate_run`).
DETECT = "-detect-"
# Told apart by the colour-blind too, one a class in turn: Okabe and Ito's, and three of Tol's. Each
# with what is written on it.
COLOURS = (
    ("#e69f00", "black"),
    ("#56b4e9", "black"),
    ("#009e73", "black"),
    ("#f0e442", "black"),
    ("#0072b2", "white"),
    ("#d55e00", "black"),
    ("#cc79a7", "black"),
    ("#882255", "white"),
    ("#999999", "black"),
    ("#332288", "white"),
)


def run_prediction(
    pictures: Sequence[str], weights: str | None, out: str, score: float, device: str, as_json: bool
) -> None:
    """Write OUT/NAME.png for each picture and OUT/detections.json; nothing if one is unreadable.

    Raises: ValueError for a picture that cannot be read, two of one name, and for weights that are
        no detector's; OSError.
    """
    show_log_messages()
    keep_caches()
    folder = Path(out)
    names = _names(pictures, folder)
    detector, facts, path = trained_detector(_newest() if weights is None else weights, None)
    view = shown_as_trained(detector, facts, path, device)
    detector = detector.to(choose_device(device))
    found = [_found(open_picture(picture), detector, view, score) for picture in pictures]
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name, own in zip(pictures, names, found, strict=True):
        drawn(open_picture(picture), own, detector.classes).save(name)
    result = {
        "weights": str(path),
        "score": score,
        "pictures": [
            {
                "picture": picture,
                "drawn": str(name),
                "objects": _objects(own, detector.classes),
            }
            for picture, name, own in zip(pictures, names, found, strict=True)
        ],
    }
    write_json(folder / FOUND, result)
    if as_json:
        emit_json(result)
        return
    rows = [
        [picture, thing["class"], f"{100 * thing['score']:.1f}"]
        + [f"{edge:.1f}" for edge in thing["box"]]
        for picture, own in zip(pictures, found, strict=True)
        for thing in _objects(own, detector.classes)
    ]
    columns = ("picture", "class", "score (%)", "x0", "y0", "x1", "y1")
    emit_table(f"Found by {path}, of scores from {100 * score:g} %", columns, rows, left=2)
    say(f"drawn into {folder}; all of it in {folder / FOUND}")


def drawn(picture: Image, found: Detections, classes: Sequence[str]) -> Image:
    """A copy of `picture` (RGB) with the boxes in it, the surest on top, and what they are of."""
    from PIL import ImageDraw, ImageFont

    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    thick = max(1, round(max(picture.size) / 250))
    font = ImageFont.load_default(size=max(9, max(picture.size) / 40))
    order = found.scores.argsort()
    for index in order.tolist():
        x0, y0, x1, y1 = found.boxes[index].tolist()
        label = int(found.labels[index])
        colour, ink = COLOURS[label % len(COLOURS)]
        # The last pixel of a box lies in front of its edge.
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=thick)
        text = f"{classes[label]} {100 * float(found.scores[index]):.0f} %"
        width, height = draw.textbbox((0, 0), text, font=font, anchor="lt")[2:]
        # Above the box and within the picture, as far as there is room.
        left = max(0.0, min(x0, picture.width - width - 3))
        top = max(0.0, y0 - height - 3)
        draw.rectangle((left, top, left + width + 2, top + height + 2), fill=colour)
        draw.text((left + 1, top + 1), text, fill=ink, font=font, anchor="lt")
    return picture


def _found(picture: Image, detector: Detector, view: DetectionView, score: float) -> Detections:
    """What is seen on `picture` at scores from `score` on, in its own pixels."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    square, _, _ = SquareTransform(view, augments=False)(pixels, *none)
    with torch.inference_mode():
        said = detector(normalised(square[None].to(view.device), view))
        found = in_picture(detector.detections(said)[0], view.size, *picture.size)
    sure = found.scores >= score
    return Detections(found.boxes[sure], found.scores[sure], found.labels[sure])


def _newest() -> str:
    """The folder of the newest finished run of a detector below runs/, which is said.

    Raises: ValueError if there is none.
    """
    for folder in folders_near(None):
        if DETECT in folder.name and RunFolder(folder, writes=False).finished:
            say(f"by the newest detector, {folder}")
            return str(folder)
    raise ValueError(
        "there is no detector below runs/; name one by --weights, or train one with nasaug detect "
        "train"
    )


def _objects(found: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Surest first; boxes are (x0, y0, x1, y1), edges in pixels."""
    return [
        {"class": classes[label], "score": round(score, 6), "box": [round(e, 3) for e in box]}
        for label, score, box in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        )
    ]


def _names(pictures: Sequence[str], folder: Path) -> list[Path]:
    """Where each picture's copy goes. Raises: ValueError for two that would be one file."""
    names = [folder / f"{Path(picture).stem}.png" for picture in pictures]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(
                f"{pictures[names.index(name)]} and {pictures[index]} would both be drawn into "
                f"{name}; predict them into different folders (--out)"
            )
        if name.resolve() in {Path(picture).resolve() for picture in pictures}:
            raise ValueError(f"{name} is one of the pictures themselves; choose another --out")
    return names
