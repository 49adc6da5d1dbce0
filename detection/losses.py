"""What a single-shot detector learns by: SSD's losses (Liu et al., ECCV 2016, equations 1 to 3).

    L = (L_conf + L_loc) / N

over the N anchors that are of an object: smooth L1 of their offsets, cross entropy of their classes
and of the worst anchors that are of none, three times as many in each image (hard negative mining).
An anchor is of the object that it overlaps most, if by enough; and every object has the anchor that
overlaps it most. Equal to torchvision's `SSD.compute_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.ops import box_iou

from nasaug.detection.options import DetectorOptions

GROUND = 0
# How SSD weighs centres and sides; its code calls the inverses variances (0.1 and 0.2).
CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


class Predicted(NamedTuple):
    """What the heads say of N images' A anchors: logits (N, A, classes + 1), of which the first is
    the ground's, and offsets (N, A, 4) from the anchors, in the coder's units."""

    logits: Tensor
    offsets: Tensor


def matched(anchors: Tensor, boxes: Tensor, least: float) -> Tensor:
    """anchors (A, 4), boxes (n, 4) -> int64 (A,): the box that each anchor is of, -1 for none;
    see above. `least` is the overlap (IoU) from which an anchor is of a box."""
    if len(boxes) == 0:
        return torch.full((len(anchors),), -1, device=anchors.device)
    of_boxes: Tensor = SSDMatcher(least)(box_iou(boxes, anchors))
    return of_boxes.clamp(min=-1)


def detection_losses(
    predicted: Predicted,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    anchors: Tensor,
    options: DetectorOptions,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """{"boxes", "classes"}, whose sum is the loss.

    boxes: of each image float32 (n, 4) in pixels as it is shown; labels int64 (n,); anchors (A, 4).
    Images may be without objects. The losses are float32 whatever the predictions are.
    """
    logits, offsets = predicted.logits.float(), predicted.offsets.float()
    wanted = torch.full(logits.shape[:2], GROUND, device=logits.device)
    location = offsets.sum() * 0.0
    for index, (own, names) in enumerate(zip(boxes, labels, strict=True)):
        of_boxes = matched(anchors, own, options.match_iou)
        found = of_boxes >= 0
        goal = CODER.encode_single(own[of_boxes[found]], anchors[found])
        location = location + F.smooth_l1_loss(offsets[index, found], goal, reduction="sum")
        wanted[index, found] = names[of_boxes[found]] + 1
    entropy = F.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), reduction="none", label_smoothing=label_smoothing
    ).view_as(wanted)
    objects = wanted != GROUND
    chosen = objects | _hard(entropy.detach(), objects, options.negatives)
    count = objects.sum().clamp(min=1)
    return {"boxes": location / count, "classes": (entropy * chosen).sum() / count}


def _hard(entropy: Tensor, objects: Tensor, negatives: float) -> Tensor:
    """bool (N, A): of each image's anchors on the ground, `negatives` times as many as it has on
    objects, those of the highest entropy."""
    order = entropy.masked_fill(objects, -torch.inf).argsort(1, descending=True)
    rank = order.argsort(1)
    return (rank < negatives * objects.sum(1, keepdim=True)) & ~objects
