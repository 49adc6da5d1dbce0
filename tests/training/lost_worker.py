"""Two workers that train together, one of which is killed in a collective; for test_lost_worker.py.

    python lost_worker.py FOLDER SITE...

A site is the function that the collective is called in. For each of them the program forks two
workers; what the surviving one raised is in FOLDER/SITE.json, as its class's name and its text.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # Every optimizer imports it, which takes seconds: here once, before forking.
import torch.distributed as dist

from nasaug.supernet import Network, load_target
from nasaug.training import (
    Batch,
    Dataset,
    ImageArray,
    Losses,
    Recipe,
    RunFolder,
    State,
    View,
    Workers,
    fit,
    gather,
    relational_loss,
    training_batches,
)

RECIPE = Recipe(epochs=1, warmup_epochs=0, batch_size=4, lr=0.01, checkpoint_every=1)


def step(net: Network, batch: Batch, state: State) -> Losses:
    """With collectives wherever training has them."""
    images, labels = batch
    out = state.outputs(net, images)
    own = gather(out.embedding, state.group)
    loss = state.loss(out.logits, labels) + relational_loss(own.detach().roll(1, 0), own)
    loss.backward()
    return {"target": loss.detach()}


def die_in(site: str, times: int = 2) -> None:
    """Let this process be killed when `site` comes to its `times`th collective."""
    left = times
    for name in ("all_reduce", "all_gather", "barrier"):
        collective = getattr(dist, name)

        def wrapped(*arguments: Any, collective: Any = collective) -> Any:
            nonlocal left
            left -= sys._getframe(1).f_code.co_qualname == site
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return collective(*arguments)

        setattr(dist, name, wrapped)


def work(folder: Path, site: str, rank: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / site}.store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    if rank == 1:
        die_in(site)
    group = Workers(rank, 2)
    images = torch.zeros(32, 1, 28, 28, dtype=torch.uint8).random_()
    part = ImageArray(images, torch.zeros(32, dtype=torch.int64).random_(10))
    data = Dataset("noise", tuple("0123456789"), part, part, part, (0.5,), (0.25,))
    batches = training_batches(data, View(28, 1), RECIPE.batch_size, seed=0, group=group)
    net = Network(load_target("micro_10k", 10, in_channels=1))
    try:
        fit(net, step, batches, RECIPE, RunFolder(folder / f"run-{site}", rank == 0), group=group)
    except Exception as error:
        raised = [type(error).__name__, str(error), str(error.__cause__)]
        (folder / f"{site}.json").write_text(json.dumps(raised))


def main(folder: Path, *sites: str) -> None:
    for site in sites:
        workers = []
        for rank in (0, 1):
            if (pid := os.fork()) == 0:
                work(folder, site, rank)
                os._exit(0)
            workers.append(pid)
        statuses = [os.waitpid(pid, 0)[1] for pid in workers]
        assert os.WTERMSIG(statuses[1]) == signal.SIGKILL, (site, statuses)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
