"""Several workers under torchrun: one explicit all-reduce of the gradients before each step.

No DistributedDataParallel: it hooks into one backward pass, while NetAug has several a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from nasaug.training.monitor import TrainingFailed

# What gloo and NCCL say when a peer's process has ended.
LOST = ("gloo", "nccl", "connection", "socket", "peer")


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


def average(tensors: Sequence[Tensor], workers: Workers, parts: int = 1) -> None:
    """Replace every tensor, a sum over `parts`, by its mean over parts and workers, in place."""
    if workers.size == 1:
        if parts > 1:
            torch._foreach_div_(list(tensors), parts)
        return
    flat = _flatten_dense_tensors(tensors)
    dist.all_reduce(flat)
    flat /= workers.size * parts
    for tensor, mean in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
        tensor.copy_(mean)


@contextmanager
def explained(workers: Workers) -> Iterator[None]:
    """Turns the error that a collective raises when another worker is gone into one that says so.

    Raises: TrainingFailed.
    """
    try:
        yield
    except RuntimeError as error:
        if workers.size == 1 or isinstance(error, TrainingFailed) or not _is_of_group(error):
            raise
        raise TrainingFailed(
            f"worker {workers.rank} of {workers.size} has lost another worker "
            f"({str(error).splitlines()[0]}); start the same command again with --resume"
        ) from error


def _is_of_group(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in LOST)


def wait_for_all(workers: Workers) -> None:
    if workers.size > 1:
        dist.barrier()
