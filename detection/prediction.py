"""From what the heads say to detections: softmax, the best of each class, suppression by class.

Equal to torchvision's `SSD.postprocess_detections`, for all classes at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from nasaug.detection.losses import CODER, Predicted
from nasaug.detection.metrics import Detections
from nasaug.detection.options import DetectorOptions


def detections_of(
    predicted: Predicted, anchors: Tensor, options: DetectorOptions
) -> list[Detections]:
    """What was found on each image, best first; boxes in pixels of the square that the detector
    reads. anchors (A, 4)."""
    size = (options.size, options.size)
    found = []
    for logits, offsets in zip(predicted.logits.float(), predicted.offsets.float(), strict=True):
        boxes = clip_boxes_to_image(CODER.decode_single(offsets, anchors), size)
        # (classes, A) without the ground.
        by_class = logits.softmax(-1)[:, 1:].T
        scores, places = by_class.topk(min(options.candidates, by_class.shape[1]), dim=1)
        good = scores > options.min_score
        labels = torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores)[good]
        scores, boxes = scores[good], boxes[places[good]]
        kept = batched_nms(boxes, scores, labels, options.nms_iou)[: options.detections]
        found.append(Detections(boxes[kept], scores[kept], labels[kept]))
    return found
