"""What the tests of `nasaug detect` share: scenes, quick options, a finished training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.detection import (
    write_scenes,
)
from nasaug.supernet import Network, load_target
from nasaug.training import load_dataset, save_weights

COUNTS = {"train": 16, "val": 4, "test": 5}
SMALL = (
    "--target=micro_3k",
    "--size=64",
    "--epochs=1",
    "--set=train.warmup_epochs=0",
    "--set=train.batch_size=4",
    "--set=train.bn_images=8",
    "--set=data.workers=0",
    "--set=detector.extra=[32, 16]",
    "--set=detector.aspect_ratios=[2.0]",
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    items = load_dataset("fashion-mnist-mini")
    return {kind: write_scenes(folder / kind, kind, COUNTS, items) for kind in ("coco", "voc")}


@pytest.fixture(scope="session")
def coco(scenes: dict[str, Path]) -> str:
    return f"--data=coco:{scenes['coco']}"


@pytest.fixture(scope="session")
def trained(coco: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training."""
    from nasaug.__main__ import run

    path = tmp_path_factory.mktemp("trained") / "run"
    torch.set_num_threads(1)
    assert run(["detect", "train", *SMALL, coco, f"--out={path}"]) == 0
    return path


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The options of a training that ends within a second."""
    return SMALL


@pytest.fixture
def classified() -> Callable[..., Network]:
    """Writes the weights of a network for classes."""

    def write(path: Path, target: str = "micro_3k", classes: int = 10) -> Network:
        net = Network(load_target(target, classes), generator=torch.Generator().manual_seed(3))
        save_weights(path, net)
        return net

    return write


@pytest.fixture(scope="session")
def refused() -> Callable[[Any, str], None]:
    """Bad use, said in so many words."""

    def check(done: Any, message: str) -> None:
        assert done.code == 2
        assert message in done.said

    return check
