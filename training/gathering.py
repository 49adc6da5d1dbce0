"""A loss of the whole batch when each worker holds a part of it: gathering the embeddings.

Relations reach across workers, so every worker computes the same loss L(e_1, ..., e_W) from the
embeddings e_r = f(w, x_r) of all. What is wanted is

    dL/dw = sum over r of (de_r/dw)^T dL/de_r.

Worker r can only reach its own term, and the gradients are averaged over the workers afterwards:
(1/W) sum over r of c (de_r/dw)^T dL/de_r, which is the wanted one for c = W. So the backward of the
gathering is this worker's slice times the number of workers, and needs no communication.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nasaug.training.distributed import Workers


def gather(embedding: Tensor, group: Workers) -> Tensor:
    """The embeddings of all workers, in the order of their ranks: (N, width) -> (W x N, width).

    All workers must call it, with equal shapes and types, and use the result alike: in the same
    loss, whose gradients are averaged over the workers afterwards. float32 at least.
    """
    if group.size == 1:
        return embedding
    precise = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
    gathered: Tensor = _Gather.apply(precise, group)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embedding: Tensor, group: Workers) -> Tensor:
        ctx.group, ctx.count = group, len(embedding)
        own = embedding.contiguous()
        parts = [torch.empty_like(own) for _ in range(group.size)]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        start = ctx.group.rank * ctx.count
        return gradient[start : start + ctx.count] * ctx.group.size, None
