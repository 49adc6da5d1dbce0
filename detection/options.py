"""What a single-shot detector is besides its backbone: a frozen value, saved with its weights."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Of SSDLite at width 1 (Sandler et al., 2018) they are 512, 256, 256, 128.
EXTRA = (256, 128, 128, 64)


class DetectorOptions(BaseModel):
    """A detector's input, feature maps, anchors, what it learns from and what it hands over.

    size: side of the (square) pictures that it reads, in pixels. strides: of the backbone, whose
    deepest rows give feature maps (None: its last two). extra: widths of further layers, each of
    which halves the last map (None: 256, 128, 128, 64 until a map is 1 x 1).

    Anchors, of every map (Liu et al., "SSD", ECCV 2016, section 2.2): widths by heights of
    `aspect_ratios` and their inverses, and two squares; as shares of the picture from `smallest` on
    the first map, evenly spaced, to `largest` on the last.

    Training: an anchor is of an object from an overlap (IoU) of `match_iou` on; so many times as
    many anchors are taught to be ground as to be objects (`negatives`), the worst ones first.

    Prediction: classes of a score above `min_score`; of each the best `candidates`, without those
    that overlap a better one by more than `nms_iou`; of a picture the best `detections`.

    Raises: ValueError (pydantic's) for a value outside its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(160, ge=32, le=2048)
    strides: tuple[int, ...] | None = Field(None, min_length=1)
    extra: tuple[int, ...] | None = None
    aspect_ratios: tuple[float, ...] = (2.0, 3.0)
    smallest: float = Field(0.2, gt=0, le=1)
    largest: float = Field(0.95, gt=0, le=1)
    match_iou: float = Field(0.5, gt=0, lt=1)
    negatives: float = Field(3.0, ge=0, le=1000)
    min_score: float = Field(0.01, ge=0, lt=1)
    candidates: int = Field(400, ge=1, le=100_000)
    nms_iou: float = Field(0.45, gt=0, le=1)
    detections: int = Field(200, ge=1, le=100_000)

    @model_validator(mode="after")
    def _ranges(self) -> DetectorOptions:
        if self.smallest >= self.largest:
            raise ValueError(
                f"smallest must be below largest, but got {self.smallest} and {self.largest}"
            )
        if any(ratio <= 1 for ratio in self.aspect_ratios):
            raise ValueError(
                "aspect_ratios must be above 1, as the inverse of each and 1 itself are there "
                f"anyway, but got {[*self.aspect_ratios]}"
            )
        extra = self.extra or ()
        if any(width < 2 or width % 2 for width in extra):
            raise ValueError(
                f"extra must be even widths of at least 2 channels, but got {[*extra]}"
            )
        return self

    @property
    def anchors_a_place(self) -> int:
        """Anchors at every position of a feature map."""
        return 2 + 2 * len(self.aspect_ratios)
