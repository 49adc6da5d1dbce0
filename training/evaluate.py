"""Judging a network: batch-norm statistics first, then accuracy. Always on an export."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import ElasticNorm, Network

Batch = tuple[Tensor, Tensor]


def reestimate_batch_norm(net: Network, batches: Iterable[Batch]) -> int:
    """Set the running statistics of `net` to the mean over `batches`; returns the images used.

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


def evaluate(net: Network, batches: Iterable[Batch]) -> dict[str, float]:
    """{"top1", "top5", "loss"} in eval mode: fractions, and the mean cross entropy.

    With fewer than five classes top5 is the accuracy within all of them.

    Raises: ValueError without a batch.
    """
    was_training = net.training
    net.eval()
    top1 = top5 = images = 0
    loss = 0.0
    with torch.inference_mode():
        for x, y in batches:
            logits = net(x).float()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hits = ranked == y[:, None]
            top1 += int(hits[:, 0].sum())
            top5 += int(hits.sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            images += len(y)
    net.train(was_training)
    if images == 0:
        raise ValueError("there is not one image to evaluate on")
    return {"top1": top1 / images, "top5": top5 / images, "loss": loss / images}
