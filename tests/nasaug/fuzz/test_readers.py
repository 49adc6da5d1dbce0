"""Whatever is in a file, reading it gives a value or an error that a user can act on.

No other exception (a traceback), no gigabytes for a number in a header.
`make test-slow` tries ten thousand bad files.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasaug.config import SearchConfig, load_config
from nasaug.detect_config import DetectConfig
from nasaug.detect_study_config import DetectStudy
from nasaug.detection import load_detection_set, load_detector, read_picture
from nasaug.devices import load_latency_table, parse_latency
from nasaug.pipelines.import_weights import run_import
from nasaug.pipelines.searched import read_search
from nasaug.search import parse_budget
from nasaug.search.budget import parse_band, parse_memory
from nasaug.supernet import (
    Architecture,
    load_space,
    load_target,
    macs,
    read_pickle_safely,
)
from nasaug.train_config import TrainConfig
from nasaug.training import RunFolder, load_dataset, load_weights, open_picture, read_state_dict
from nasaug.training.checkpoint import load_newest_checkpoint
from nasaug.training.cub200 import read_cub200
from nasaug.workspace import read_best

Spoil = Callable[[Any, bytes], bytes]
MOST = 4 << 30  # bytes that reading may take beside what the tests have
A_FEW = settings(
    max_examples=12, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """`file` is spoilt, in the `ways` of conftest.py, in a folder that `read` is given."""

    file: str
    read: Callable[[Path], object]
    ways: tuple[str, ...] = ("bytes", "text")


def _train_config(folder: Path) -> object:
    return load_config(TrainConfig, str(folder / "trained" / "config.yaml"), (), {})


def _search_config(folder: Path) -> object:
    config = load_config(SearchConfig, str(folder / "searched" / "config.yaml"), (), {})
    return config.make_target(10)


def _detect_config(folder: Path) -> object:
    return load_config(DetectConfig, str(folder / "detector.yaml"), (), {})


def _best(folder: Path) -> object:
    return macs(Architecture.from_dict(read_best(folder / "searched/best.json")["architecture"]))


def _scenes(kind: str) -> Callable[[Path], object]:
    return lambda folder: load_detection_set(f"{kind}:{folder / kind}")


def _images(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        kind, _, place = name.partition(":")
        return load_dataset(f"{kind}:{folder / place}")

    return read


def _imported(file: str, kind: str, target: str | None = None) -> Callable[[Path], object]:
    """Through the whole command, for what is written in the end."""

    def read(folder: Path) -> object:
        try:
            run_import(
                str(folder / file), kind, str(folder / "new.safetensors"), target, None, True
            )
        finally:
            for made in folder.glob("new.*"):
                made.unlink()
        return None

    return read


BYTES, JSON, YAML = ("bytes",), ("json", "bytes"), ("yaml", "text", "bytes")
BIRDS, SCENE = "birds/CUB_200_2011", "voc/Annotations/000001.xml"
READERS = {
    "train config": Reader("trained/config.yaml", _train_config, YAML),
    "search config": Reader("searched/config.yaml", _search_config, YAML),
    "detect config": Reader("detector.yaml", _detect_config, YAML),
    "architecture": Reader(
        "arch.json", lambda f: macs(Architecture.from_json((f / "arch.json").read_text())), JSON
    ),
    "target": Reader("target.yaml", lambda f: macs(load_target(f / "target.yaml")), YAML),
    "space": Reader("space.yaml", lambda f: load_space(f / "space.yaml").count(), YAML),
    "best.json": Reader("searched/best.json", _best, JSON),
    "weights": Reader(
        "weights.safetensors",
        lambda f: load_weights(f / "weights.safetensors"),
        ("tensors", "bytes"),
    ),
    "detector": Reader(
        "detector.safetensors",
        lambda f: load_detector(f / "detector.safetensors"),
        ("tensors", "bytes"),
    ),
    "checkpoint": Reader(
        "checkpoint/step-000000007.safetensors",
        lambda f: load_newest_checkpoint(f / "checkpoint"),
        ("tensors", "bytes"),
    ),
    "checkpoint's facts": Reader(
        "checkpoint/step-000000007.json", lambda f: load_newest_checkpoint(f / "checkpoint"), JSON
    ),
    "pickle": Reader("weights.pth", lambda f: read_pickle_safely(f / "weights.pth"), BYTES),
    "state dict": Reader(
        "weights.pth", lambda f: read_state_dict(f / "weights.pth"), ("state", "bytes")
    ),
    "torchvision's weights": Reader(
        "torchvision.pth", _imported("torchvision.pth", "torchvision:mobilenet_v2"), ("state",)
    ),
    "timm's weights": Reader(
        "weights.pth", _imported("weights.pth", "timm", "micro_3k"), ("state",)
    ),
    "the authors' weights": Reader(
        "authors.pth", _imported("authors.pth", "netaug", "micro_3k"), ("state",)
    ),
    "detection study": Reader(
        "study.yaml", lambda f: load_config(DetectStudy, str(f / "study.yaml"), (), {}), YAML
    ),
    "metrics": Reader(
        "trained/metrics.jsonl", lambda f: RunFolder(f / "trained", writes=False).metrics()
    ),
    "result": Reader(
        "trained/result.json", lambda f: RunFolder(f / "trained", writes=False).result(), JSON
    ),
    "study": Reader("searched/study.journal", lambda f: read_search(f / "searched")),
    "latency table": Reader("latency.csv", lambda f: load_latency_table(f / "latency.csv")),
    "VOC annotation": Reader(SCENE, _scenes("voc")),
    "VOC list": Reader("voc/ImageSets/Main/train.txt", _scenes("voc")),
    "COCO": Reader(
        "coco/annotations/instances_train2017.json", _scenes("coco"), ("json", "text", "bytes")
    ),
    "picture": Reader(
        "images/train/cat/0.jpg", lambda f: open_picture(f / READERS["picture"].file), BYTES
    ),
    "sized picture": Reader("picture.png", lambda f: read_picture(f / "picture.png", 9, 7), BYTES),
    "image table": Reader("images.csv", _images("csv:images.csv")),
    "IDX": Reader("clothes/train-images-idx3-ubyte", _images("fashion-mnist:clothes"), BYTES),
    "birds' images": Reader(f"{BIRDS}/images.txt", lambda f: read_cub200(f / "birds")),
    "birds' classes": Reader(f"{BIRDS}/classes.txt", lambda f: read_cub200(f / "birds")),
    "birds' labels": Reader(f"{BIRDS}/image_class_labels.txt", lambda f: read_cub200(f / "birds")),
}
# What reads a text, and one that it takes.
TEXTS: dict[str, tuple[Callable[[str], object], str]] = {
    "budget": (parse_budget, "300M"),
    "band": (parse_band, "200M..300M"),
    "memory": (parse_memory, "256KB"),
    "latency": (parse_latency, "2ms"),
    "--set": (lambda text: load_config(TrainConfig, None, (text,), {}), "train.lr=0.1"),
    "target": (load_target, "mbv2_tiny"),
    "space": (load_space, "mbv3_ofa"),
    "data": (load_dataset, "fashion-mnist-mini"),
}


@contextmanager
def _little_memory() -> Iterator[None]:
    """A number in a header that would be believed raises MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _refused(read: Callable[[], object]) -> bool:
    """Whether it says what is wrong; any other exception passes through."""
    try:
        read()
    except (ValueError, OSError) as error:
        assert str(error).strip(), "an error without a word"
        return True
    return False


