"""Speed of the parts that decide how long a run takes, each as a ratio against a named reference.

    make bench                        (all of it: about 10 minutes on two cores)
    python benchmarks/speed.py --rounds 40 --only tax48

Machines are shared and noisy, so what is compared is timed in turn, round by round; printed is the
median of the rounds' ratios with their quartiles. mbv2_tiny, 10 classes, published factors,
divisor 8, batch 64; the sampled networks are those of seeds 0 to 19.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from timing import (
    AUGMENTATION,
    BATCH,
    SEEDS,
    TARGET,
    helper_of,
    random_batch,
    report,
    timed,
)
from torch import Tensor

from nasaug.netaug import NetAugOptions, netaug_step
from nasaug.supernet import Limits, Network, SearchSpace, activations
from nasaug.training import View, keep_caches, load_dataset, plain_step, training_batches
from nasaug.training.process import KERNELS, keep_compiled_kernels, keep_freed_memory

NETAUG_STEP = netaug_step(AUGMENTATION, NetAugOptions(sort_channels=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=BENCHMARKS)
    parser.add_argument("--worker", choices=WORKERS, help="used by the benchmarks themselves")
    arguments = parser.parse_args()
    if arguments.worker:
        step = WORKERS[arguments.worker]()
        for seed in sys.stdin:
            print(step(int(seed)), flush=True)
        return
    keep_caches()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds"
    )
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        BENCHMARKS[name](arguments.rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.2f} GiB")


def elastic_tax(resolution: int, bar: float, rounds: int) -> None:
    """A NetAug step over the sum of the plain steps of the two static networks it stands for."""
    batch = random_batch(resolution)
    elastic = Network(AUGMENTATION.largest)
    static_target = timed(elastic.export(TARGET), plain_step, batch)
    ratios = []
    step = timed(elastic, NETAUG_STEP, batch)
    exported: dict[int, Callable[..., float]] = {}
    for index in range(rounds + 2):
        seed = index % SEEDS
        if seed not in exported:
            exported[seed] = timed(elastic.export(helper_of(seed)), plain_step, batch)
            exported[seed]()
        ratio = step(seed) / (exported[seed]() + static_target())
        if index >= 2:
            ratios.append(ratio)
    report(f"NetAug step / two static steps, {resolution} px", ratios, f"at most {bar:.2f}")


def against_plain(rounds: int) -> None:
    """A NetAug step at 144 over the plain step of the target, in two forms."""
    batch = random_batch(144)
    elastic = Network(AUGMENTATION.largest)
    tuned = timed(elastic.export(TARGET), plain_step, batch)
    step = timed(elastic, NETAUG_STEP, batch)
    reference = Worker("plain-nchw-144")
    over_reference, over_tuned = [], []
    for index in range(rounds + 2):
        netaug, plain, plain_tuned = step(index % SEEDS), reference(0), tuned()
        if index >= 2:
            over_reference.append(netaug / plain)
            over_tuned.append(netaug / plain_tuned)
    reference.stop()
    title = "NetAug step / plain step of the target, 144 px"
    report(f"{title}, NCHW, default allocator", over_reference, "at most 3.0")
    report(f"{title}, channels last, memory kept", over_tuned, "none")


def process_caches(rounds: int) -> None:
    """A NetAug step at 48 in a process that keeps memory and kernels, over one that does not."""
    default, memory, both = (Worker(name) for name in ("default", "memory", "memory-kernels"))
    over: dict[str, list[float]] = {"freed memory kept": [], "and compiled kernels kept": []}
    # Once through all sampled networks, for the kernels to be there.
    for index in range(SEEDS + rounds):
        times = [worker(index % SEEDS) for worker in (default, memory, both)]
        if index >= SEEDS:
            over["freed memory kept"].append(times[1] / times[0])
            over["and compiled kernels kept"].append(times[2] / times[0])
    for worker in (default, memory, both):
        worker.stop()
    for name, ratios in over.items():
        report(f"NetAug step / the same in a default process, 48 px, {name}", ratios, "none")


class Worker:
    """A process of its own that times one step whenever it is called with a seed."""

    def __init__(self, name: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != KERNELS}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, seed: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate()


def plain_worker() -> Callable[..., float]:
    """A plain training step of the target at 144, NCHW, nothing of the process changed."""
    images, labels = random_batch(144)
    batch = images.contiguous(memory_format=torch.contiguous_format), labels
    return timed(Network(TARGET), plain_step, batch, torch.contiguous_format)


def netaug_worker(*prepare: Callable[[], object]) -> Callable[..., float]:
    for function in prepare:
        function()
    return timed(Network(AUGMENTATION.largest), NETAUG_STEP, random_batch(48))


def relu6_kept(rounds: int) -> None:
    """A NetAug step at 48, and what its forward pass keeps, over those with PyTorch's ReLU6."""
    batch = random_batch(48)
    ours, theirs = (timed(Network(AUGMENTATION.largest), NETAUG_STEP, batch) for _ in range(2))
    pytorchs = partial(torch.nn.functional.relu6, inplace=True)
    ratios = []
    for index in range(SEEDS + rounds):
        mine = ours(index % SEEDS)
        with patch.object(activations, "clipped", pytorchs):
            reference = theirs(index % SEEDS)
        if index >= SEEDS:
            ratios.append(mine / reference)
    report("NetAug step / the same with PyTorch's ReLU6, 48 px", ratios, "none")
    net = Network(AUGMENTATION.largest).train()
    mine = _kept(net, batch[0])
    with patch.object(activations, "clipped", pytorchs):
        reference = _kept(net, batch[0])
    title = "bytes kept for gradients by the largest network / with PyTorch's ReLU6"
    print(f"{title}: {mine / reference:.3f} (bar: none)")


