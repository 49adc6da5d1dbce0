"""Learning from a teacher's predictions: Hinton, Vinyals, Dean, 2015 (arXiv 1503.02531).

The student imitates the teacher's whole distribution over the classes. Divided by a temperature T,
the logits also tell which of the wrong classes the teacher finds likely; the factor T^2 keeps the
gradient's size as T changes (their section 2.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean over images of w_i T^2 KL(softmax(t_i / T) || softmax(s_i / T)), in nats.

    logits, teacher_logits (N, classes); weights (N,), 1 where not given: the mean is over N, not
    over the sum of the weights. Computed in float32 at least, under autocast too. The gradient
    reaches all arguments: detach those that it must not reach.

    Raises: ValueError for shapes that do not fit, or a temperature that is not above 0.
    """
    if logits.ndim != 2 or logits.shape != teacher_logits.shape:
        raise ValueError(
            "distillation needs logits (N, classes) of equal shapes, but got "
            f"{tuple(logits.shape)} and, of the teacher, {tuple(teacher_logits.shape)}"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0 and finite, but got {temperature}")
    if weights is not None and weights.shape != logits.shape[:1]:
        raise ValueError(
            f"weights must be one number an image, ({len(logits)},), but got {tuple(weights.shape)}"
        )
    student = F.log_softmax(_precise(logits) / temperature, dim=1)
    teacher = F.log_softmax(_precise(teacher_logits) / temperature, dim=1)
    divergences = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    if weights is not None:
        divergences = divergences * weights
    return divergences.mean() * temperature**2


def certainty(logits: Tensor) -> Tensor:
    """How sure a prediction is: 1 - H(softmax(logits)) / log(classes), in [0, 1], detached.

    logits (N, classes) -> (N,): 0 for a uniform prediction, 1 for one class alone. NetDistiller
    (Yu et al., DAC 2024, arXiv 2310.19820) weights each image's distillation by it, so that an
    uncertain teacher misleads less.

    Raises: ValueError for fewer than two classes.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(f"certainty needs at least two classes, but the logits have {classes}")
    logs = F.log_softmax(_precise(logits.detach()), dim=1)
    entropy = -(logs.exp() * logs).sum(1)
    return (1 - entropy / math.log(classes)).clamp(0, 1)


def _precise(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
