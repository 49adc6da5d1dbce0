"""What a search judges a candidate by: accuracy with inherited weights, help for the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nasaug.config import SearchConfig
from nasaug.search import Evaluate, Helpfulness, InheritedAccuracy, PairedRace, Race
from nasaug.setting import Setting
from nasaug.supernet import Architecture, Network, SearchSpace
from nasaug.training import Batches, evaluation_batches

HELP_PAIRS, LEAST_BATCH = 8, 16


@dataclass(frozen=True)
class Judging:
    """How candidates are judged: `evaluate` gives the judged objectives' values, in their order;
    `race` is None where there is none; `accuracy` is always at hand.
    """

    evaluate: Evaluate
    race: Race | None
    accuracy: InheritedAccuracy


def make_judging(
    config: SearchConfig, setting: Setting, space: SearchSpace, supernet: Network
) -> Judging:
    """As `config.objectives` say. A race needs accuracy to be the only objective, and a sampler
    that learns from losers; NSGA-II counts whole judgements only.
    """
    accuracy = inherited_accuracy(setting, supernet)
    race = None
    if config.race.on and config.objectives == ("accuracy",) and config.sampler != "nsga2":
        race = PairedRace(accuracy, config.race.confidence)
    judges: dict[str, Callable[[Architecture], float]] = {"accuracy": accuracy}
    if "help" in config.objectives:
        judges["help"] = _helpfulness(setting, space, supernet)
    asked = [judges[name] for name in config.objectives if name in judges]

    def evaluate(arch: Architecture) -> tuple[float, ...]:
        return tuple(judge(arch) for judge in asked)

    return Judging(evaluate, race, accuracy)


def inherited_accuracy(setting: Setting, supernet: Network) -> InheritedAccuracy:
    """Validation top-1 with the supernet's weights."""
    data, view = setting.data, setting.view

    def select(indices: Tensor) -> Batches:
        return evaluation_batches(data, data.validation.subset(indices), view)

    return InheritedAccuracy(supernet, setting.calibration(), setting.validation(), select)


def _helpfulness(setting: Setting, space: SearchSpace, supernet: Network) -> Helpfulness:
    """Over up to `HELP_PAIRS` pairs of batches, fewer where the data set is that small."""
    data = setting.data
    generator = torch.Generator().manual_seed(setting.config.seed)
    # In an order of the run's seed: a few batches must stand for all images.
    order = torch.randperm(len(data.validation), generator=generator)
    pairs = min(HELP_PAIRS, len(setting.training), max(2, len(order) // LEAST_BATCH))
    size = min(setting.config.train.batch_size, max(1, len(order) // pairs))
    validation = evaluation_batches(data, data.validation.subset(order), setting.view, size)
    smoothing = setting.config.train.label_smoothing
    return Helpfulness(
        supernet, space.target, setting.training, validation, pairs, label_smoothing=smoothing
    )
