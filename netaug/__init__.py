"""NetAug: training a tiny target inside larger networks that share its weights."""

from nasaug.netaug.augmentation import Augmentation, evenly_spaced
from nasaug.netaug.inner_channels import compact
from nasaug.netaug.methods import METHODS, PARTS, REFUSED, Method, Part, check_parts, refusal
from nasaug.netaug.options import (
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    QuantiseOptions,
    RelationalOptions,
)
from nasaug.netaug.parts import Parts
from nasaug.netaug.pruning import PruneOptions, pruning_step, sparsity_at, sparsity_of
from nasaug.netaug.step import netaug_step, training_step
from nasaug.netaug.unsharing import (
    UnshareOptions,
    share_weights,
    sharing_groups,
    unsharing_step,
)

__all__ = [
    "METHODS",
    "PARTS",
    "REFUSED",
    "Augmentation",
    "BoostOptions",
    "DistillOptions",
    "InPlaceOptions",
    "Method",
    "NetAugOptions",
    "Part",
    "Parts",
    "PruneOptions",
    "QuantiseOptions",
    "RelationalOptions",
    "UnshareOptions",
    "check_parts",
    "compact",
    "evenly_spaced",
    "netaug_step",
    "pruning_step",
    "refusal",
    "share_weights",
    "sharing_groups",
    "sparsity_at",
    "sparsity_of",
    "training_step",
    "unsharing_step",
]
