"""What `nasaug detect compare` is asked, from one YAML file: how backbones are pre-trained, and at
which input sizes a detector is then trained on each.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nasaug.search import parse_band
from nasaug.sections import Section
from nasaug.study_config import NOT_RUN, Seeds, Tuning, check_decided, check_names
from nasaug.supernet import did_you_mean

LEAST_SIZES = 2
# Keys that the study decides, and by which of its own.
DECIDED = {
    "seed": "seeds",
    "threads": "threads",
    "target": "target",
    "in_channels": "in_channels",
    "tensorboard": "the study's own report",
}
OF_PRETRAINING = {
    **DECIDED,
    "train.lr": "tune_pretrain.grid",
    "data.dir": "data_dir",
}
OF_DETECTING = {
    **DECIDED,
    "train.lr": "tune.grid",
    "detector.size": "sizes",
    "data.name": "scenes, or data",
    "init": "the method's pretrain",
}
# What methods have in common, so that they compare: by the section that decides it.
LENGTHS = ("train.epochs", "train.warmup_epochs")
ALIKE = {
    "pretrain": {key: "base.pretrain" for key in LENGTHS},
    "detect": {key: "base.detect" for key in (*LENGTHS, "style")},
}


def _sizes(given: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(given)) < max(LEAST_SIZES, len(given)):
        raise ValueError(
            "MACs at equal mAP are read between input sizes, so that sizes must be two or more "
            f"different sides in pixels, but got {list(given)}"
        )
    return tuple(sorted(given))


def _sides(given: Any) -> Any:
    """128, or 96..256: the smallest and the largest side of the scenes."""
    if isinstance(given, list | tuple):
        return tuple(given)
    try:
        low, high = parse_band(given)
    except ValueError:
        raise ValueError(
            f"a number of pixels such as 128, or 96..256, is needed, but got {given!r}"
        ) from None
    return low or high, high


class ScenesSection(Section):
    """The scenes that a study has made: as `nasaug detect scenes` makes them.

    train, val, test: how many. size: pixels a side, or a band of them. objects: the fewest and the
    most items. scales: their longer side, as a share of the scene's shorter one.
    """

    items: str = "fashion-mnist"
    format: Literal["coco", "voc"] = "coco"
    train: int = Field(1000, ge=1, le=1_000_000)
    val: int = Field(200, ge=1, le=1_000_000)
    test: int = Field(500, ge=1, le=1_000_000)
    size: Annotated[tuple[int, int], BeforeValidator(_sides)] = (128, 128)
    objects: tuple[int, int] = (1, 6)
    scales: tuple[float, float] = (0.2, 0.6)
    grey: bool = False
    seed: int = Field(0, ge=0, lt=2**63)


class BaseSection(Section):
    """What all methods share: keys of `nasaug train`, and of `nasaug detect train`."""

    pretrain: dict[str, Any] = Field(default_factory=dict)
    detect: dict[str, Any] = Field(default_factory=dict)


class MethodSection(Section):
    """By what a method differs. pretrain: keys of `nasaug train`, whose method is baseline unless
    it is said; None is a detector from fresh weights. detect: keys of `nasaug detect train`."""

    pretrain: dict[str, Any] | None = Field(default_factory=dict)
    detect: dict[str, Any] = Field(default_factory=dict)


def _methods(given: dict[str, MethodSection]) -> dict[str, MethodSection]:
    check_names("methods", given)
    for name, method in given.items():
        where = f"methods.{name}"
        check_decided(f"{where}.pretrain", method.pretrain or {}, OF_PRETRAINING)
        check_decided(f"{where}.detect", method.detect, OF_DETECTING)
        for part, keys in (("pretrain", method.pretrain), ("detect", method.detect)):
            check_decided(f"{where}.{part}", keys or {}, ALIKE[part])
    return given


def _usual() -> dict[str, MethodSection]:
    augmented = {"method": "netaug", "largest": "published"}
    return {"baseline": MethodSection(), "netaug": MethodSection(pretrain=augmented)}


class DetectStudy(Section):
    """`nasaug detect compare`: see docs/detection.md for every key.

    sizes: the detector's input sides in pixels. scenes, or data (coco:PATH or voc:PATH): on what.
    data_dir: where the images for pre-training, and the scenes' items, lie. tune: how the
    detector's learning rate is chosen, for every method at every size; tune_pretrain: the
    pre-training's, for every method; a single rate is taken as it is.
    """

    question: str
    target: str = "micro_40k"
    in_channels: Literal[1, 3] | None = None
    sizes: Annotated[tuple[int, ...], AfterValidator(_sizes)]
    seeds: Seeds = (0, 1, 2)
    scenes: ScenesSection | None = None
    data: str | None = None
    data_dir: str | None = None
    base: BaseSection = BaseSection()
    methods: Annotated[dict[str, MethodSection], AfterValidator(_methods)] = Field(
        default_factory=_usual
    )
    baseline: str = "baseline"
    tune: Tuning = Tuning(grid=(0.05, 0.1, 0.2), share=0.5)
    tune_pretrain: Tuning = Tuning(grid=(0.4,), extend=False)
    workers: int | None = Field(None, ge=1, le=1024)
    threads: int = Field(1, ge=1, le=1024)
    answer: str = NOT_RUN

    @model_validator(mode="after")
    def _sound(self) -> DetectStudy:
        if (self.scenes is None) == (self.data is None):
            raise ValueError(
                "give scenes (they are made) or data (coco:PATH or voc:PATH), one of the two; "
                "--set scenes=null leaves the scenes out"
            )
        if self.baseline not in self.methods:
            near = did_you_mean(self.baseline, self.methods)
            raise ValueError(f"baseline {self.baseline!r} is none of the methods: {near}")
        check_decided("base.pretrain", self.base.pretrain, OF_PRETRAINING)
        check_decided("base.detect", self.base.detect, OF_DETECTING)
        return self
