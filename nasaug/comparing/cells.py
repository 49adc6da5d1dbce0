"""What a study is made of: arms (a method on a target, so many epochs) and cells (their runs).

A cell's configuration is the study's `base`, the method's own keys, and what the study decides:
target, seed, learning rate, epochs. `before:NAME` as a value stands for the folder of a run that is
made first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nasaug.config import RunConfig, SearchConfig, load_config
from nasaug.study_config import Study
from nasaug.train_config import TrainConfig

MARK = "before:"
TUNING_SEED = 1_000_000
# What a search has in common with the trainings of its study.
OF_A_SEARCH = ("resolution", "in_channels", "data", "device")


@dataclass(frozen=True)
class Arm:
    """A method on a target, trained for `epochs` after the warm-up."""

    target: str
    method: str
    epochs: int


@dataclass(frozen=True)
class Cell:
    """One run. `arm` is None for what others build on; `needs` are the cells that it builds on.
    `epochs` include the warm-up; 0 is unknown."""

    name: str
    command: Literal["train", "search"]
    keys: Mapping[str, Any] = field(compare=False, repr=False)
    epochs: float = 0
    arm: Arm | None = None
    lr: float | None = None
    seed: int | None = None
    tuning: bool = False
    needs: tuple[str, ...] = ()

    def config(self) -> RunConfig:
        """Raises: ValueError for what is no legal configuration."""
        kind = TrainConfig if self.command == "train" else SearchConfig
        try:
            return load_config(kind, None, (), self.keys)
        except ValueError as error:
            where = f"methods.{self.arm.method}" if self.arm is not None else self.name
            raise ValueError(f"{where}: {error}") from None


class Cells:
    """The cells of a study, by what tells them apart. `folder` says where a cell lies.

    Raises: ValueError for keys of a method that are no legal configuration.
    """

    def __init__(self, study: Study, folder: Callable[[str], Path]) -> None:
        self.study, self._folder = study, folder
        configs = {name: self._config(name) for name in study.methods}
        recipe = configs[study.baseline].train
        self.epochs, self.warmup = recipe.epochs, recipe.warmup_epochs

    def _config(self, method: str) -> TrainConfig:
        keys = _merged(self.study.base, self.study.keys(method))
        try:
            return load_config(TrainConfig, None, (), keys)
        except ValueError as error:
            raise ValueError(f"methods.{method}: {error}") from None

    @property
    def tuning_seeds(self) -> tuple[int, ...]:
        """None of them is a final seed of any method."""
        study = self.study
        taken = {seed for name in study.methods for seed in study.seeds_of(name)}
        free = (seed for seed in range(TUNING_SEED, 2 * TUNING_SEED) if seed not in taken)
        return tuple(seed for seed, _ in zip(free, range(study.tune.seeds), strict=False))

    def tuning_epochs(self, arm: Arm) -> int:
        """In the same proportion for longer arms, warm-up included."""
        if self.study.tune.epochs is None:
            return arm.epochs
        share = (self.study.tune.epochs + self.warmup) / (self.epochs + self.warmup)
        return max(1, round((arm.epochs + self.warmup) * share - self.warmup))

    def tuning(self, arm: Arm, lr: float) -> list[Cell]:
        """The runs that judge a rate."""
        epochs = self.tuning_epochs(arm)
        return [self._train(arm, epochs, lr, seed, True) for seed in self.tuning_seeds]

    def final(self, arm: Arm, lr: float, seed: int) -> Cell:
        return self._train(arm, arm.epochs, lr, seed, False)

    def _train(self, arm: Arm, epochs: int, lr: float, seed: int, tuning: bool) -> Cell:
        study = self.study
        decided = {
            "target": arm.target,
            "seed": seed,
            "threads": study.threads,
            "train": {"epochs": epochs, "lr": lr},
        }
        own = self._placed(study.keys(arm.method), arm.target)
        keys = _merged(_merged(study.base, own), decided)
        stem = f"{Path(arm.target).stem}-{arm.method}-e{epochs}-lr{lr!r}-s{seed}"
        return Cell(
            f"tune-{stem}" if tuning else stem,
            "train",
            keys,
            epochs + self.warmup,
            arm,
            lr,
            seed,
            tuning,
            self.needed(arm.method, arm.target),
        )

    def _placed(self, value: Any, target: str) -> Any:
        """`value` with the folder of the run in place of every `before:NAME`."""
        if isinstance(value, Mapping):
            return {key: self._placed(inner, target) for key, inner in value.items()}
        if isinstance(value, str) and value.startswith(MARK):
            return str(self._folder(self.before_name(value.removeprefix(MARK), target)))
        return value

    def needed(self, method: str, target: str) -> tuple[str, ...]:
        """The names of the cells that a method builds on, on that target."""
        study = self.study
        names = dict.fromkeys((*_marks(study.keys(method)), *study.section(method).counts))
        return tuple(self.before_name(name, target) for name in names)

    def before_name(self, name: str, target: str) -> str:
        """What the run is called, which may be one for all targets. Raises: ValueError."""
        if name not in self.study.before:
            known = ", ".join(self.study.before) or "nothing"
            raise ValueError(f"{MARK}{name} is not there: before holds {known}")
        own = "target" in self.study.before[name].keys
        return f"before-{name}" if own else f"before-{Path(target).stem}-{name}"

    def before(self, name: str, target: str) -> Cell:
        """The run that methods build on, for a target."""
        study, section = self.study, self.study.before[name]
        decided = {"target": target, "threads": study.threads}
        own = _merged(section.keys, section.per_target.get(target, {}))
        if section.search is not None:
            shared = {key: study.base[key] for key in OF_A_SEARCH if key in study.base}
            return Cell(
                self.before_name(name, target), "search", _merged(_merged(shared, decided), own)
            )
        keys = _merged(_merged(study.base, decided), {"method": "baseline", **own})
        return Cell(self.before_name(name, target), "train", keys, self._length(keys))

    def _length(self, keys: Mapping[str, Any]) -> float:
        """Epochs with the warm-up; 0 for what will be refused as no configuration."""
        try:
            recipe = load_config(TrainConfig, None, (), {"train": keys.get("train")}).train
        except ValueError:
            return 0
        return recipe.epochs + recipe.warmup_epochs


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys; `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _marks(value: Any) -> Iterator[str]:
    """The names behind `before:` anywhere in a method's keys."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _marks(inner)
    elif isinstance(value, str) and value.startswith(MARK):
        yield value.removeprefix(MARK)
