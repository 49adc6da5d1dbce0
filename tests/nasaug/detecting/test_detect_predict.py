"""`nasaug detect predict`: boxes in pictures, and as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.detection import (
    Detections,
)
from nasaug.pipelines.detect_predict import drawn

Nasaug = Callable[..., Any]


def test_prediction_draws_and_writes(
    nasaug: Nasaug, trained: Path, scenes: dict[str, Path]
) -> None:
    pictures = sorted((scenes["coco"] / "test2017").iterdir())[:2]
    done = nasaug(
        "detect", "predict", *map(str, pictures), f"--weights={trained}", "--score=0.01",
        "--out=seen", "--json",
    )  # fmt: skip
    assert done.code == 0
    assert done.json == json.loads(Path("seen/detections.json").read_text())
    assert [entry["picture"] for entry in done.json["pictures"]] == [*map(str, pictures)]
    found = 0
    for entry, path in zip(done.json["pictures"], pictures, strict=True):
        with Image.open(path) as before, Image.open(entry["drawn"]) as after:
            assert before.size == after.size
            width, height = before.size
            changed = np.array(before.convert("RGB")) != np.array(after)
        assert changed.any() == bool(entry["objects"])
        for thing in entry["objects"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
            assert thing["score"] >= 0.01
        scores = [thing["score"] for thing in entry["objects"]]
        assert scores == sorted(scores, reverse=True)
        found += len(scores)
    assert found > 0


def test_prediction_sees_what_evaluation_sees(
    nasaug: Nasaug, trained: Path, scenes: dict[str, Path]
) -> None:
    from nasaug.detection import detect, evaluation_batches, load_detection_set
    from nasaug.pipelines.detect_evaluate import shown_as_trained, trained_detector

    part = load_detection_set(f"coco:{scenes['coco']}").test.subset([2])
    detector, facts, path = trained_detector(str(trained), None)
    view = shown_as_trained(detector, facts, path, "cpu")
    (expected,) = detect(detector, evaluation_batches(part, view), part)
    done = nasaug("detect", "predict", part[0].path, f"--weights={trained}", "--score=0", "--json")
    objects = done.json["pictures"][0]["objects"]
    assert len(objects) == len(expected.scores)
    assert [thing["score"] for thing in objects] == pytest.approx(
        expected.scores.tolist(), abs=1e-5
    )
    boxes = torch.tensor([thing["box"] for thing in objects])
    assert torch.allclose(boxes, expected.boxes, atol=1e-2)


def test_without_weights_it_is_the_newest_detector(
    nasaug: Nasaug, trained: Path, scenes: dict[str, Path]
) -> None:
    picture = str(next((scenes["coco"] / "test2017").iterdir()))
    done = nasaug("detect", "predict", picture)
    assert done.code == 2
    assert done.said == (
        "nasaug: there is no detector below runs/; name one by --weights, or train one with nasaug "
        "detect train"
    )
    shutil.copytree(trained, "runs/20260101-000000-detect-micro_3k")
    done = nasaug("detect", "predict", picture, "--score=0.99")
    assert done.code == 0
    assert "by the newest detector, runs/20260101-000000-detect-micro_3k" in done.said
    assert "drawn into detections; all of it in detections/detections.json" in done.said


def test_a_box_is_drawn_at_its_place() -> None:
    picture = Image.new("RGB", (100, 80), "white")
    found = Detections(torch.tensor([[20.0, 30, 60, 70]]), torch.tensor([0.75]), torch.tensor([1]))
    pixels = np.array(drawn(picture, found, ("cat", "dog")))
    blue = (pixels == (0x56, 0xB4, 0xE9)).all(2)
    assert blue[30:70, 20].all() and blue[30:70, 59].all() and blue[69, 20:60].all()
    assert not blue[31:69, 21:59].any() and not blue[71:].any() and not blue[:, 62:].any()
    assert np.array(picture).min() == 255
    # The name stands on a ground of the same colour, above the box.
    assert blue[20:30, 21].any() and (pixels[18:30] < 100).all(2).any()


def test_prediction_that_cannot_be(
    nasaug: Nasaug, trained: Path, scenes: dict[str, Path], refused: Callable[[Any, str], None]
) -> None:
    good = str(next((scenes["coco"] / "test2017").iterdir()))
    weights = f"--weights={trained}"
    Path("broken.jpg").write_bytes(Path(good).read_bytes()[:300])
    refused(nasaug("detect", "predict", good, "broken.jpg", weights), "broken.jpg cannot be read")
    assert not Path("detections").exists()
    refused(nasaug("detect", "predict", "none.jpg", weights), "none.jpg cannot be read")
    Path("a").mkdir()
    shutil.copy(good, "a/x.jpg")
    shutil.copy(good, "x.jpg")
    refused(
        nasaug("detect", "predict", "a/x.jpg", "x.jpg", weights),
        "a/x.jpg and x.jpg would both be drawn into detections/x.png",
    )
    Image.new("RGB", (64, 64)).save("y.png")
    refused(
        nasaug("detect", "predict", "y.png", weights, "--out=."),
        "y.png is one of the pictures themselves; choose another --out",
    )
    assert nasaug("detect", "predict", weights).code == 2
