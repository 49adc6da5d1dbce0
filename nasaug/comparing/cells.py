"""What a study is made of: arms (a method on a target, so many epochs) and cells (their runs).

A cell's configuration is the study's `base`, the method's own keys, and what the study decides:
target, seed, learning rate, epochs. `before:NAME` as a value stands for the folder of a run that is
made first. A cell has a name, by which its study speaks of it, and an identity, under which every
study finds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from nasaug.comparing.identity import identity
from nasaug.config import RunConfig, SearchConfig, load_config
from nasaug.study_config import Study
from nasaug.train_config import TrainConfig

MARK = "before:"
TUNING_SEED = 1_000_000
# What a search has in common with the trainings of its study.
OF_A_SEARCH = ("resolution", "in_channels", "data", "device")
Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Arm:
    """A method on a target, trained for `epochs` after the warm-up."""

    target: str
    method: str
    epochs: int


@dataclass(frozen=True)
class Cell:
    """One run. `arm` is None for what others build on; `needs` are the identities of the cells that
    it builds on. `epochs` include the warm-up; 0 is unknown."""

    name: str
    identity: str
    command: Literal["train", "search", "detect"]
    config: RunConfig = field(compare=False, repr=False)
    epochs: float = 0
    arm: Arm | None = None
    lr: float | None = None
    seed: int | None = None
    tuning: bool = False
    needs: tuple[str, ...] = ()


class Cells:
    """The cells of a study, by what tells them apart; each is made once. `root` is the folder in
    which cells lie. `lengths` are the epochs of the study's arms, shortest first.

    Raises: ValueError for keys of a method that are no legal configuration.
    """

    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root
        self._made: dict[object, Cell] = {}
        configs = {
            name: load_keys(TrainConfig, merged(study.base, study.keys(name)), f"methods.{name}")
            for name in study.methods
        }
        recipe = configs[study.baseline].train
        self.warmup = recipe.warmup_epochs
        self.lengths = study.lengths or (recipe.epochs,)
        self.tuning_seeds = self._tuning_seeds()

    def lengths_of(self, method: str) -> tuple[int, ...]:
        return self.study.lengths_of(method) or self.lengths

    def _tuning_seeds(self) -> tuple[int, ...]:
        """None of them is a final seed of any method."""
        study = self.study
        taken = {seed for name in study.methods for seed in study.seeds_of(name)}
        return tuning_seeds(taken, study.tune.seeds)

    def tuning_epochs(self, arm: Arm) -> int:
        """The share of the arm's own epochs, warm-up included."""
        share = self.study.tune.share
        return max(1, round((arm.epochs + self.warmup) * share - self.warmup))

    def tuning(self, arm: Arm, lr: float) -> list[Cell]:
        """The runs that judge a rate."""
        return [self._train(arm, lr, seed, True) for seed in self.tuning_seeds]

    def final(self, arm: Arm, lr: float, seed: int) -> Cell:
        return self._train(arm, lr, seed, False)

    def _train(self, *about: Any) -> Cell:
        if about not in self._made:
            self._made[about] = self._trained(*about)
        return self._made[about]

    def _trained(self, arm: Arm, lr: float, seed: int, tuning: bool) -> Cell:
        epochs = self.tuning_epochs(arm) if tuning else arm.epochs
        stem = f"{Path(arm.target).stem}-{arm.method}-e{epochs}-lr{lr!r}-s{seed}"
        study = self.study
        decided = {
            "target": arm.target,
            "seed": seed,
            "threads": study.threads,
            "train": {"epochs": epochs, "lr": lr},
        }
        own = self._placed(study.keys(arm.method), arm.target)
        keys = merged(merged(study.base, own), decided)
        config = load_keys(TrainConfig, keys, f"methods.{arm.method}")
        return Cell(
            f"tune-{stem}" if tuning else stem,
            identity(config, self.root),
            "train",
            config,
            epochs + self.warmup,
            arm,
            lr,
            seed,
            tuning,
            tuple(cell.identity for cell in self.needed(arm.method, arm.target)),
        )

    def _placed(self, value: Any, target: str) -> Any:
        """`value` with the folder of the run in place of every `before:NAME`."""
        if isinstance(value, Mapping):
            return {key: self._placed(inner, target) for key, inner in value.items()}
        if isinstance(value, str) and value.startswith(MARK):
            return str(self.root / self.before(value.removeprefix(MARK), target).identity)
        return value

    def needed(self, method: str, target: str) -> list[Cell]:
        """The cells that a method builds on, on that target, in the order of `before`."""
        study = self.study
        names = {*_marks(study.keys(method)), *study.section(method).counts}
        return [self.before(name, target) for name in study.before if name in names]

    def before(self, name: str, target: str) -> Cell:
        """The run that methods build on, for a target; it may be one for all targets.

        Raises: ValueError for a run that `before` does not hold.
        """
        if name not in self.study.before:
            known = ", ".join(self.study.before) or "nothing"
            raise ValueError(f"{MARK}{name} is not there: before holds {known}")
        own = "target" in self.study.before[name].keys
        key = f"before-{name}" if own else f"before-{Path(target).stem}-{name}"
        if key not in self._made:
            self._made[key] = self._made_first(key, name, target)
        return self._made[key]

    def _made_first(self, cell: str, name: str, target: str) -> Cell:
        study, section = self.study, self.study.before[name]
        decided: dict[str, Any] = {"threads": study.threads}
        if section.keys.get("direction") != "down":  # which finds its network itself
            decided["target"] = target
        own = merged(section.keys, section.per_target.get(target, {}))
        if section.search is not None:
            shared = {key: study.base[key] for key in OF_A_SEARCH if key in study.base}
            search = load_keys(SearchConfig, merged(merged(shared, decided), own), cell)
            return Cell(cell, identity(search, self.root), "search", search)
        usual = {**decided, "method": "baseline", "train": {"epochs": self.lengths[-1]}}
        config = load_keys(TrainConfig, merged(merged(study.base, usual), own), cell)
        epochs = config.train.epochs + config.train.warmup_epochs
        return Cell(cell, identity(config, self.root), "train", config, epochs)


def tuning_seeds(taken: Collection[int], count: int) -> tuple[int, ...]:
    """Seeds to tune by, none of those that are `taken`."""
    free = (seed for seed in range(TUNING_SEED, 2 * TUNING_SEED) if seed not in taken)
    return tuple(itertools.islice(free, count))


def load_keys(kind: type[Config], keys: Mapping[str, Any], where: str) -> Config:
    """A configuration from nested keys, which people know as `where`.

    Raises: ValueError for what is no legal configuration.
    """
    try:
        return load_config(kind, None, (), keys)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys; `above` wins."""
    keys = dict(below)
    for key, value in above.items():
        old = keys.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)
        keys[key] = value
    return keys


def _marks(value: Any) -> Iterator[str]:
    """The names behind `before:` anywhere in a method's keys."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _marks(inner)
    elif isinstance(value, str) and value.startswith(MARK):
        yield value.removeprefix(MARK)
