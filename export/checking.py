"""Whether what was written computes what the evaluated network computes, on real images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nasaug.export.model import Runner


@dataclass(frozen=True)
class Check:
    """`difference`: the largest of any logit, in standard deviations of the reference's logits from
    image to image, for what is the same for all images says nothing of the layers; `agreement`: the
    share of images with the same likeliest class; `tolerance`: None where top-1 is what decides."""

    images: int
    difference: float
    agreement: float
    tolerance: float | None

    @property
    def passed(self) -> bool:
        """Not so where a logit is no number."""
        if not math.isfinite(self.difference):
            return False
        return self.tolerance is None or self.difference <= self.tolerance


def compare(logits: Tensor, reference: Tensor, tolerance: float | None) -> Check:
    """logits, reference (N, classes), of two images at least.

    Raises: ValueError for other shapes.
    """
    if logits.shape != reference.shape or logits.ndim != 2 or len(logits) < 2:
        raise ValueError(
            "logits can be compared where both are (images, classes) of two images, but they are "
            f"{tuple(logits.shape)} and {tuple(reference.shape)}"
        )
    ours, theirs = logits.detach().double(), reference.detach().double()
    spread = float(theirs.var(0, correction=0).mean().sqrt())
    largest = float((ours - theirs).abs().max())
    # A network that says the same of all images has no spread: only the same logits will do.
    difference = largest / spread if spread > 0 else (0.0 if largest == 0 else float("inf"))
    same = (ours.argmax(1) == theirs.argmax(1)).double().mean()
    return Check(len(ours), difference, float(same), tolerance)


def logits_of(run: Runner, batches: Iterable[Tensor]) -> Tensor:
    """(N, classes) of all images, one batch after the other."""
    with torch.inference_mode():
        return torch.cat([run(images).float() for images in batches])
