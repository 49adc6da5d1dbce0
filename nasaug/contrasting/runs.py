"""The configurations of all runs of a contrast, each as long as the compute allows.

A search takes its share of the compute; the training after it takes what the search left, so that
every contestant ends at the same total. Lengths are whole epochs, hence a few percent apart.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import OF_A_SEARCH, load_keys, merged
from nasaug.config import SearchConfig
from nasaug.contrast_config import Contrast
from nasaug.contrasting.contestants import AROUND, CONTESTANTS, FOUND, Kind, placed
from nasaug.contrasting.rehearsals import supernet_parts, training_part
from nasaug.netaug import Augmentation, evenly_spaced
from nasaug.pipelines.stages import stages_of
from nasaug.search import format_macs
from nasaug.setting import Setting, prepare
from nasaug.supernet import Architecture, Factors, macs, macs_at
from nasaug.train_config import TrainConfig

# Steps that are rehearsed to know what a training costs, and members drawn for a mean.
REHEARSED, DRAWN = 200, 64
NOT_OF_SEARCHES = ("epochs", "lr", "bn_images")


@dataclass(frozen=True)
class Searched:
    """A finished search: its folder, and the MACs x images that it took."""

    folder: Path
    macs: int


class Runs:
    """Makes the configurations. `root` is the folder in which cells lie.

    Raises: ValueError for keys that are no legal configuration, and for data that are not there.
    """

    def __init__(self, contrast: Contrast, root: Path) -> None:
        self.contrast, self.root = contrast, root
        self._lengths: dict[Kind, dict[str, Any]] = {}
        self._planned: dict[Kind, int] = {}
        self._epoch_macs: dict[tuple[str, Path | None], float] = {}
        first = self._training("alone", 0.1, 0, None, 1)
        self.setting = prepare(first)

    def at(self, config: TrainConfig | SearchConfig) -> Setting:
        """The setting of another run on the same data."""
        return prepare(config, self.setting.data)

    @property
    def target(self) -> Architecture:
        return self.setting.target

    @cached_property
    def compute(self) -> int:
        """MACs x images of every contestant: as given, or NetAug's."""
        contrast = self.contrast
        if contrast.compute is not None:
            return contrast.compute
        config = self._training("netaug", 0.1, 0, None, contrast.epochs)
        return round(
            self._an_epoch("netaug", None) * (contrast.epochs + config.train.warmup_epochs)
        )

    def search(self, kind: Kind, rate: float, seed: int) -> SearchConfig:
        """Raises: ValueError where its share of the compute is too small for it."""
        if kind not in self._lengths:
            self._lengths[kind] = self._search_lengths(kind)
        return self._search(kind, rate, seed, self._lengths[kind])

    def search_macs(self, kind: Kind) -> int:
        """MACs x images that a search is planned to take: its share but for whole epochs. Raises:
        ValueError as `search`."""
        self.search(kind, self.contrast.tune.grid[0], 0)
        return self._planned[kind]

    def training(
        self, name: str, rate: float, seed: int, searched: Searched | None, share: float = 1.0
    ) -> TrainConfig:
        """With what the search left of the compute; `share` of that length, for tuning.

        Raises: ValueError where nothing is left of it.
        """
        folder = None if searched is None else searched.folder
        left = self.compute - (0 if searched is None else searched.macs)
        epochs = self._epochs(name, left, self._an_epoch(name, folder))
        warmup = self._training(name, rate, seed, folder, 1).train.warmup_epochs
        if share < 1:
            epochs = max(1, round((epochs + warmup) * share - warmup))
        return self._training(name, rate, seed, folder, epochs)

    def check(self) -> None:
        """Raises: ValueError for what could not be run to its end, before anything is."""
        contrast = self.contrast
        if macs(self.target) > contrast.budget:
            raise ValueError(
                f"the target {contrast.target} has {macs(self.target):,} MACs, more than the "
                f"budget of {contrast.budget:,} for what is searched down, which would not be "
                "fair; choose a smaller target, or raise budget"
            )
        for kind in contrast.needs:
            self.search_macs(kind)
        for name in contrast.contestants:
            one = CONTESTANTS[name]
            if one.keys is None:
                continue
            searched = 0 if one.search is None else self.search_macs(one.search)
            # What is found has at most the budget's MACs; how it trains, the target shows.
            costs = self._an_epoch(name, None)
            if one.finds:
                costs *= contrast.budget / macs(self.target)
            self._epochs(name, self.compute - searched, costs)

    def _epochs(self, name: str, left: float, costs: float) -> int:
        """Epochs after the warm-up."""
        warmup = self._training(name, 0.1, 0, None, 1).train.warmup_epochs
        epochs = round(left / costs - warmup)
        if epochs < 1:
            raise ValueError(
                f"{name}: {format_macs(round(left))} MACs x images are left for its training, of "
                f"which an epoch takes {format_macs(round(costs))} and the warm-up {warmup:g} "
                "epochs; raise compute, or lower search_share"
            )
        return epochs

    def _an_epoch(self, name: str, folder: Path | None) -> float:
        """MACs x images; without a search's folder as if on the target, in NetAug with r = 3."""
        key = name, folder
        if key not in self._epoch_macs:
            config = self._training(name, 0.1, 0, folder, self.contrast.epochs)
            run = self.root / "nowhere"
            part = training_part(config, self.at(config), run)
            self._epoch_macs[key] = part.epoch_macs(REHEARSED)
        return self._epoch_macs[key]

    def _training(
        self, name: str, rate: float, seed: int, folder: Path | None, epochs: int
    ) -> TrainConfig:
        contrast, given = self.contrast, CONTESTANTS[name].keys
        assert given is not None
        if folder is None:
            keys = {k: v for k, v in given.items() if k != "init" and v != FOUND}
            if keys["method"] == "netaug":
                keys |= AROUND
        else:
            keys = placed(given, str(folder))
        decided = {
            "seed": seed,
            "threads": contrast.threads,
            "train": {"epochs": epochs, "lr": rate},
        }
        own: Mapping[str, Any] = contrast.contestants.get(name, {})
        below = merged({"target": contrast.target, **contrast.base}, keys)
        return load_keys(TrainConfig, merged(merged(below, own), decided), f"contestants.{name}")

    def _search(
        self, kind: Kind, rate: float, seed: int, lengths: Mapping[str, Any]
    ) -> SearchConfig:
        contrast = self.contrast
        shared = {key: contrast.base[key] for key in OF_A_SEARCH if key in contrast.base}
        recipe = contrast.base.get("train") or {}
        shared["train"] = {k: v for k, v in recipe.items() if k not in NOT_OF_SEARCHES}
        if kind == "up":
            own = {"target": contrast.target, "budget": self._largest_macs, **contrast.up}
        else:
            down = {"direction": "down", "budget": contrast.budget}
            own = merged(contrast.down, {**down, "space": {"table": contrast.space}})
        decided = {"seed": seed, "threads": contrast.threads, "train": {"lr": rate}}
        keys = merged(merged(merged(shared, own), lengths), decided)
        return load_keys(SearchConfig, keys, "up" if kind == "up" else "down")

    @cached_property
    def _largest_macs(self) -> int:
        """What NetAug with r = 3 has: searched and unsearched helpers are then equally large."""
        factors = evenly_spaced(3.0, 3)
        return macs(Augmentation.by_factors(self.target, Factors(factors, factors)).largest)

    def _search_lengths(self, kind: Kind) -> dict[str, Any]:
        """The keys that say how long a supernet is trained: in the given proportions, so long that
        all of the search takes its share."""
        config = self._search(kind, 0.1, 0, {})
        setting = self.at(config)
        space = config.make_space(setting.target)
        share = 1.0 if kind == "whole" else self.contrast.search_share
        judging = self._judging(config, setting)
        left = share * self.compute - judging
        parts = supernet_parts(config, setting, space)
        costs = [part.epoch_macs(REHEARSED) for part in parts]
        fixed = sum(c * part.recipe.warmup_epochs for c, part in zip(costs, parts, strict=True))
        grows = sum(c * part.recipe.epochs for c, part in zip(costs, parts, strict=True))
        factor = max(0.0, (left - fixed) / grows)
        exact = [factor * part.recipe.epochs for part in parts]
        epochs = whole_epochs(exact, costs)
        needed = fixed + sum(costs)
        if left < needed - max(costs) / 2:
            raise ValueError(
                f"{'up' if kind == 'up' else 'down'}: {format_macs(round(max(0, left)))} MACs x "
                f"images are there to train its supernet, of which one epoch (of each stage) and "
                f"the warm-up take {format_macs(round(needed))}; raise compute or "
                "search_share, or take fewer trials or stages"
            )
        trained = fixed + sum(c * n for c, n in zip(costs, epochs, strict=True))
        self._planned[kind] = round(trained + judging)
        if not config.supernet.shrinks:
            return {"train": {"epochs": epochs[0]}}
        stages = [
            stage.model_copy(update={"epochs": n}).model_dump(mode="json")
            for stage, n in zip(stages_of(config, space, config.supernet), epochs, strict=True)
        ]
        return {"supernet": {"stages": stages}}

    def _judging(self, config: SearchConfig, setting: Setting) -> float:
        """MACs x images to judge all candidates: less where a race drops some."""
        region = config.make_space(setting.target).within(config.limits)
        space, rng = config.make_space(setting.target), random.Random(0)
        size = setting.view.resolution
        drawn = [macs_at(space.architecture(region.sample_path(rng)), size) for _ in range(DRAWN)]
        images = len(setting.data.validation) + config.train.bn_images
        return config.trials * images * sum(drawn) / DRAWN


def whole_epochs(exact: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Whole epochs for stages whose lengths should be `exact`: each rounded up or down, at least
    one, such that the sum of the `costs` comes nearest to that of the exact lengths; among equally
    near ones such that every stage does."""

    def apart(epochs: Iterable[int]) -> tuple[float, float]:
        differences = [n - x for n, x in zip(epochs, exact, strict=True)]
        total = sum(d * c for d, c in zip(differences, costs, strict=True))
        return abs(total), sum(d * d for d in differences)

    choices = [sorted({max(1, math.floor(x)), max(1, math.ceil(x))}) for x in exact]
    return list(min(itertools.product(*choices), key=apart))
