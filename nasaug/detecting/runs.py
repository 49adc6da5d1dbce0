"""The runs of a detection study as cells: pre-trainings, and the detectors that begin with them.

Pre-training is at equal epochs, as in the paper; what it costs is recorded and shown. A detector
with seed s begins with the pre-training with seed s, so that the spread over seeds is that of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from nasaug.comparing.cells import Arm, Cell, load_keys, merged
from nasaug.comparing.identity import identity
from nasaug.config import RunConfig
from nasaug.detect_config import DetectConfig
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.scenes import scenes_folder
from nasaug.train_config import TrainConfig

Trained = TypeVar("Trained", TrainConfig, DetectConfig)


class Runs:
    """Makes the cells, each once. `root` is the folder in which they lie.

    Raises: ValueError for keys that are no legal configuration.
    """

    def __init__(self, study: DetectStudy, root: Path) -> None:
        self.study, self.root = study, root
        self.scenes = None if study.scenes is None else scenes_folder(study.scenes, root)
        self._made: dict[object, Cell] = {}
        self._pretraining = {
            name: self._keys("pretrain", study.base.pretrain, method.pretrain)
            for name, method in study.methods.items()
            if method.pretrain is not None
        }
        self._detecting = {
            name: self._keys("detect", study.base.detect, method.detect)
            for name, method in study.methods.items()
        }
        for name in study.methods:
            start = None
            if self.pretrains(name):
                start = self.pretraining(name, study.tune_pretrain.grid[0], 0)
                _check_pretraining(name, start.config)
            for size in study.sizes:
                self.detecting(name, size, study.tune.grid[0], 0, start)

    @property
    def pictures(self) -> str:
        """The name of the data that detectors are trained on."""
        if self.scenes is None or self.study.scenes is None:
            return str(self.study.data)
        return f"{self.study.scenes.format}:{self.scenes}"

    def pretrains(self, method: str) -> bool:
        """Whether a method's detectors begin with pre-trained weights."""
        return self.study.methods[method].pretrain is not None

    def pretraining(self, method: str, rate: float, seed: int, tunes: bool = False) -> Cell:
        """`tunes`: one that judges the rate, which may be shorter."""
        key = "pretrain", method, rate, seed, tunes
        if key not in self._made:
            share = self.study.tune_pretrain.share if tunes else 1.0
            keys = merged(self._pretraining[method], _run(rate, seed))
            config = load_keys(TrainConfig, keys, f"methods.{method}.pretrain")
            self._made[key] = self._cell(f"pretrain-{method}", config, share, tunes)
        return self._made[key]

    def detecting(
        self,
        method: str,
        size: int,
        rate: float,
        seed: int,
        start: Cell | None,
        tunes: bool = False,
    ) -> Cell:
        """A detector that begins with `start`, or with fresh weights."""
        key = "detect", method, size, rate, seed, start, tunes
        if key not in self._made:
            share = self.study.tune.share if tunes else 1.0
            init = None if start is None else str(self.root / start.identity)
            own = {"detector": {"size": size}, "data": {"name": self.pictures}, "init": init}
            keys = merged(merged(self._detecting[method], _run(rate, seed)), own)
            config = load_keys(DetectConfig, keys, f"methods.{method}.detect")
            self._made[key] = self._cell(f"{method}-{size}", config, share, tunes, start)
        return self._made[key]

    def _keys(self, part: str, base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """What all runs of a method share; `part` is pretrain or detect."""
        study = self.study
        shared: dict[str, Any] = {"target": study.target, "threads": study.threads}
        shared["method"] = "baseline"
        if study.in_channels is not None:
            shared["in_channels"] = study.in_channels
        if part == "pretrain" and study.data_dir is not None:
            shared["data"] = {"dir": study.data_dir}
        return merged(merged(shared, base), own)

    def _cell(
        self,
        name: str,
        config: Trained,
        share: float,
        tunes: bool,
        start: Cell | None = None,
    ) -> Cell:
        config = _shortened(config, share)
        recipe, target = config.train, Path(config.target).stem
        return Cell(
            f"{'tune-' if tunes else ''}{name}-e{recipe.epochs}-lr{recipe.lr!r}-s{config.seed}",
            identity(config, self.root),
            "detect" if isinstance(config, DetectConfig) else "train",
            config,
            recipe.epochs + recipe.warmup_epochs,
            Arm(target, name, recipe.epochs),
            recipe.lr,
            config.seed,
            tunes,
            () if start is None else (start.identity,),
        )


def _run(rate: float, seed: int) -> dict[str, Any]:
    return {"seed": seed, "train": {"lr": rate}}


def _shortened(config: Trained, share: float) -> Trained:
    """With a share of its length, warm-up included, and at least one epoch after that."""
    recipe = config.train
    if share == 1:
        return config
    epochs = max(1, round((recipe.epochs + recipe.warmup_epochs) * share - recipe.warmup_epochs))
    return config.model_copy(update={"train": recipe.model_copy(update={"epochs": epochs})})


def _check_pretraining(method: str, config: RunConfig) -> None:
    """Raises: ValueError for a largest network that is not the same every time, and for what is
    not the target in the end."""
    assert isinstance(config, TrainConfig)
    if config.prune is not None:
        raise ValueError(
            f"methods.{method}.pretrain: pruning makes a smaller network of {config.target}, which "
            "no detector on the target can begin with; leave prune out"
        )
    if config.augmented is not None and config.largest == "auto":
        raise ValueError(
            f"methods.{method}.pretrain: largest: auto is whatever was searched last, so that the "
            "study could not be repeated; say published, or the path of a best.json"
        )
