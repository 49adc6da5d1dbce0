"""A short training run that test_killed.py starts, kills and starts again.

    python interrupted.py FOLDER plain|netaug

It prints `begins`, and then the number of every step as it is done. Two epochs and one to warm up,
six steps each; a checkpoint after every third.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from nasaug.netaug import Augmentation, NetAugOptions, netaug_step
from nasaug.supernet import Factors, Network, load_target
from nasaug.training import (
    Dataset,
    ImageArray,
    Recipe,
    RunFolder,
    Step,
    View,
    fit,
    plain_step,
    training_batches,
)

STEPS = 18
Watch = Callable[[int, int, Mapping[str, float]], None]


def train(folder: Path, method: str, watch: Watch | None = None) -> Network:
    """The plain target, or NetAug with channel sorting and a moving average, from where it was."""
    recipe = Recipe(epochs=2, warmup_epochs=1, batch_size=16, lr=0.1, checkpoint_every=3)
    target = load_target("micro_10k", 10, in_channels=1)
    arch = target
    step: Step = plain_step
    if method == "netaug":
        recipe = recipe.model_copy(update={"ema": 0.8})
        augmentation = Augmentation.by_factors(target, Factors((1, 2), (1, 2)))
        arch = augmentation.largest.canonical()
        step = netaug_step(augmentation, NetAugOptions(width_until=0.9))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (96, 1, 28, 28), generator=generator, dtype=torch.uint8)
    part = ImageArray(images, torch.randint(0, 10, (96,), generator=generator))
    data = Dataset("noise", tuple("0123456789"), part, part, part, (0.5,), (0.25,))
    batches = training_batches(data, View(28, 1), recipe.batch_size, seed=0)
    net = Network(arch, generator=generator)
    run = RunFolder(folder)
    return fit(net, step, batches, recipe, run, seed=0, watch=watch, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("begins", flush=True)
    train(Path(sys.argv[1]), sys.argv[2], lambda done, *_: print(done, flush=True))