def _kept(net: Network, images: Tensor) -> float:
    """Bytes of all tensors that a forward pass keeps, parameters included, each counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(images).sum()
    total = sum(kept.values())
    del loss
    return total


def path_macs(rounds: int) -> None:
    """The MACs of a path given as choice indices, in microseconds."""
    space = SearchSpace.around(TARGET)
    paths = [space.sample_path(random.Random(seed)) for seed in range(1000)]
    microseconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for path in paths:
            space.macs(path)
        microseconds.append((time.perf_counter() - start) * 1e6 / len(paths))
    report(f"MACs of a path of {len(space.rows)} rows (us)", microseconds, "at most 10")


def feasible_samples(rounds: int) -> None:
    """Uniform samples within a budget, a second."""
    space = SearchSpace.around(TARGET)
    for budget in (int(space.source.cheapest * 1.01), 60_000_000, 300_000_000):
        region, rng, rates = space.within(Limits(macs=budget)), random.Random(0), []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(200):
                region.sample_path(rng)
            rates.append(200 / (time.perf_counter() - start))
        name = f"uniform paths within {budget:,} MACs a second (accepted {region.acceptance:.1%})"
        report(name, rates, "at least 2,000")


def loader(rounds: int) -> None:
    """Images a second that the loader makes, over those that a step of the target consumes."""
    data = load_dataset("fashion-mnist-mini")
    batches = training_batches(data, View(48, 3), BATCH, seed=0)
    step = timed(Network(TARGET), plain_step, random_batch(48))
    step()
    ratios = []
    for epoch in range(rounds):
        start = time.perf_counter()
        for _ in batches.epoch(epoch, start=len(batches) - 10):
            pass
        ratios.append(step() / ((time.perf_counter() - start) / 10))
    report("loader's images / those a target's step consumes, 48 px", ratios, "at least 5")


WORKERS: dict[str, Callable[[], Callable[..., float]]] = {
    "plain-nchw-144": plain_worker,
    "default": netaug_worker,
    "memory": lambda: netaug_worker(keep_freed_memory),
    "memory-kernels": lambda: netaug_worker(keep_freed_memory, keep_compiled_kernels),
}
BENCHMARKS: dict[str, Callable[[int], None]] = {
    "tax48": lambda rounds: elastic_tax(48, 1.10, rounds),
    "tax144": lambda rounds: elastic_tax(144, 1.05, rounds),
    "plain144": against_plain,
    "process": process_caches,
    "relu6": relu6_kept,
    "macs": path_macs,
    "sampling": feasible_samples,
    "loader": loader,
}

if __name__ == "__main__":
    main()
