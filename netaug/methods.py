"""The named methods, the parts that they are made of, and which parts go together.

A method is a set of configuration sections and nothing else; every part can be added to every
method by its own keys, unless `REFUSED` says why not. `nasaug methods` prints these tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Method:
    """`sections`: what the method's name stands for in a configuration."""

    summary: str
    source: str
    sections: Sections = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """`settings`: the keys that switch it on. `needs`: the part without which it means nothing."""

    summary: str
    settings: Mapping[str, Any]
    needs: str | None = None


METHODS: dict[str, Method] = {
    "baseline": Method("the target alone", "SGD as published for the targets"),
    "netaug": Method(
        "inside sampled larger networks", "Cai et al., ICLR 2022, 2110.08890", {"netaug": {}}
    ),
    "kd": Method(
        "with an outer teacher (distill.teacher)", "Hinton et al., 2015, 1503.02531",
        {"distill": {}},
    ),
    "rkd": Method(
        "NetAug; the largest network teaches relations", "Park et al., CVPR 2019, 1904.05068",
        {"netaug": {}, "relational": {}},
    ),
    "in-place": Method(
        "NetAug; the sampled networks teach the target", "Yu and Huang, ICCV 2019, 1903.05134",
        {"netaug": {}, "in_place": {}},
    ),
    "netdistiller": Method(
        "inside the largest network, which teaches it, without conflict",
        "Yu et al., DAC 2024, 2310.19820",
        {
            "netaug": {
                "sampling": "largest", "mixing": "surgery", "width_until": 1.0,
                "sort_channels": False,
            },
            "in_place": {"certainty": True},
        },
    ),
    "netbooster": Method(
        "pointwise convolutions grown into blocks, then merged back",
        "Yu et al., DAC 2023, 2306.13586", {"boost": {}},
    ),
    "unsharing": Method(
        "equal rows of a stage share weights at first", "Yang et al., 2021, 2110.03848",
        {"unshare": {}},
    ),
    "pruning": Method(
        "the smallest weights go, little by little", "Zhu and Gupta, 2017, 1710.01878",
        {"prune": {}},
    ),
    "qat": Method(
        "the target alone, its numbers rounded as in int8", "Jacob et al., CVPR 2018, 1712.05877",
        {"quantise": {}},
    ),
}  # fmt: skip

PARTS: dict[str, Part] = {
    "netaug": Part("sampled larger networks", {"netaug.alpha": 1.0}),
    "several helpers": Part("more than one a step", {"netaug.helpers": 2}, "netaug"),
    "tied sampling": Part("one draw a stage", {"netaug.sampling": "tied"}, "netaug"),
    "largest helper": Part("always the largest", {"netaug.sampling": "largest"}, "netaug"),
    "mean": Part("the helpers' mean loss", {"netaug.mixing": "mean"}, "netaug"),
    "anneal": Part("alpha falls to 0", {"netaug.mixing": "anneal"}, "netaug"),
    "surgery": Part("no conflicting gradients", {"netaug.mixing": "surgery"}, "netaug"),
    "separate norms": Part("the target's own", {"netaug.norms": "separate"}, "netaug"),
    "supernet weights": Part("from the search", {"netaug.init": "supernet"}, "netaug"),
    "relational": Part("distances and angles", {"relational.weight": 1.0}, "netaug"),
    "in-place": Part("the sampled teach", {"in_place.weight": 1.0}, "netaug"),
    "distill": Part("an outer teacher", {"distill.teacher": "RUN"}),
    "soft labels": Part("the teacher's, kept on disk", {"distill.cache": "always"}, "distill"),
    "boost": Part("NetBooster's blocks", {"boost.ratio": 6}),
    "unshare": Part("shared weights at first", {"unshare.until": 0.5}),
    "unstructured pruning": Part("single weights", {"prune.kind": "unstructured"}),
    "structured pruning": Part("whole channels", {"prune.kind": "structured"}),
    "quantise": Part("numbers as in int8", {"quantise.weight_bits": 8}),
    "dropout": Part("before the classifier", {"regularise.dropout": 0.1}),
    "drop-path": Part("stochastic depth", {"regularise.drop_path": 0.1}),
    "drop-block": Part("squares of the maps", {"regularise.drop_block": 0.1}),
    "label smoothing": Part("softer labels", {"train.label_smoothing": 0.1}),
    "mixup": Part("blended images", {"data.mixup": 0.2}),
    "cutmix": Part("pasted images", {"data.cutmix": 1.0}),
    "rand-augment": Part("random operations", {"data.rand_augment": True}),
    "auto-augment": Part("ImageNet's learnt policy", {"data.auto_augment": True}),
    "moving average": Part("of the weights", {"train.ema": 0.9}),
    "accumulation": Part("several batches a step", {"train.accumulate": 2}),
    "bf16": Part("autocast", {"train.amp": "bf16"}),
}

_MERGED = "pruned weights do not stay zero when a block is merged into one convolution"
_FIXED = "kept soft labels are of images as they are or mirrored, and the images change every epoch"
REFUSED: dict[tuple[str, str], str] = {
    ("boost", "netaug"): "a boosted block has its shortcut by its widths, which the helpers change",
    ("boost", "unstructured pruning"): _MERGED,
    ("boost", "structured pruning"): _MERGED,
    ("boost", "quantise"): "a block is merged after its parts were rounded, each by itself",
    ("mean", "anneal"): "netaug.mixing has one value",
    ("mean", "surgery"): "netaug.mixing has one value",
    ("anneal", "surgery"): "netaug.mixing has one value",
    ("largest helper", "tied sampling"): "netaug.sampling has one value",
    ("largest helper", "several helpers"): "the largest network is one",
    ("separate norms", "structured pruning"): "helpers would use channels that the target lost",
    ("structured pruning", "unstructured pruning"): "prune.kind has one value",
    ("rand-augment", "auto-augment"): "each chooses the images' operations",
    ("soft labels", "mixup"): _FIXED,
    ("soft labels", "cutmix"): _FIXED,
    ("soft labels", "rand-augment"): _FIXED,
    ("soft labels", "auto-augment"): _FIXED,
    ("unshare", "boost"): "boosted rows alternate with others, so that few are still equal",
    ("unshare", "supernet weights"): "unsharing starts from equal weights, the supernet's differ",
}


def refusal(first: str, second: str) -> str | None:
    """Why two parts do not go together, in either order; None where they do."""
    for one, other in ((first, second), (second, first)):
        for part in (other, PARTS[other].needs):
            for mine in (one, PARTS[one].needs):
                if mine is not None and part is not None and (mine, part) in REFUSED:
                    return REFUSED[mine, part]
    return None


def check_parts(on: Collection[str]) -> None:
    """Raises: ValueError for a part without the one it needs and for two that do not go together,
    with the reason."""
    for part in on:
        needs = PARTS[part].needs
        if needs is not None and needs not in on:
            key = next(iter(PARTS[part].settings))
            raise ValueError(
                f"{part} ({key}) needs {needs}, which is off; use a method with {needs}, or leave "
                f"{key} out (see nasaug methods)"
            )
    ordered = [name for name in PARTS if name in on]
    for index, first in enumerate(ordered):
        for second in ordered[index + 1 :]:
            if (reason := refusal(first, second)) is not None:
                raise ValueError(
                    f"{first} and {second} do not go together: {reason}; switch one of them off "
                    "(see nasaug methods)"
                )
