"""Judging a network quickly: batch-norm statistics first, then accuracy. Always on an export.

`nasaug.training.metrics` judges at length, in the same pass and by the same counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasaug.supernet import ElasticNorm, Network

Batch = tuple[Tensor, Tensor]


def reestimate_batch_norm(net: nn.Module, batches: Iterable[tuple[Tensor, Any]]) -> int:
    """Set the running statistics of `net` to the mean over `batches`; returns the images used.

    Of a batch only the images, which come first, are looked at.

    Weights trained in company have no running statistics of their own: without this step a
    sub-network's accuracy collapses. Each batch counts alike (cumulative mean).
    """
    norms = [module for module in net.modules() if isinstance(module, ElasticNorm)]
    was_training = net.training
    net.train()
    images = 0
    try:
        with torch.inference_mode():
            for index, (x, _) in enumerate(batches):
                for norm in norms:
                    norm.momentum = 1.0 / (index + 1)
                net(x)
                images += len(x)
    finally:
        for norm in norms:
            norm.momentum = None
        net.train(was_training)
    if images == 0:
        raise ValueError("batch norm needs at least one batch to be re-estimated on")
    return images


class Scores:
    """Top-1, top-5 and cross entropy, counted on the device of the logits."""

    def __init__(self) -> None:
        self.images = 0
        self._hits = torch.zeros(2, dtype=torch.int64)
        self._loss = torch.zeros((), dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor, depth: int = 5) -> Tensor:
        """Count a batch: logits (N, classes) float32, labels (N,) int64.

        Returns the `depth` (at least 5, if there are as many) likeliest classes, int64 (N, depth).
        """
        ranked = logits.topk(min(max(5, depth), logits.shape[1]), dim=1).indices
        hits = ranked[:, :5] == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        self._hits = self._hits.to(logits.device) + torch.stack([hits[:, 0].sum(), hits.sum()])
        self._loss = self._loss.to(logits.device) + loss
        self.images += len(labels)
        return ranked

    def values(self) -> dict[str, float]:
        """{"top1", "top5", "loss"}: fractions, and the mean cross entropy.

        With fewer than five classes top5 is the accuracy within all of them.
        """
        top1, top5 = self._hits.tolist()
        return {
            "top1": top1 / self.images,
            "top5": top5 / self.images,
            "loss": float(self._loss) / self.images,
        }


def evaluate(net: Network, batches: Iterable[Batch]) -> dict[str, float]:
    """{"top1", "top5", "loss"} in eval mode; see `Scores`.

    Raises: ValueError without a batch.
    """
    scores = Scores()
    show(net, batches, scores.add)
    return scores.values()


def show(net: Network, batches: Iterable[Batch], add: Callable[[Tensor, Tensor], object]) -> None:
    """Call `add(logits float32, labels)` for each batch, in eval mode and inference mode.

    Raises: ValueError without an image.
    """
    was_training = net.training
    net.eval()
    images = 0
    try:
        with torch.inference_mode():
            for x, y in batches:
                add(net(x).float(), y)
                images += len(y)
    finally:
        net.train(was_training)
    if images == 0:
        raise ValueError("there is not one image to evaluate on")
