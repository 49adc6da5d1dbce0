"""What two workers on one machine pay for working together: is it worth hiding?

    python benchmarks/communication.py --rounds 40      (about four minutes on two cores)

Two processes on gloo, each with half of the cores, train mbv2_tiny by NetAug at 48 px with batch 64
each, as `torchrun --nproc-per-node 2 -m nasaug train` does; the sampled networks are those of seeds
0 to 19. Printed are medians over the rounds with quartiles, as the first worker sees them:

- the one all-reduce of all gradients, as a share of the step that it ends;
- what the batch norms exchange in a step when their statistics are those of both workers, as a
  share of a step without: the exchanges alone, one after the other;
- a step with such batch norms over one without. Beside the exchanges this is waiting: at each norm
  the slower worker is waited for, the more so the more else runs on the machine.

Before the first two both workers wait for each other, so that no share is waiting for a slow one.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from timing import AUGMENTATION, SEEDS, random_batch, report, timed
from torch import nn

from nasaug.netaug import NetAugOptions, netaug_step
from nasaug.supernet import ElasticNorm, Network, synchronise_batch_norm
from nasaug.training import join_workers, keep_caches
from nasaug.training.gradients import Gradients

NETAUG_STEP = netaug_step(AUGMENTATION, NetAugOptions(sort_channels=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    if "RANK" in os.environ:
        work(rounds)
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, **group, "RANK": rank})
        for rank in ("0", "1")
    ]
    sys.exit(max(worker.wait() for worker in workers))


def work(rounds: int) -> None:
    """One of the two workers; the first prints."""
    keep_caches()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    group = join_workers(torch.device("cpu"))
    net = Network(AUGMENTATION.largest)
    step = timed(net, NETAUG_STEP, random_batch(48))
    gradients, size = Gradients(net), sum(p.nbytes for p in net.parameters())
    reductions, exchanges, joint = [], [], []
    # First once through all sampled networks, for their kernels to be compiled.
    warm_up = min(rounds, SEEDS)
    for index in range(warm_up + rounds):
        seed, seconds = index % SEEDS, {}
        for together in (False, True):
            synchronise_batch_norm(net, together)
            dist.barrier()
            with recorded_widths(net) as widths:
                seconds[together] = step(seed)
        apart = seconds[False]
        reduction = together_timed(partial(gradients.average, group, 1, {}))
        exchange = together_timed(partial(exchange_statistics, widths))
        if index >= warm_up:
            reductions.append(reduction / (apart + reduction))
            exchanges.append(exchange / apart)
            joint.append(seconds[True] / apart)
    if group.first:
        print(f"torch {torch.__version__}, 2 x {torch.get_num_threads()} threads, {rounds} rounds")
        of = "NetAug step, 48 px, batch 2 x 64"
        report(f"all-reduce of {size / 1e6:.1f} MB of gradients / {of}", reductions, "at most 0.10")
        name = f"the {2 * len(widths)} exchanges of batch norm over both workers / {of}"
        report(name, exchanges, "none")
        report("NetAug step, batch norm over both workers / each its own", joint, "none")


@contextmanager
def recorded_widths(net: Network) -> Iterator[list[int]]:
    """The channels of every batch norm that runs inside, in order."""
    widths: list[int] = []

    def record(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        widths.append(arguments[0].shape[1])

    norms = [module for module in net.modules() if isinstance(module, ElasticNorm)]
    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    yield widths
    for hook in hooks:
        hook.remove()


def exchange_statistics(widths: list[int]) -> None:
    """The collectives of `nasaug.supernet.synchronised`, forward and then backward."""
    for width in widths:
        own = torch.ones(2, width)
        dist.all_gather([torch.empty_like(own), torch.empty_like(own)], own)
    for width in reversed(widths):
        dist.all_reduce(torch.ones(2, width))


def together_timed(run: Callable[[], None]) -> float:
    """The seconds that something takes once both workers have come to it."""
    dist.barrier()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
