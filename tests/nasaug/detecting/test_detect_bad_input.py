"""`nasaug detect`: what it refuses, in which words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.detection import (
    Detector,
    DetectorOptions,
    load_detector,
    save_detector,
)
from nasaug.supernet import Network, load_target

Nasaug = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=detector.strides=[4, 64]"], "micro_3k has no feature map of stride 64"),
        (["--set=detector.strides=[8, 4]"], "strides must grow"),
        (["--set=detector.sizes=96"], "unknown key 'detector.sizes': did you mean"),
        (["--set=detector.extra=[64,64,64,64]"], "extra must have at most 3 widths"),
        (["--set=resolution=96"], "resolution is 96, but a detector reads"),
        (["--set=train.resolution=96"], "train.resolution is 96, but a detector reads"),
        (["--set=train.head_lr_factor=10"], "train.head_lr_factor is for a classifier"),
        (["--set=netaug.alpha=2"], "method baseline trains the detector alone"),
        (["--method=both"], "method must be 'baseline' or 'netaug', but got 'both'"),
        (["--style=pascal"], "style must be 'voc' or 'coco', but got 'pascal'"),
        (["--set=data.mean=[0.5]"], "data.mean and data.std go together"),
        (
            ["--set=data.mean=[0.5]", "--set=data.std=[0.5]"],
            "must have 3 numbers, one for each channel that micro_3k reads, but have 1",
        ),
        (["--data=fashion-mnist"], "unknown detection data 'fashion-mnist'"),
        (["--data=coco:nowhere"], "nowhere is no COCO data"),
        (["--set=data.classes=[cat]"], "has no category 'cat', which is one of the classes"),
        (["--target=mbv9"], "unknown target 'mbv9'"),
        (
            ["--init=nowhere"],
            "--init nowhere: nowhere does not exist; name a finished run's folder or a weights",
        ),
        (["--init=other.safetensors"], "the weights are not of micro_3k, but of micro_10k"),
        (
            ["--method=netaug", "--set=netaug.width=[1.0]", "--set=netaug.expand=[1.0]"],
            "there is nothing to train micro_3k in",
        ),
        (
            ["--method=netaug", "--set=netaug.largest=x", "--set=netaug.extra_depth=[0, 1]"],
            "kernel_growth and extra_depth make a largest network from factors",
        ),
        (
            ["--set=train.batch_size=64"],
            "batch_size x workers must be at most the 16 training images, but got 64 x 1",
        ),
        (["--data-dir=here"], "--data-dir has no meaning here"),
        (["--download"], "--download has no meaning here"),
    ],
)
def test_training_that_cannot_be(
    nasaug: Nasaug,
    coco: str,
    arguments: list[str],
    message: str,
    small: tuple[str, ...],
    classified: Callable[..., Network],
    refused: Callable[[Any, str], None],
) -> None:
    classified(Path("other.safetensors"), "micro_10k")
    refused(nasaug("detect", "train", *small, coco, *arguments, "--out=here"), message)
    assert not Path("here").exists()


def test_a_start_that_cannot_be(
    nasaug: Nasaug,
    trained: Path,
    coco: str,
    small: tuple[str, ...],
    refused: Callable[[Any, str], None],
) -> None:
    """Another training's detector, on another target or cut off, and a run that has none yet."""
    path = trained / "weights.safetensors"
    arguments = ("detect", "train", *small, coco, "--out=here")
    remedy = "; name the target that it is on, or other weights"
    refused(
        nasaug(*arguments, "--target=micro_10k", f"--init={trained}"),
        f"{path} holds a detector on micro_3k, not on micro_10k{remedy}",
    )
    refused(
        nasaug(*arguments, "--set=in_channels=1", f"--init={path}"),
        f"{path} holds a detector on micro_3k for colour pictures, not on micro_3k for grey "
        f"pictures{remedy}",
    )
    Path("begun").mkdir()
    Path("begun/weights.safetensors").write_bytes(path.read_bytes()[:-9])
    refused(
        nasaug(*arguments, "--init=begun"),
        "begun/weights.safetensors is damaged or no safetensors file",
    )
    Path("begun/weights.safetensors").unlink()
    refused(
        nasaug(*arguments, "--init=begun"),
        "--init begun: begun/weights.safetensors does not exist; name a finished run's",
    )
    assert not Path("here").exists()


def test_training_needs_data(
    nasaug: Nasaug, small: tuple[str, ...], refused: Callable[[Any, str], None]
) -> None:
    refused(
        nasaug("detect", "train", *small),
        "a detector needs pictures with boxes: --data voc:PATH or coco:PATH",
    )


def without_objects(folder: Path, part: str) -> str:
    path = folder / "annotations" / f"instances_{part}2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": []}))
    return f"--data=coco:{folder}"


@pytest.mark.parametrize(("part", "name"), [("val", "validation"), ("test", "test")])
def test_a_part_without_objects(
    nasaug: Nasaug,
    trained: Path,
    scenes: dict[str, Path],
    tmp_path: Path,
    part: str,
    name: str,
    small: tuple[str, ...],
    refused: Callable[[Any, str], None],
) -> None:
    shutil.copytree(scenes["coco"], tmp_path / "bare")
    data = without_objects(tmp_path / "bare", part)
    message = f"the {name} part of coco:{tmp_path}/bare has no object to find on its"
    refused(nasaug("detect", "train", *small, data), message)
    if part == "test":
        refused(nasaug("detect", "evaluate", str(trained), data), message)


def test_evaluation_that_cannot_be(
    nasaug: Nasaug,
    trained: Path,
    coco: str,
    scenes: dict[str, Path],
    tmp_path: Path,
    classified: Callable[..., Network],
    refused: Callable[[Any, str], None],
) -> None:
    refused(
        nasaug("detect", "evaluate", str(trained), coco, "--target=micro_10k"),
        "holds a detector on micro_3k, not on micro_10k",
    )
    refused(
        nasaug("detect", "evaluate", "nowhere", coco),
        "nowhere does not exist; name the folder of a finished nasaug detect train",
    )
    refused(
        nasaug("detect", "evaluate", str(trained), coco, "--style=pascal"),
        "unknown style of mAP 'pascal'",
    )
    classified(Path("net.safetensors"))
    refused(nasaug("detect", "evaluate", "net.safetensors", coco), "holds no detector")
    other = Detector(load_target("micro_3k"), ("cat", "dog"), DetectorOptions(size=64))
    save_detector(Path("cats.safetensors"), other, {"mean": [0.5] * 3, "std": [0.2] * 3})
    refused(nasaug("detect", "evaluate", "cats.safetensors", coco), "has no category 'cat'")
    save_detector(Path("bare.safetensors"), load_detector(trained / "weights.safetensors"))
    refused(
        nasaug("detect", "evaluate", "bare.safetensors", coco),
        "bare.safetensors is damaged: of how pictures are shown",
    )
