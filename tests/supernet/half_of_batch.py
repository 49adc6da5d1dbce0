"""One of two workers that test_synchronised.py starts as torchrun would.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python half_of_batch.py FOLDER

Each runs its half of the same batch and ends with what it computed in FOLDER/RANK.safetensors.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import (
    Architecture,
    Network,
    SearchSpace,
    load_target,
    synchronise_batch_norm,
)
from nasaug.supernet.synchronised import normalise_over_workers

Job = tuple[Network, list[Architecture | None]]


def jobs(dtype: torch.dtype = torch.float64) -> dict[str, Job]:
    """Networks, and the sub-networks of one step, whose gradients add up."""
    micro = load_target("micro_10k", 10)
    space = SearchSpace.around(micro, width=(1, 2), expand=(1, 2))
    generator = torch.Generator().manual_seed(0)
    rng = random.Random(0)
    plain = Network(micro, generator=generator).to(dtype)
    wide = Network(space.largest, generator=generator).to(dtype)
    return {
        "plain": (plain, [None]),
        "sub-network": (wide, [space.target]),
        "two passes": (wide, [space.target, space.sample(rng)]),
    }


def batch() -> tuple[Tensor, Tensor]:
    """Half of the images are brighter, so that the halves' statistics differ."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 28, 28, generator=generator, dtype=torch.float64)
    images[6:] = 2 * images[6:] + 1
    return images, torch.randint(0, 10, (12,), generator=generator)


def step(job: Job, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits of every pass, and the gradients that all of them leave."""
    net, subs = job
    found = {}
    net.zero_grad()
    for index, sub in enumerate(subs):
        logits = net(images, sub)
        F.cross_entropy(logits.double(), labels).backward()
        found[f"logits.{index}"] = logits.detach()
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            found[f"gradient.{name}"] = parameter.grad.clone()
    return found


def values() -> Tensor:
    """(8, 3, 2, 2) with means far beyond the deviations: 300, 1000 and 3000 to 1."""
    generator = torch.Generator().manual_seed(2)
    means = torch.tensor([300.0, 1e3, 3e3])
    return torch.randn(8, 3, 2, 2, generator=generator) + means[:, None, None]


def _synchronised(job: Job) -> Job:
    net, subs = copy.deepcopy(job[0]), job[1]
    synchronise_batch_norm(net, True)
    return copy.deepcopy(net), subs


def _counting(calls: list[str], name: str) -> Callable[..., object]:
    collective = getattr(dist, name)

    def counted(*arguments: object, **options: object) -> object:
        calls.append(name)
        return collective(*arguments, **options)

    return counted


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    calls: list[str] = []
    for name in ("all_gather", "all_reduce"):
        setattr(dist, name, _counting(calls, name))
    mine = slice(6 * rank, 6 * rank + 6)
    images, labels = (tensor[mine] for tensor in batch())
    found: dict[str, Tensor] = {}
    for name, job in jobs().items():
        variants = {"own": job, "global": _synchronised(job)}
        variants["off again"] = copy.deepcopy(variants["global"][0]), job[1]
        synchronise_batch_norm(variants["off again"][0], False)
        exported = variants["global"][0].export(job[1][0]).train()
        variants["export"] = exported, [None]
        for variant, variant_job in variants.items():
            calls.clear()
            results = step(variant_job, images, labels)
            for collective in ("all_gather", "all_reduce"):
                count = torch.tensor(calls.count(collective))
                found[f"{name}/{variant}/calls.{collective}"] = count
            for key, tensor in results.items():
                found[f"{name}/{variant}/{key}"] = tensor
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _synchronised(jobs(torch.float32)["plain"])
        found["autocast"] = step(mixed, images.float(), labels)["logits.0"]
    part = values()[4 * rank : 4 * rank + 4]
    found["far"] = normalise_over_workers(part, torch.ones(3), torch.zeros(3), 1e-5)
    safetensors.torch.save_file(found, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
