"""Two workers that take two batches a step; test_accumulation.py starts them and does it alone.

    python accumulating_worker.py FOLDER

Each writes FOLDER/synchronised-RANK.safetensors and FOLDER/apart-RANK.safetensors: the weights in
float64 after four steps with batch norm over both workers, and with each for itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch._dynamo  # Every optimizer imports it, which takes seconds: here once, before forking.
import torch.distributed as dist

from nasaug.supernet import Network, load_target
from nasaug.training import (
    ALONE,
    Batch,
    Batches,
    Dataset,
    ImageArray,
    Recipe,
    RunFolder,
    View,
    Workers,
    fit,
    plain_step,
    save_weights,
    training_batches,
)


class InDoublePrecision:
    """Batches of noise in float64, neither shifted nor mirrored: alike in batches of any size."""

    def __init__(self, batch_size: int, group: Workers) -> None:
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (80, 1, 28, 28), generator=generator, dtype=torch.uint8)
        part = ImageArray(images, torch.randint(0, 10, (80,), generator=generator))
        data = Dataset("noise", tuple("0123456789"), part, part, part, (0.5,), (0.25,))
        view = View(28, 1, flip=False, crop=0)
        self._batches = training_batches(data, view, batch_size, seed=0, group=group)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for images, labels in self._batches.epoch(epoch, start):
            yield images.double(), labels


def train(folder: Path, group: Workers = ALONE, **changes: Any) -> Network:
    """Two epochs of two steps from the same weights; 80 images are two and a half global steps."""
    settings = {"epochs": 2, "warmup_epochs": 0, "batch_size": 8, "lr": 0.02, "accumulate": 2}
    recipe = Recipe(**{**settings, **changes})
    target = load_target("micro_10k", 10, in_channels=1)
    net = Network(target, generator=torch.Generator().manual_seed(0)).double()
    batches = cast(Batches, InDoublePrecision(recipe.batch_size, group))
    run = RunFolder(folder, writes=group.first)
    return fit(net, plain_step, batches, recipe, run, group=group)


def main(folder: Path) -> None:
    child = os.fork()
    group = Workers(1 if child == 0 else 0, 2)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=group.rank, world_size=2
    )
    for name, together in (("synchronised", True), ("apart", False)):
        net = train(folder / name, group, sync_batch_norm=together)
        save_weights(folder / f"{name}-{group.rank}.safetensors", net)
    dist.destroy_process_group()
    if child != 0:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
