"""Watching the losses of a run: their means, and whether they are finite."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Losses = Mapping[str, Tensor]
# On a GPU reading a loss waits for all kernels before it; so it is done for some steps at a time.
STEPS_BETWEEN_CHECKS = 20


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class Monitor:
    """Means, MACs and seconds of the running epoch; `latest` are the losses of the last step
    checked. A loss that is not of every step has a mean of its own."""

    def __init__(self, device: torch.device) -> None:
        self._every = 1 if device.type == "cpu" else STEPS_BETWEEN_CHECKS
        self._pending: list[tuple[int, float, Losses, Tensor]] = []
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}
        self.macs = 0
        self._started = _clocks()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps of the running epoch."""
        return {"sums": self.sums, "counts": self.counts, "macs": self.macs}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.sums, self.counts, self.macs = facts["sums"], facts["counts"], facts["macs"]

    def restart_clocks(self) -> None:
        """What was done since the epoch's end, such as validation, is not training."""
        self._started = _clocks()

    def add(self, step: int, rate: float, losses: Losses, images: Tensor) -> None:
        """Raises: TrainingFailed."""
        # What waits on a GPU is a truth value, not a batch of images.
        kept = images if self._every == 1 else torch.isfinite(images).all()
        self._pending.append((step, rate, losses, kept))
        if len(self._pending) >= self._every:
            self.check()

    def check(self) -> None:
        """Raises: TrainingFailed if a loss since the last check is not finite."""
        for step, rate, losses, images in self._pending:
            for name, value in losses.items():
                number = float(value)
                if not math.isfinite(number):
                    raise TrainingFailed(self._explained(name, number, step, rate, images))
                self.latest[name] = number
                self.sums[name] = self.sums.get(name, 0.0) + number
                self.counts[name] = self.counts.get(name, 0) + 1
        self._pending.clear()

    def epoch_means(self) -> dict[str, float]:
        """Mean values, the seconds, CPU seconds and MACs since the last call; starts over.

        Raises: TrainingFailed.
        """
        self.check()
        now = _clocks()
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        means |= {name: round(now[name] - self._started[name], 3) for name in now}
        means["macs"] = self.macs
        self.sums, self.counts, self.macs, self._started = {}, {}, 0, now
        return means

    def _explained(self, name: str, value: float, step: int, rate: float, images: Tensor) -> str:
        finite = bool(images if images.dtype == torch.bool else torch.isfinite(images).all())
        cause = f"the learning rate of {rate:.3g} is probably too high"
        if not finite:
            cause = "the images of that batch hold values that are not finite"
        return (
            f"the loss of {name.removeprefix('loss_')} became {value} at step {step}: {cause}; "
            "try a lower train.lr or set train.clip_norm"
        )


def _clocks() -> dict[str, float]:
    """Seconds that pass, and those that this process (all its threads, no child) computes: other
    work on the machine makes only the first longer."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}
