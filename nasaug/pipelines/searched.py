"""A search as its folder and its study tell it, finished or not, for a report and a dashboard.

Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nasaug.config import SearchConfig, load_config
from nasaug.pipelines.stored import load_study, open_storage
from nasaug.supernet import Architecture, ChoicePath, SearchSpace
from nasaug.training import load_weights
from nasaug.workspace import folders_near, read_best
from nasaug.yaml_files import read_yaml

COSTS = ("macs", "params", "memory", "flash", "latency")


@dataclass(frozen=True)
class Judged:
    """A trial that came to an end, by the names of its study.

    `values` holds every objective, or of a trial that was dropped early (`pruned`) the interim
    judgement where there is one; `costs` those of COSTS that were recorded (bytes, nanoseconds).
    """

    number: int
    trial_id: int
    path: ChoicePath
    values: Mapping[str, float]
    costs: Mapping[str, int]
    pruned: bool


@dataclass(frozen=True)
class Searched:
    """A search: its folder, its configuration and target (down: the table's smallest member), its
    study's trials as they were read."""

    folder: Path
    config: SearchConfig
    best: Mapping[str, Any] | None
    target: Architecture
    space: SearchSpace
    study: optuna.Study
    trials: tuple[FrozenTrial, ...]
    objectives: tuple[str, ...]
    limits: Mapping[str, int]

    @cached_property
    def judged(self) -> tuple[Judged, ...]:
        """The trials that were judged, in their order. Raises: ValueError for foreign ones."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return tuple(self._judged(trial) for trial in self.trials if trial.state in ended)

    @cached_property
    def ranked(self) -> tuple[Judged, ...]:
        """The distinct architectures that were judged in full: by the first objective, then by
        fewer MACs."""
        first: dict[ChoicePath, Judged] = {}
        for trial in self.judged:
            if not trial.pruned:
                first.setdefault(trial.path, trial)
        name, sign = self.objectives[0], self.sign(self.objectives[0])
        return tuple(
            sorted(first.values(), key=lambda t: (-sign * t.values[name], t.costs["macs"]))
        )

    @cached_property
    def front(self) -> tuple[Judged, ...]:
        """Those of `ranked` that no other betters in every objective (all, where equal)."""

        def goodness(trial: Judged) -> list[float]:
            return [self.sign(name) * trial.values[name] for name in self.objectives]

        scores = [goodness(trial) for trial in self.ranked]
        kept: list[int] = []
        # What betters another stands before it in this order.
        for index in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
            if not any(_betters(scores[other], scores[index]) for other in kept):
                kept.append(index)
        return tuple(self.ranked[index] for index in sorted(kept))

    @cached_property
    def winner(self) -> Judged | None:
        """The trial of the architecture in best.json; without one the best so far, if any."""
        if self.best is None:
            return self.ranked[0] if self.ranked else None
        try:
            path = self.space.path(Architecture.from_dict(self.best["architecture"]))
        except ValueError as error:
            raise ValueError(self._foreign("the winner in best.json", error)) from None
        return next((trial for trial in self.ranked if trial.path == path), None)

    @property
    def finished(self) -> bool:
        return self.best is not None

    @property
    def over(self) -> Architecture | None:
        """What a winner is shown over: the target; nothing where it was found by itself."""
        return None if self.space.is_table else self.target

    @property
    def title(self) -> str:
        name = self.space.name
        return f"Search down in {name}" if self.space.is_table else f"Search around {name}"

    @property
    def progress(self) -> str:
        """How far the search was when it was read."""
        done, dropped = len(self.judged), sum(trial.pruned for trial in self.judged)
        state = "finished" if self.finished else "not finished when this was written"
        early = f", {dropped} of them dropped early" if dropped else ""
        return f"{state}: {done} of {self.config.trials} trials judged{early}"

    def sign(self, objective: str) -> int:
        """1 for an objective that is maximised, -1 for one that is minimised."""
        direction = self.study.directions[self.objectives.index(objective)]
        return 1 if direction == optuna.study.StudyDirection.MAXIMIZE else -1

    def architecture(self, trial: Judged) -> Architecture:
        """What a trial judged, without absent rows."""
        name = f"{self.space.name} trial {trial.number}"
        return self.space.architecture(trial.path, name).canonical()

    def count(self, state: TrialState) -> int:
        return sum(trial.state == state for trial in self.trials)

    def _judged(self, trial: FrozenTrial) -> Judged:
        try:
            strange = trial.params.keys() ^ self.space.decisions.keys()
            if strange:
                raise ValueError(f"one of the two has no decision {min(strange)}")
            path = self.space.path_of(trial.params)
            costs = {name: int(v) for name in COSTS if (v := trial.user_attrs.get(name))}
            costs |= {"macs": self.space.macs(path), "params": self.space.params(path)}
        except (KeyError, ValueError) as error:
            raise ValueError(self._foreign(f"trial {trial.number} of the study", error)) from None
        pruned = trial.state == TrialState.PRUNED
        values = [float(value) for value in trial.values or ()]
        if pruned and not values and trial.intermediate_values:
            values = [trial.intermediate_values[max(trial.intermediate_values)]]
        named = dict(zip(self.objectives, values, strict=not pruned))
        return Judged(trial.number, trial._trial_id, path, named, costs, pruned)

    def _foreign(self, what: str, error: Exception) -> str:
        config = self.folder / "config.yaml"
        return f"{what} is not of the space that {config} describes ({error})"


def _betters(one: list[float], other: list[float]) -> bool:
    """Whether `one` is at least as good in everything, and better in something."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def find_run(run: str | None) -> Path:
    """The folder of a search: the one named (or its best.json), else the newest.

    Raises: ValueError if there is none.
    """
    if run is None:
        for folder in folders_near(None):
            if _is_search(folder):
                return folder
        raise ValueError("no search was found below runs/; name its folder")
    path = Path(run)
    folder = path.parent if path.name == "best.json" else path
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{run} is no search's run folder: it has no config.yaml")
    if not _is_search(folder):
        raise ValueError(f"{run} is no search's run folder: its config.yaml is not of a search")
    return folder


def _is_search(folder: Path) -> bool:
    config = folder / "config.yaml"
    try:
        return config.is_file() and "sampler" in read_yaml(config)
    except ValueError:
        return False


def read_search(
    folder: Path, storage: str | None = None, name: str | None = None
) -> tuple[Searched, BaseStorage]:
    """The search in `folder`, and the storage of its study (`storage` is another URL for it).

    Raises: ValueError for a folder without a study, a damaged file, a study that cannot be read.
    """
    config = load_config(SearchConfig, str(folder / "config.yaml"), (), {})
    best = read_best(folder / "best.json") if (folder / "best.json").exists() else None
    classes = _classes(folder, best)
    target = config.make_target(classes)
    place = open_storage(storage or config.storage or folder / "study.journal")
    study = load_study(place, name or config.study, config, target.name)
    objectives, limits = _facts(study)
    searched = Searched(
        folder=folder,
        config=config,
        best=best,
        target=target,
        space=config.space.build(target),
        study=study,
        trials=tuple(study.get_trials(deepcopy=False)),
        objectives=objectives,
        limits=limits,
    )
    return searched, place


def _classes(folder: Path, best: Mapping[str, Any] | None) -> int:
    """How many classes the search's data have, as its own files tell."""
    if best is not None:
        return Architecture.from_dict(best["architecture"]).num_classes
    weights = folder / "supernet" / "weights.safetensors"
    if not weights.is_file():
        raise ValueError(
            f"{folder} has no study yet: its supernet is not trained; wait for the search to begin"
        )
    return load_weights(weights).arch.num_classes


def _facts(study: optuna.Study) -> tuple[tuple[str, ...], dict[str, int]]:
    """The objectives and the limits that a study was made with."""
    objectives, limits = study.user_attrs.get("objectives"), study.user_attrs.get("limits")
    if not isinstance(objectives, list) or not isinstance(limits, dict):
        raise ValueError(
            f"the study {study.study_name!r} was not made by this version of nasaug search: it "
            "does not say its objectives and limits"
        )
    assert len(objectives) == len(study.directions), f"{objectives}, {study.directions}"
    return tuple(objectives), limits
