"""Pictures decoded by worker processes: what all loaders of files have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nasaug.training.orders import Order

NICE = 10


class Decoding:
    """Batches of a data set that is asked for (index, seed of the augmentation), in `order`.

    `together` makes a batch of what it gives. `workers` is the number of processes (None: one a
    core); `device` is where the batches go next, `leading` as in `Order.indices`.
    """

    def __init__(
        self,
        files: Dataset[Any],
        order: Order,
        together: Callable[[list[Any]], Any],
        workers: int | None,
        device: torch.device,
        leading: int = 0,
    ) -> None:
        self._sampler = _EpochSampler(order, leading)
        workers = _worker_count() if workers is None else workers
        self._loader: DataLoader[Any] = DataLoader(
            files,
            batch_sampler=self._sampler,
            num_workers=workers,
            collate_fn=together,
            pin_memory=device.type == "cuda",
            worker_init_fn=_give_way if device.type == "cpu" else None,
            persistent_workers=workers > 0 and order.augments,
            # What it draws from decides nothing here, but would otherwise be torch's own generator.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of one epoch, from batch `start` on."""
        self._sampler.epoch, self._sampler.start = epoch, start
        yield from self._loader


def _give_way(worker: int) -> None:
    """A step that computes on the same cores goes first, for it waits for its slowest thread; the
    cores are free for decoding whenever it has nothing to compute on."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICE)


class _EpochSampler:
    """Lists of (index, seed of its augmentation), for the epoch that is set."""

    def __init__(self, order: Order, leading: int) -> None:
        self.order, self.leading, self.epoch, self.start = order, leading, 0, 0

    def __len__(self) -> int:
        return len(self.order) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for chosen in self.order.indices(self.epoch, self.leading)[self.start :]:
            yield [(i, self.order.draw_seed(self.epoch, i)) for i in chosen.tolist()]


def _worker_count() -> int:
    """One decoding process a core, shared by the training processes on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
