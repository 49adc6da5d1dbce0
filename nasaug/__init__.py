"""nasaug: train tiny networks inside the larger networks that help them.

The names below are loaded when first used, so that `import nasaug` (and `nasaug --help`) is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasaug.netaug import Augmentation, NetAugOptions, Parts, netaug_step, training_step
    from nasaug.search import InheritedAccuracy, parse_budget, search, single_path_step
    from nasaug.supernet import (
        Architecture,
        Limits,
        Network,
        SearchSpace,
        load_published,
        load_target,
        load_torchvision,
        macs,
        params,
    )
    from nasaug.training import (
        Recipe,
        RunFolder,
        View,
        calibration_batches,
        diagnose,
        evaluate,
        evaluation_batches,
        fit,
        judge,
        load_dataset,
        load_weights,
        plain_step,
        reestimate_batch_norm,
        save_weights,
        training_batches,
    )

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Augmentation",
    "InheritedAccuracy",
    "Limits",
    "NetAugOptions",
    "Network",
    "Parts",
    "Recipe",
    "RunFolder",
    "SearchSpace",
    "View",
    "calibration_batches",
    "diagnose",
    "evaluate",
    "evaluation_batches",
    "fit",
    "judge",
    "load_dataset",
    "load_published",
    "load_target",
    "load_torchvision",
    "load_weights",
    "macs",
    "netaug_step",
    "params",
    "parse_budget",
    "plain_step",
    "reestimate_batch_norm",
    "save_weights",
    "search",
    "single_path_step",
    "training_batches",
    "training_step",
]
_ROOMS = ("supernet", "training", "search", "netaug")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            module = importlib.import_module(f"nasaug.{room}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'nasaug' has no attribute {name!r}")