def _with_spoilt_file(
    reader: Reader, good: Path, spoils: dict[str, Spoil], examples: settings
) -> int:
    """How many of the spoilt files were refused."""
    path, refused = good / reader.file, 0
    content = path.read_bytes()

    @examples
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal refused
        way = data.draw(st.sampled_from(reader.ways))
        spoilt = spoils[way](data.draw, content)
        path.write_bytes(spoilt)
        refused += _refused(lambda: reader.read(good))

    try:
        with _little_memory():
            check()
    finally:
        path.write_bytes(content)
    return refused


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", READERS)
def test_spoilt_files(name: str, good: Path, spoils: dict[str, Spoil]) -> None:
    assert not _refused(lambda: READERS[name].read(good)), "it is good before it is spoilt"
    assert _with_spoilt_file(READERS[name], good, spoils, A_FEW) > 0


@pytest.mark.parametrize("name", TEXTS)
def test_spoilt_texts(name: str) -> None:
    read, good = TEXTS[name]
    refused = 0

    @settings(A_FEW, max_examples=60)
    @given(text=st.text(max_size=24) | st.from_regex(r"[a-z_.=:0-9MKG]{1,16}", fullmatch=True))
    def check(text: str) -> None:
        nonlocal refused
        refused += _refused(lambda: read(text))

    check()
    assert refused > 0 and not _refused(lambda: read(good))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ten_thousand_bad_files(good: Path, spoils: dict[str, Spoil]) -> None:
    """Others every time."""
    many = settings(A_FEW, max_examples=1 + 16_000 // len(READERS), derandomize=False)
    refused = {
        name: _with_spoilt_file(reader, good, spoils, many) for name, reader in READERS.items()
    }
    print(refused)
    assert sum(refused.values()) >= 10_000
