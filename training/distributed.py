"""Several workers under torchrun: one explicit all-reduce of the gradients before each step.

No DistributedDataParallel: it hooks into one backward pass, while NetAug has several a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


@dataclass(frozen=True)
class Workers:
    """This worker's rank and the number of workers; (0, 1) outside torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0


ALONE = Workers()


def join_workers(device: torch.device) -> Workers:
    """Join the group that torchrun describes in the environment; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Workers(dist.get_rank(), size)


def average_gradients(parameters: Iterable[nn.Parameter], workers: Workers) -> None:
    """Replace every gradient by its mean over the workers."""
    if workers.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = _flatten_dense_tensors(gradients)
    dist.all_reduce(flat)
    flat /= workers.size
    for gradient, mean in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)


def wait_for_all(workers: Workers) -> None:
    if workers.size > 1:
        dist.barrier()
