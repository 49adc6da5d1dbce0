"""Judging a candidate by the weights it inherits from the supernet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nasaug.supernet import Architecture, Network
from nasaug.training import Batch, evaluate, reestimate_batch_norm


@dataclass(frozen=True)
class InheritedAccuracy:
    """Validation top-1 of a sub-network, its batch-norm statistics re-estimated first.

    `calibration` and `validation` are the same batches for every candidate.
    """

    supernet: Network
    calibration: Iterable[Batch]
    validation: Iterable[Batch]

    def __call__(self, arch: Architecture) -> float:
        candidate = self.supernet.export(arch)
        reestimate_batch_norm(candidate, self.calibration)
        return evaluate(candidate, self.validation)["top1"]
