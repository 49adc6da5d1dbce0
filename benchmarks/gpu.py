"""Training steps of micro networks on a GPU: played back from recordings, or launched one by one.

    python benchmarks/gpu.py --steps 300

Whole steps of batch 128 at 28 x 28, loading and optimizer included, in full precision. Printed are
the median milliseconds a step of five rounds that alternate, and the launched one's over the other.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import torch

from nasaug.netaug import Augmentation, NetAugOptions, Parts, training_step
from nasaug.supernet import Network, load_target, published_factors
from nasaug.training import Recipe, RunFolder, View, fit, load_dataset, training_batches

Graphs = Literal["off"] | None


def milliseconds(name: str, augmented: bool, graphs: Graphs, steps: int) -> float:
    target = load_target(name, num_classes=10, in_channels=1)
    augmentation = Augmentation.by_factors(target, published_factors(name)) if augmented else None
    device = torch.device("cuda")
    arch = target if augmentation is None else augmentation.largest
    net = Network(arch).to(device)
    data, view = load_dataset("fashion-mnist-mini"), View(28, 1, device, crop=0.0)
    batches = training_batches(data, view, 128, 0)
    epochs = -(-steps // len(batches)) + 1
    recipe = Recipe(epochs=epochs, warmup_epochs=0, batch_size=128, amp="off", graphs=graphs)
    begun: list[float] = []

    def watch(step: int, *_: object) -> None:
        if step in (20, 20 + steps):
            torch.cuda.synchronize()
            begun.append(time.perf_counter())

    step = training_step(Parts(augmentation, NetAugOptions()))
    with tempfile.TemporaryDirectory() as folder:
        fit(net, step, batches, recipe, RunFolder(Path(folder)), watch=watch)
    return 1000 * (begun[1] - begun[0]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--targets", default="micro_3k,micro_10k,micro_150k")
    given = parser.parse_args()
    print(torch.cuda.get_device_name(), flush=True)
    for target in given.targets.split(","):
        for augmented in (False, True):
            rounds: dict[Graphs, list[float]] = {None: [], "off": []}
            for _ in range(given.rounds):
                for graphs, values in rounds.items():
                    values.append(milliseconds(target, augmented, graphs, given.steps))
            replayed, launched = (statistics.median(values) for values in rounds.values())
            what = "with NetAug" if augmented else "alone"
            print(
                f"{target} {what}: {replayed:.2f} ms a step replayed, {launched:.2f} launched "
                f"({launched / replayed:.2f} times as long)",
                flush=True,
            )


if __name__ == "__main__":
    main()
