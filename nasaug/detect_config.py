"""The configuration of `nasaug detect train`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nasaug.config import RunConfig
from nasaug.detection import DetectorOptions
from nasaug.sections import Section
from nasaug.supernet import Factors, published_factors
from nasaug.training import Recipe


class DetectionDataSection(Section):
    """Which pictures, and how they are augmented.

    name: voc:PATH or coco:PATH. validation, classes, skip_bad: see
    `nasaug.detection.load_detection_set`. The others: see `nasaug.detection.DetectionView`; mean
    and std None are ImageNet's.
    """

    name: str | None = None
    validation: float = Field(0.1, gt=0, lt=1)
    classes: tuple[str, ...] | None = Field(None, min_length=1)
    skip_bad: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    zoom_out: float = Field(4.0, ge=1, le=100)
    iou_crop: bool = True
    photometric: bool = True
    difficult: bool = True
    smallest: float = Field(1.0, ge=1, le=2048)
    workers: int | None = Field(None, ge=0, le=256)
    in_memory: bool = False


class DetectionRecipe(Recipe):
    """The recipe of a detector; its input size is `detector.size`, at no other."""

    epochs: int = Field(30, ge=1, le=10_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    bn_images: int = Field(512, ge=2, le=1_000_000)


class HelpersSection(Section):
    """What helps a detector's target with `method: netaug`.

    alpha, width_until: as `netaug` of nasaug train. width, expand: factors, None the target's
    published ones. kernel_growth, extra_depth, divisor: as there. largest: a search's best.json (or
    its folder) in place of a largest network made from factors.
    """

    alpha: float = Field(1.0, ge=0, le=100)
    width_until: float = Field(0.5, ge=0, le=1)
    width: tuple[float, ...] | None = Field(None, min_length=1)
    expand: tuple[float, ...] | None = Field(None, min_length=1)
    kernel_growth: tuple[int, ...] = (0,)
    extra_depth: tuple[int, ...] = (0,)
    divisor: int = Field(8, ge=1, le=64)
    largest: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> HelpersSection:
        if self.largest is not None and (self.kernel_growth, self.extra_depth) != ((0,), (0,)):
            raise ValueError(
                "kernel_growth and extra_depth make a largest network from factors, but largest "
                f"{self.largest} has kernels and depth of its own; give the one or the other"
            )
        return self

    def factors(self, target: str) -> Factors:
        published = published_factors(target)
        return Factors(self.width or published.width, self.expand or published.expand)


class DetectConfig(RunConfig):
    """`nasaug detect train`: a detector on `target`, alone (baseline) or with NetAug's helpers.

    `init` is a run of nasaug train or nasaug detect train, or a weights file, to start from;
    without it weights are fresh. `style` is how mAP is counted: voc (AP50) or coco (0.50:0.95);
    None: as the data's own benchmark does.
    """

    # Its pictures have boxes: another section, of which nothing is read as one of the other kind.
    data: DetectionDataSection = DetectionDataSection()  # type: ignore[assignment]
    train: DetectionRecipe = DetectionRecipe()
    detector: DetectorOptions = DetectorOptions()
    method: Literal["baseline", "netaug"] = "baseline"
    netaug: HelpersSection | None = None
    init: str | None = None
    style: Literal["voc", "coco"] | None = None

    @model_validator(mode="after")
    def _go_together(self) -> DetectConfig:
        if self.data.name is None:
            raise ValueError("a detector needs pictures with boxes: --data voc:PATH or coco:PATH")
        given = {"resolution": self.resolution, "train.resolution": self.train.resolution}
        for key, side in given.items():
            if side is not None:
                raise ValueError(
                    f"{key} is {side}, but a detector reads, and is deployed at, detector.size; "
                    "set that"
                )
        if self.train.head_lr_factor != 1:
            raise ValueError(
                f"train.head_lr_factor is for a classifier, but got {self.train.head_lr_factor}; "
                "leave it at 1"
            )
        if self.method == "baseline" and self.netaug is not None:
            raise ValueError(
                "method baseline trains the detector alone, but there are keys of netaug; use "
                "--method netaug, or leave them out"
            )
        if (self.data.mean is None) != (self.data.std is None):
            raise ValueError("data.mean and data.std go together; give both or neither")
        return self

    @property
    def helpers(self) -> HelpersSection | None:
        """The netaug section as it counts; None for a detector that is trained alone."""
        if self.method == "baseline":
            return None
        return self.netaug or HelpersSection()

    @property
    def judged_by(self) -> str:
        """voc or coco. The data's name was checked when they were loaded."""
        return self.style or str(self.data.name).partition(":")[0]
