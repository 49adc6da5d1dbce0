"""Batch norm whose width varies, and whether its batch is a worker's own or that of all workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasaug.supernet.cuts import part_of
from nasaug.supernet.synchronised import has_other_workers, normalise_over_workers

Sliced = dict[str, Tensor]


class ElasticNorm(nn.Module):
    """Batch norm over the first channels.

    Training uses the batch's statistics and leaves the running ones alone, since each sub-network
    has its own: they are estimated after training, on an export. `momentum` is None except while
    that is done (`nasaug.training.reestimate_batch_norm`).
    """

    running_mean: Tensor
    running_var: Tensor
    EPS = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum: float | None = None
        self.synchronised = False

    def sliced(self, channels: int) -> Sliced:
        tensors = {
            "weight": self.weight,
            "bias": self.bias,
            "running_mean": self.running_mean,
            "running_var": self.running_var,
        }
        return {name: first_channels(tensor, channels) for name, tensor in tensors.items()}

    def forward(self, x: Tensor, channels: int) -> Tensor:
        weight = first_channels(self.weight, channels)
        bias = first_channels(self.bias, channels)
        if self.training and self.momentum is None:
            if self.synchronised and has_other_workers():
                return normalise_over_workers(x, weight, bias, self.EPS)
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.EPS)
        return F.batch_norm(
            x,
            first_channels(self.running_mean, channels),
            first_channels(self.running_var, channels),
            weight,
            bias,
            self.training,
            self.momentum or 0.0,
            self.EPS,
        )


def synchronise_batch_norm(net: nn.Module, on: bool) -> None:
    """Let the batch norms of `net` take training statistics over the batches of all workers.

    The workers are those of torch.distributed's default group, whichever it is when the network
    runs; without a group, or alone in it, nothing changes. Every worker must then run the same
    sub-networks in the same order on as many images, since each norm waits for the others: a
    training pass on one worker only would wait for ever. Exports are never synchronised.
    """
    for module in net.modules():
        if isinstance(module, ElasticNorm):
            module.synchronised = on


def first_channels(tensor: Tensor, channels: int) -> Tensor:
    return part_of(tensor, () if tensor.shape[0] == channels else (slice(channels),))
