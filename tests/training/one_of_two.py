"""One of two workers that test_distributed.py starts as torchrun would.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python one_of_two.py FOLDER

Each begins with the same weights and ends with FOLDER/RANK.safetensors; the run is in FOLDER/run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from nasaug.supernet import Network, load_target
from nasaug.training import (
    Batches,
    Dataset,
    ImageArray,
    Recipe,
    RunFolder,
    View,
    Workers,
    fit,
    join_workers,
    plain_step,
    save_weights,
    training_batches,
)

# Three steps of two times eight images an epoch, six in all.
RECIPE = Recipe(
    epochs=1, warmup_epochs=1, batch_size=8, lr=0.05, label_smoothing=0.1, sync_batch_norm=False
)


def start() -> Network:
    generator = torch.Generator().manual_seed(0)
    return Network(load_target("micro_10k", 10, in_channels=1), generator=generator)


def batches(group: Workers) -> Batches:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (50, 1, 28, 28), generator=generator, dtype=torch.uint8)
    part = ImageArray(images, torch.randint(0, 10, (50,), generator=generator))
    data = Dataset("noise", tuple("0123456789"), part, part, part, (0.5,), (0.25,))
    return training_batches(data, View(28, 1), RECIPE.batch_size, seed=0, group=group)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    group = join_workers(torch.device("cpu"))
    run = RunFolder(folder / "run", writes=group.first)
    calls: list[int] = []

    def validate(_: Network, progress: float) -> dict[str, float]:
        calls.append(1)
        return {"calls": len(calls)}

    net = fit(start(), plain_step, batches(group), RECIPE, run, group=group, validate=validate)
    assert len(calls) == (2 if group.first else 0)
    save_weights(folder / f"{group.rank}.safetensors", net)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
