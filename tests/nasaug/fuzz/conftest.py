"""One good file of every kind that is read, and ways to spoil each."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision import models

from nasaug.config import dump_config
from nasaug.detect_config import DetectConfig
from nasaug.detection import Detector, DetectorOptions, save_detector
from nasaug.devices import LatencyTable, RowKey, Timing, write_csv
from nasaug.pipelines.detect_scenes import run_scenes
from nasaug.supernet import Network, load_target
from nasaug.supernet.published import RENAMED
from nasaug.training import save_weights
from nasaug.training.checkpoint import save_checkpoint

Draw = Callable[[st.SearchStrategy[Any]], Any]
STRANGE = [
    "", " ", "\x00", "../../escape", "=1+1", "1e9", "None", "nan", "-1", 0, -1, 2, 7, 2**31, 2**63,
    10**30, -(10**30), 1e308, 0.5, float("nan"), float("inf"), None, True, False, [], {}, [[]],
    [None], {"a": {}}, "x" * 300,
]  # fmt: skip
OTHER_TENSORS: list[Callable[[Tensor], object]] = [
    lambda t: t.to(torch.complex64), lambda t: t.to(torch.float8_e4m3fn), lambda t: t.bfloat16(),
    lambda t: t.double(), lambda t: t.long(), lambda t: t > 0, lambda t: t.to_sparse(),
    lambda t: t.to("meta"), lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t: t[None], lambda t: t.reshape(-1), lambda t: t.sum(), lambda t: t.reshape(-1)[:0],
    lambda t: t.new_zeros(()).expand(t.shape), lambda t: t.T if t.ndim == 2 else t.flip(0),
    lambda t: torch.nested.nested_tensor([t.reshape(-1)]), lambda t: t * float("nan"),
    lambda t: -t - 1, lambda t: torch.cat([t, t]) if t.ndim else t, lambda t: t.tolist(),
    lambda t: None, lambda t: {"weight": t},
]  # fmt: skip
VALUES = st.sampled_from(STRANGE) | st.integers() | st.floats() | st.text(max_size=9)


@pytest.fixture(scope="session")
def good(finished: Path, clothes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(finished / "searched", folder / "searched")
    shutil.copytree(finished / "trained", folder / "trained")
    arch = load_target("micro_3k", 10, 28, 1)
    (folder / "arch.json").write_text(arch.to_json())
    detector = DetectConfig.model_validate({"data": {"name": "coco:x"}})
    (folder / "detector.yaml").write_text(dump_config(detector))
    (folder / "target.yaml").write_text(yaml.safe_dump(arch.to_dict()))
    shutil.copy(
        str(files("nasaug.configs").joinpath("spaces", "micro_small.yaml")), folder / "space.yaml"
    )
    study = files("nasaug.configs").joinpath("studies", "detection_scenes.yaml")
    shutil.copy(str(study), folder / "study.yaml")
    net = Network(arch, generator=torch.Generator().manual_seed(0))
    save_weights(folder / "weights.safetensors", net, {"target": "micro_3k"})
    save_detector(
        folder / "detector.safetensors", Detector(arch, ("cat", "dog"), DetectorOptions(size=64))
    )
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    save_checkpoint(folder / "checkpoint", 7, tensors, {"epoch": 1, "seed": 0})
    torch.save({"state_dict": net.state_dict()}, folder / "weights.pth")
    theirs = models.mobilenet_v2(width_mult=0.1, num_classes=10).state_dict()
    torch.save(theirs, folder / "torchvision.pth")
    torch.save(_by_the_authors_names(Network(load_target("micro_3k"))), folder / "authors.pth")
    for kind in ("voc", "coco"):
        counts = {"train": 3, "val": 1, "test": 1}
        place = str(folder / kind)
        run_scenes(place, kind, "fashion-mnist-mini", None, counts, "96", False, 0, False)
    _write_pictures(folder)
    shutil.copytree(clothes, folder / "clothes")
    table = LatencyTable({RowKey(arch.rows[0], 1, 28): Timing(1000)})
    (folder / "latency.csv").write_text(write_csv(table))
    return folder


def _write_pictures(folder: Path) -> None:
    """A folder of images, the same by a table, and as the birds' lists have them."""
    birds = folder / "birds" / "CUB_200_2011"
    rows, rng = ["path,label,split"], np.random.default_rng(0)
    lists: dict[str, list[str]] = {
        "images": [], "image_class_labels": [], "train_test_split": [],
        "classes": ["1 001.cat", "2 002.dog"],
    }  # fmt: skip
    for number in range(8):
        label, part = ("cat", "dog")[number % 2], ("train", "test")[number // 4]
        name = f"{label}/{number}.jpg"
        path = folder / "images" / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path)
        rows.append(f"images/{part}/{name},{label},{part}")
        lists["images"].append(f"{number} {name}")
        lists["image_class_labels"].append(f"{number} {1 + number % 2}")
        lists["train_test_split"].append(f"{number} {int(part == 'train')}")
    birds.mkdir(parents=True)
    for name, lines in lists.items():
        (birds / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    Image.new("L", (9, 7), 90).save(folder / "picture.png")


def _by_the_authors_names(net: Network) -> dict[str, Tensor]:
    """As the NetAug authors' programs store it, everything in one stage."""
    named = {}
    for name, tensor in net.state_dict().items():
        _, row, leaf = name.split(".", 2)
        theirs = next((a + leaf[len(b) :] for a, b in RENAMED if leaf.startswith(b)), leaf)
        named[f"backbone.stages.0.op_list.{row}.{theirs}"] = tensor
    return named


def bytes_spoilt(draw: Draw, content: bytes) -> bytes:
    """Cut off, changed, lengthened, repeated, or other bytes altogether."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        # Most of what matters stands in the beginning.
        place = min(place, draw(st.sampled_from([8, 64, 512, len(content)])))
        other = draw(st.binary(max_size=8))
        how = draw(st.sampled_from(["cut", "change", "insert", "repeat", "new"]))
        content = {
            "cut": content[:place],
            "change": content[:place] + other + content[place + len(other) :],
            "insert": content[:place] + other + content[place:],
            "repeat": content[:place] + content[max(0, place - 40) :],
            "new": other,
        }[how]
    return content


def text_spoilt(draw: Draw, content: bytes) -> bytes:
    """A word or a line is another, is gone, or is there twice."""
    lines = content.decode().splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    words = lines[place].split(draw(st.sampled_from([" ", ",", ":", ">", "<"])))
    words[draw(st.integers(0, len(words) - 1))] = str(draw(VALUES))
    changed = [" ".join(words), "", lines[place] * 2, draw(st.text(max_size=12))]
    lines[place] = draw(st.sampled_from(changed))
    return "\n".join(lines).encode(errors="surrogatepass")


def value_spoilt(draw: Draw, value: Any) -> Any:
    """A part of nested lists and mappings is another value, is gone, or has a neighbour."""
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return draw(VALUES)
        key = draw(st.sampled_from(keys))
        deeper = isinstance(inner[key], dict | list) and len(inner[key]) > 0
        if not deeper or draw(st.integers(0, 3)) == 0:
            break
        inner = inner[key]
    how = draw(st.sampled_from(["other", "other", "gone", "more"]))
    if how == "gone":
        del inner[key]
    elif how == "more" and isinstance(inner, dict):
        inner[str(draw(VALUES))] = draw(VALUES)
    elif how == "more":
        inner.insert(key, draw(VALUES))
    else:
        inner[key] = draw(VALUES)
    return value


def json_spoilt(draw: Draw, content: bytes) -> bytes:
    return json.dumps(value_spoilt(draw, json.loads(content))).encode()


def yaml_spoilt(draw: Draw, content: bytes) -> bytes:
    return yaml.safe_dump(value_spoilt(draw, yaml.safe_load(content))).encode()


def tensors_spoilt(draw: Draw, content: bytes) -> bytes:
    """The description in front of the tensors, or what their file says of itself in it."""
    (length,) = struct.unpack_from("<Q", content)
    head = json.loads(content[8 : 8 + length])
    for key, text in head.get("__metadata__", {"none": "{}"}).items():
        if key != "none" and draw(st.booleans()):
            head["__metadata__"][key] = json.dumps(value_spoilt(draw, json.loads(text)))
        else:
            head = value_spoilt(draw, head)
        break
    written = json.dumps(head).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + length :]


def state_spoilt(draw: Draw, content: bytes) -> bytes:
    """A tensor is of another kind, shape or name, is none, is gone, or has a neighbour."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    inner = state.get("state_dict", state)
    name = draw(st.sampled_from(sorted(inner)))
    how = draw(st.sampled_from(["other", "other", "other", "gone", "more", "renamed"]))
    other, added = draw(st.sampled_from(OTHER_TENSORS)), str(draw(VALUES))
    if how in ("gone", "renamed"):
        left = inner.pop(name)
    if how != "gone":
        inner[name if how == "other" else added] = left if how == "renamed" else other(inner[name])
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


@pytest.fixture(scope="session")
def spoils() -> dict[str, Callable[[Draw, bytes], bytes]]:
    """The ways to spoil a file, by what it holds."""
    return {
        "bytes": bytes_spoilt,
        "text": text_spoilt,
        "json": json_spoilt,
        "yaml": yaml_spoilt,
        "tensors": tensors_spoilt,
        "state": state_spoilt,
    }
