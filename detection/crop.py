"""SSD's random crop, as torchvision draws it, with all trials of a round looked at together.

Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2: a part of the picture,
0.3 to 1 of either side, is taken if it overlaps one of the objects whose middle lies in it by at
least a drawn amount. torchvision looks at one trial after the other, which takes longer than all
else that happens to a small picture; the distribution is the same here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

# Below that, a part of a picture may have no pixel.
SMALLEST = 8


class QuickIoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]
    """torchvision's transform, which it leaves all but the drawing to.

    A picture without objects, or smaller than 8 pixels, is left as it is.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        boxes = next(item for item in flat_inputs if isinstance(item, BoundingBoxes))
        canvas = torch.tensor(boxes.canvas_size).flip(0)
        if len(boxes) == 0 or int(canvas.min()) < SMALLEST:
            return {}
        edges = boxes.as_subclass(Tensor)
        while True:
            least = self.options[int(torch.randint(len(self.options), ()))]
            if least >= 1.0:  # Stands for the whole picture.
                return {}
            found = self._first_of_a_round(edges, canvas, least)
            if found is not None:
                return found

    def _first_of_a_round(
        self, edges: Tensor, canvas: Tensor, least: float
    ) -> dict[str, Any] | None:
        draws = torch.rand(self.trials, 4)
        share = self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2]
        size = (canvas * share).long()
        first = ((canvas - size) * draws[:, 2:]).long()
        end = first + size
        aspect = size[:, 0] / size[:, 1]
        middles = (edges[:, :2] + edges[:, 2:]) / 2
        inside = ((first[:, None] < middles) & (middles < end[:, None])).all(2)
        overlap = (box_iou(torch.cat([first, end], 1).to(edges), edges) * inside).amax(1)
        good = (aspect >= self.min_aspect_ratio) & (aspect <= self.max_aspect_ratio)
        good &= inside.any(1) & (overlap >= least)
        if not good.any():
            return None
        chosen = int(good.int().argmax())
        return {
            "left": int(first[chosen, 0]),
            "top": int(first[chosen, 1]),
            "width": int(size[chosen, 0]),
            "height": int(size[chosen, 1]),
            "is_within_crop_area": inside[chosen],
        }
