"""What the benchmarks of training steps share: a step timed whole, and how ratios are printed."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from nasaug.netaug import Augmentation
from nasaug.supernet import Architecture, Network, load_target, published_factors
from nasaug.training import Batch, Recipe, State, Step
from nasaug.training.gradients import Gradients
from nasaug.training.recipe import make_optimizer

BATCH, SEEDS = 64, 20
TARGET = load_target("mbv2_tiny", num_classes=10)
AUGMENTATION = Augmentation.by_factors(TARGET, published_factors("mbv2_tiny"))
RECIPE = Recipe(batch_size=BATCH, lr=0.01)


def state_of(seed: int) -> State:
    return State(RECIPE, 1, 100, 10, seed, torch.enable_grad, list)


def helper_of(seed: int) -> Architecture:
    """What the NetAug step samples in `state_of(seed)`."""
    return AUGMENTATION.helpers.sample(random.Random(f"{seed}/step/1"))


def random_batch(resolution: int, size: int = BATCH) -> Batch:
    images = torch.randn(size, 3, resolution, resolution)
    images = images.contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (size,))


def timed(
    net: Network,
    step: Step,
    batch: Batch,
    layout: torch.memory_format = torch.channels_last,
) -> Callable[..., float]:
    """A function that runs one whole training step, optimizer included, and returns its seconds."""
    net.to(memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(net, RECIPE)
    gradients = Gradients(net)

    def run(seed: int = 0) -> float:
        start = time.perf_counter()
        gradients.clear()
        state = state_of(seed)
        state.gradients = gradients
        step(net, batch, state)
        gradients.merge()
        optimizer.step()
        return time.perf_counter() - start

    return run


def report(name: str, values: list[float], bar: str) -> None:
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"{name}: median {middle:.3f} (quartiles {low:.3f}, {high:.3f}; bar: {bar})", flush=True)


def side_by_side(
    steps: Mapping[str, Callable[..., float]], reference: str, rounds: int
) -> dict[str, list[float]]:
    """Each step's seconds over the reference's, round by round; the first two rounds warm up."""
    ratios: dict[str, list[float]] = {name: [] for name in steps if name != reference}
    for index in range(rounds + 2):
        seconds = {name: step(index % SEEDS) for name, step in steps.items()}
        if index >= 2:
            for name, values in ratios.items():
                values.append(seconds[name] / seconds[reference])
    return ratios
