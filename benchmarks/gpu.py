"""Training steps of micro networks on a GPU: played back from recordings, or launched one by one;
and how many processes share it.

    python benchmarks/gpu.py --steps 300
    python benchmarks/gpu.py --processes 1,8,16     (with NVIDIA's MPS daemon running, and without)

Whole steps of batch 128 at 28 x 28, loading and optimizer included, in full precision. Printed are
the median milliseconds a step of rounds that alternate, and the launched one's over the other; or
the steps a second of all processes together, each playing back. `--device cpu` tries it anywhere.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch

from nasaug.netaug import Augmentation, NetAugOptions, Parts, training_step
from nasaug.supernet import Network, load_target, published_factors
from nasaug.training import Recipe, RunFolder, View, fit, load_dataset, training_batches

Graphs = Literal["off"] | None
WARM_UP = 20


def seconds(
    name: str,
    augmented: bool,
    graphs: Graphs,
    steps: int,
    device: torch.device,
    barrier: Any = None,
) -> float:
    """Of so many steps, after a warm-up; processes with one `barrier` begin together."""
    target = load_target(name, num_classes=10, in_channels=1)
    augmentation = Augmentation.by_factors(target, published_factors(name)) if augmented else None
    net = Network(target if augmentation is None else augmentation.largest).to(device)
    data, view = load_dataset("fashion-mnist-mini"), View(28, 1, device, crop=0.0)
    batches = training_batches(data, view, 128, 0)
    epochs = -(-(steps + WARM_UP) // len(batches))
    recipe = Recipe(epochs=epochs, warmup_epochs=0, batch_size=128, amp="off", graphs=graphs)
    begun: list[float] = []

    def watch(step: int, *_: object) -> None:
        if step not in (WARM_UP, WARM_UP + steps):
            return
        if device.type == "cuda":
            torch.cuda.synchronize()
        if barrier is not None and step == WARM_UP:
            barrier.wait(timeout=300)
        begun.append(time.perf_counter())

    step = training_step(Parts(augmentation, NetAugOptions()))
    with tempfile.TemporaryDirectory() as folder:
        fit(net, step, batches, recipe, RunFolder(Path(folder)), watch=watch)
    return begun[1] - begun[0]


def one_of_many(queue: Any, *about: Any) -> None:
    torch.set_num_threads(1)
    queue.put(seconds(*about))


def together(processes: int, *about: Any) -> float:
    """The slowest's seconds."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=one_of_many, args=(queue, *about, barrier)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    slowest = max(queue.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    return float(slowest)


def replayed_or_launched(
    target: str, augmented: bool, rounds: int, steps: int, device: torch.device
) -> str:
    ways: dict[Graphs, list[float]] = {None: [], "off": []}
    for _ in range(rounds):
        for graphs, values in ways.items():
            values.append(1000 * seconds(target, augmented, graphs, steps, device) / steps)
    replayed, launched = (statistics.median(values) for values in ways.values())
    return (
        f"{replayed:.2f} ms a step replayed, {launched:.2f} launched "
        f"({launched / replayed:.2f} times as long)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--targets", default="micro_3k,micro_10k,micro_150k")
    parser.add_argument("--processes", help="numbers of them, separated by commas")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    counts = [int(count) for count in given.processes.split(",")] if given.processes else []
    print(torch.cuda.get_device_name() if device.type == "cuda" else device, flush=True)
    for target in given.targets.split(","):
        for augmented in (False, True):
            what = f"{target} {'with NetAug' if augmented else 'alone'}"
            for count in counts:
                took = together(count, target, augmented, None, given.steps, device)
                print(f"{what}: {count * given.steps / took:.0f} steps/s of {count}", flush=True)
            if not counts:
                said = replayed_or_launched(target, augmented, given.rounds, given.steps, device)
                print(f"{what}: {said}", flush=True)


if __name__ == "__main__":
    main()
