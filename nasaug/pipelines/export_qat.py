"""Quantisation-aware fine-tuning of a run whose int8 version loses too much (Jacob et al., CVPR
2018): a training of its own, beside the run's files, that goes on from its weights, by its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nasaug.config import load_config
from nasaug.console import say
from nasaug.pipelines.export_source import Source, Wanted, open_source
from nasaug.pipelines.train import train
from nasaug.train_config import TrainConfig

# The share of the run's own learning rate that is enough to move within a rounding step.
SHARE_OF_RATE = 0.1
KEPT = ("target", "in_channels", "resolution", "data", "seed", "device", "threads", "regularise")


@dataclass(frozen=True)
class FineTuning:
    """`lr` None: a tenth of the run's own. `helpers`: inside larger networks, by NetAug."""

    epochs: int
    lr: float | None = None
    helpers: bool = False


def fine_tuned(source: Source, wanted: Wanted, asked: FineTuning) -> Source:
    """What comes of it, in the folder qat-... of the run's; one that is there is gone on with.

    Raises: ValueError as `check_can_be_tuned`, and for a folder of that name that holds another.
    """
    config = check_can_be_tuned(source, wanted)
    rate = SHARE_OF_RATE * config.train.lr if asked.lr is None else asked.lr
    method = "netaug" if asked.helpers else "qat"
    place = source.folder / f"qat-{method}-e{asked.epochs}-lr{rate:g}"
    say(f"int8 loses more than is allowed: fine-tuning with rounded numbers, in {place}")
    keys = _keys(source, config, asked, rate) | {"method": method}
    try:
        train(load_config(TrainConfig, None, (), keys), str(place), resume=place.exists())
    except ValueError as error:
        if not place.exists():
            raise
        raise ValueError(
            f"{place}, which an earlier fine-tuning made, is of other settings ({error}); remove it"
        ) from None
    return open_source(replace(wanted, place=str(place), force=False))


def check_can_be_tuned(source: Source, wanted: Wanted) -> TrainConfig:
    """The configuration of the run to go on with.

    Raises: ValueError for weights without a run, whose recipe is not known, and for a pruned run.
    """
    if "method" not in source.config or not source.finished:
        raise ValueError(
            f"fine-tuning goes on with a finished training, which {wanted.place} is not: its data "
            "and recipe are needed; train with --init first, or leave --qat-epochs out"
        )
    config = load_config(TrainConfig, str(source.folder / "config.yaml"), (), {})
    if config.prune is not None:
        raise ValueError(
            f"{source.folder} is pruned, and fine-tuning would fill its zeros; leave --qat-epochs "
            "out, or prune and round in one training (--set quantise.weight_bits=8)"
        )
    return config


def _keys(source: Source, config: TrainConfig, asked: FineTuning, rate: float) -> dict[str, Any]:
    """Those of the run, but for how it was trained."""
    own = config.model_dump(mode="json")
    recipe = own["train"] | {"epochs": asked.epochs, "lr": rate, "warmup_epochs": 0}
    keys: dict[str, Any] = {key: own[key] for key in KEPT}
    keys |= {"train": recipe, "init": str(source.folder.resolve()), "quantise": {}}
    if asked.helpers:
        section = own["netaug"] or {}
        decided = ("init", "sort_channels")
        keys["netaug"] = {key: value for key, value in section.items() if key not in decided}
        largest = source.inside.get("largest", "published")
        keys["largest"] = "published" if largest == "none" else largest
    return keys
