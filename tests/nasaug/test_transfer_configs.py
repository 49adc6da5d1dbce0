"""The recipes of configs/transfer: the authors' numbers, and end to end on a small Food-101."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.config import load_config
from nasaug.supernet import Network, load_target, macs
from nasaug.train_config import TrainConfig
from nasaug.training import load_weights, save_weights

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"
SETS = ("food101", "flowers102", "cars", "cub200", "pets")
# Of the authors' scripts (netaug/bash/transfer): resolution, weight decay, and for each of the data
# sets above (learning rate of a worker, dropout).
Row = tuple[int, float, tuple[tuple[float, float], ...]]
PUBLISHED: dict[str, Row] = {
    "mbv2_tiny": (144, 4e-5, ((0.06, 0.1), (0.08, 0), (0.14, 0.2), (0.04, 0.5), (0.06, 0.1))),
    "mbv2_w035": (160, 4e-5, ((0.1, 0.2), (0.08, 0.3), (0.18, 0.5), (0.02, 0.7), (0.01, 0.4))),
    "proxylessnas_w035": (
        160, 4e-5, ((0.1, 0.2), (0.06, 0.2), (0.2, 0.2), (0.04, 0.7), (0.01, 0.8)),
    ),
    "mbv3_w035": (160, 3e-5, ((0.2, 0.2), (0.05, 0.6), (0.1, 0.7), (0.02, 0.8), (0.01, 0.8))),
    "mcunet": (176, 4e-5, ((0.04, 0.1), (0.05, 0.4), (0.25, 0.1), (0.08, 0.6), (0.01, 0.6))),
}  # fmt: skip


def _options_of(name: str, data: str) -> tuple[dict[str, Any], list[str]]:
    """What the comment of a config says for a data set: options and `--set` texts."""
    lines = re.findall(rf"^#   --data {data} (.*)$", (CONFIGS / f"{name}.yaml").read_text(), re.M)
    assert len(lines) == (data != "food101")
    sets = re.findall(r"--set (\S+)", lines[0]) if lines else []
    return ({"data.name": data} if lines else {}), sets


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_is_the_published_one(name: str, data: str) -> None:
    options, sets = _options_of(name, data)
    config = load_config(TrainConfig, str(CONFIGS / f"{name}.yaml"), sets, options)
    resolution, decay, rates = PUBLISHED[name]
    lr, dropout = rates[SETS.index(data)]
    expected = {
        "epochs": 50,
        "warmup_epochs": 5,
        # Of each of four workers: 256 in all.
        "batch_size": 64,
        "lr": lr,
        "head_lr_factor": 1,
        "momentum": 0.9,
        "weight_decay": decay,
        "label_smoothing": 0.1,
        "resolution": None,
        "sync_batch_norm": False,
    }
    assert {key: getattr(config.train, key) for key in expected} == expected
    assert config.regularise.dropout == dropout
    assert (config.target, config.method, config.tune) == (name, "baseline", "all")
    assert (config.data.name, config.init) == (data, f"runs/imagenet-{name}")
    assert config.data.flip and config.data.crop > 0
    assert load_target(name, 101).resolution == resolution


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(PUBLISHED)


@pytest.fixture(scope="module")
def food(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of Food-101, three pictures of each for training and two for testing."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "food-101" / "meta").mkdir(parents=True)
    for part, numbers in (("train", range(3)), ("test", range(3, 5))):
        lists = {name: [f"{name}/{n}" for n in numbers] for name in ("gnocchi", "hummus", "pho")}
        for names in lists.values():
            for name in names:
                path = folder / "food-101" / "images" / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(path)
        (folder / "food-101" / "meta" / f"{part}.json").write_text(json.dumps(lists))
    return folder


@pytest.mark.parametrize("name", ["mbv2_tiny", "mbv3_w035"])
def test_recipe_trains_end_to_end(
    name: str, nasaug: Callable[..., Any], food: Path, tmp_path: Path
) -> None:
    """From weights for ImageNet's classes that lie where the recipe says."""
    start = tmp_path / "runs" / f"imagenet-{name}"
    start.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    save_weights(
        start / "weights.safetensors", Network(load_target(name, 1000), "fan_out", generator)
    )
    small = ("--epochs=1", "--set=train.warmup_epochs=0", "--set=train.batch_size=3",
             "--set=train.bn_images=6", "--set=data.workers=0", "--device=cpu")  # fmt: skip
    config = f"--config={CONFIGS / name}.yaml"
    done = nasaug("train", config, f"--data-dir={food}", *small, "--out=here", "--json")
    assert done.code == 0, done.err
    assert "6 training, 3 validation, 6 test images of 3 classes" in done.said
    assert "with a new head for 3 classes in place of 1000" in done.said
    target = load_target(name, 3)
    assert (done.json["macs"], done.json["resolution"]) == (macs(target), target.resolution)
    assert done.json["train_resolution"] == target.resolution
    assert load_weights(Path("here/weights.safetensors")).arch == target


def test_recipe_without_its_start_says_what_is_missing(
    nasaug: Callable[..., Any], food: Path
) -> None:
    done = nasaug("train", f"--config={CONFIGS}/mcunet.yaml", f"--data-dir={food}", "--out=here",
                  "--set=train.batch_size=3")  # fmt: skip
    assert done.code == 2
    assert "--init runs/imagenet-mcunet: runs/imagenet-mcunet does not exist" in done.said
