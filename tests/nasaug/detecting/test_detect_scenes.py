"""`nasaug detect scenes`: data to try detection on, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nasaug.detection import load_detection_set

Nasaug = Callable[..., Any]
FEW = ("--train=3", "--val=2", "--test=2")


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_what_is_written_is_read(nasaug: Nasaug, kind: str) -> None:
    done = nasaug("detect", "scenes", "here", f"--format={kind}", *FEW, "--size=64..96", "--json")
    assert done.json == {"folder": "here", "format": kind, "train": 3, "val": 2, "test": 2}
    data = load_detection_set(f"{kind}:here")
    parts = [part for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [3, 2, 2] and len(data.classes) == 10
    for part in parts:
        for one in map(part.__getitem__, range(len(part))):
            assert 64 <= one.width <= 96 and 64 <= one.height <= 96


def test_the_same_seed_gives_the_same_and_grey_is_grey(nasaug: Nasaug) -> None:
    for folder, more in (("a", ()), ("b", ()), ("c", ("--seed=1",)), ("d", ("--grey",))):
        done = nasaug("detect", "scenes", folder, *FEW, *more)
        assert done.code == 0 and f"nasaug detect train --data coco:{folder}" in done.said
    a, b, c, d = (sorted(Path(folder).rglob("*.jpg")) for folder in "abcd")
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]
    assert [p.read_bytes() for p in a] != [p.read_bytes() for p in c]
    pixels = Image.open(d[0]).convert("RGB").getcolors(100_000)
    assert pixels is not None
    assert all(max(colour) - min(colour) <= 2 for _, colour in pixels)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format=yolo",), "unknown format 'yolo'"),
        (("--size=tiny",), "--size must be a number of pixels"),
        (("--size=16",), "sizes must be a smallest and a largest value between 32 and 4096"),
        (("--train=0",), "at least 1"),
        (("--items=fashion-mnst",), "unknown data set"),
    ],
)
def test_wrong_options(nasaug: Nasaug, options: tuple[str, ...], said: str) -> None:
    done = nasaug("detect", "scenes", "here", *options)
    assert done.code == 2 and said in done.said
    assert not Path("here").exists()


def test_nothing_is_overwritten(nasaug: Nasaug) -> None:
    Path("here").mkdir()
    Path("here/mine.txt").write_text("mine")
    done = nasaug("detect", "scenes", "here", *FEW)
    assert done.code == 2 and "something in it" in done.said
    assert [path.name for path in Path("here").iterdir()] == ["mine.txt"]
