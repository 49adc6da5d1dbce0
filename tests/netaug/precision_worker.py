"""Training in bf16 and in float32, for test_precision.py; two workers in bf16 when run.

    python precision_worker.py FOLDER

The two workers write FOLDER/RANK.json, what was measured at every step, and
FOLDER/RANK.safetensors, the weights.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch._dynamo  # Every optimizer imports it, which takes seconds: here once, before forking.
import torch.distributed as dist

from nasaug.netaug import (
    METHODS,
    Augmentation,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    RelationalOptions,
    training_step,
)
from nasaug.supernet import Factors, Network, load_target
from nasaug.training import (
    ALONE,
    Batches,
    ImageArray,
    Recipe,
    RunFolder,
    View,
    Workers,
    fit,
    load_dataset,
    training_batches,
)

TARGET = load_target("micro_10k", 10, in_channels=1)
AUGMENTATION = Augmentation.by_factors(TARGET, Factors((1.0, 1.5, 2.0), (1.0, 1.5, 2.0)))
IMAGES, BATCH, RATE = 1024, 32, 0.05
FEW = 256
Measured = list[dict[str, float]]


def parts_of(method: str) -> Parts:
    """A named method's parts."""
    sections = METHODS[method].sections
    if "netaug" not in sections:
        return Parts()
    parts = Parts(AUGMENTATION, NetAugOptions(**sections["netaug"]))
    if "relational" in sections:
        parts = replace(parts, relational=RelationalOptions(**sections["relational"]))
    if "in_place" in sections:
        parts = replace(parts, in_place=InPlaceOptions(**sections["in_place"]))
    return parts


def fresh(method: str) -> Network:
    arch = TARGET if method == "baseline" else AUGMENTATION.largest.canonical()
    return Network(arch, generator=torch.Generator().manual_seed(0))


def batches_of(size: int, group: Workers = ALONE, images: int = IMAGES) -> Batches:
    """Real images, each seen once in an epoch."""
    mini = load_dataset("fashion-mnist-mini")
    assert isinstance(mini.train, ImageArray)
    data = replace(mini, train=mini.train.subset(torch.arange(images)))
    return training_batches(data, View(28, 1), size, seed=0, group=group)


def train(
    folder: Path,
    method: str,
    amp: str,
    group: Workers = ALONE,
    images: int = IMAGES,
    **changes: Any,
) -> tuple[Network, Measured]:
    """One epoch from the same weights: 32 steps of one worker, 8 of FEW images."""
    settings = {"epochs": 1, "warmup_epochs": 0, "batch_size": BATCH, "lr": RATE, "amp": amp}
    recipe = Recipe(**{**settings, **changes})
    net, seen = fresh(method), []

    def watch(done: int, steps: int, values: Mapping[str, float]) -> None:
        seen.append(dict(values))

    run = RunFolder(folder, writes=group.first)
    step = training_step(parts_of(method))
    batches = batches_of(recipe.batch_size, group, images)
    return fit(net, step, batches, recipe, run, group=group, watch=watch), seen


def main(folder: Path) -> None:
    child = os.fork()
    group = Workers(1 if child == 0 else 0, 2)
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=group.rank, world_size=2)
    half = {"batch_size": BATCH // 2, "lr": RATE / 2}
    net, measured = train(folder / "run", "rkd", "bf16", group, FEW, **half)
    (folder / f"{group.rank}.json").write_text(json.dumps(measured))
    safetensors.torch.save_model(net, str(folder / f"{group.rank}.safetensors"))
    dist.destroy_process_group()
    if child != 0:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
