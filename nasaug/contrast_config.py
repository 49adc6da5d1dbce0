"""What `nasaug contrast` is asked, from one YAML file: a hand-made target, a space to search down,
and what every way to a small network may spend.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nasaug.contrasting.contestants import CONTESTANTS, Kind
from nasaug.search import parse_budget
from nasaug.sections import Section
from nasaug.study_config import NOT_RUN, Seeds, Tuning, check_decided
from nasaug.supernet import did_you_mean
from nasaug.values import optional

# Keys that the contrast decides, and by which of its own.
DECIDED = {
    "seed": "seeds",
    "threads": "threads",
    "train.lr": "tune.grid",
    "train.epochs": "compute",
    "tensorboard": "nasaug contrast's own report",
}
OF_TRAININGS = {
    **DECIDED,
    "target": "target",
    "method": "the contestants",
    "largest": "up",
    "distill": "nasaug compare (the compute of an outer teacher is not counted here)",
    "init": "the contestants",
    "netaug.init": "the contestants",
}
# Everybody's are those of `base`: networks would not compare otherwise.
OF_BASE = {
    key: "base" for key in ("data", "resolution", "in_channels", "device", "train.resolution")
}
OF_SEARCHES = {
    "seed": "seeds",
    "threads": "threads",
    "direction": "the kind of search",
    "target": "target",
    "train.lr": "tune.grid",
    "storage": "the cell's own folder",
    "study": "the cell's own folder",
    "workers": "workers",
    **OF_BASE,
}


def _known(given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, keys in given.items():
        if name not in CONTESTANTS:
            raise ValueError(f"unknown contestant {name!r}: {did_you_mean(name, CONTESTANTS)}")
        if CONTESTANTS[name].keys is None and keys:
            raise ValueError(f"{name} is not trained any further, so it takes no keys")
        check_decided(f"contestants.{name}", keys, OF_TRAININGS | OF_BASE)
    if not given:
        raise ValueError("contestants must name one at least, or be left out for all")
    return given


def _all() -> dict[str, dict[str, Any]]:
    return {name: {} for name in CONTESTANTS}


class Contrast(Section):
    """`nasaug contrast`: see docs/contrast.md for every key.

    budget: MACs of the small network. compute: MACs x images that every contestant spends, its
    search included; None is what NetAug with r = 3 takes for `epochs`. search_share: how much of it
    goes into a search, where a training follows. up, down: keys of `nasaug search`; of their
    lengths (`train.epochs`, `supernet.stages`) only the proportions count. contestants: those to
    run, with keys of `nasaug train` of their own.
    """

    question: str = "Down from a large network, or up from the small one?"
    target: str = "mbv2_tiny"
    space: str = "mbv2_down"
    budget: Annotated[int, BeforeValidator(parse_budget)] = 25_000_000
    compute: Annotated[int | None, optional(parse_budget)] = None
    epochs: int = Field(20, ge=1, le=10_000)
    search_share: float = Field(0.5, gt=0, lt=1)
    seeds: Seeds = (0, 1, 2)
    base: dict[str, Any] = Field(default_factory=dict)
    up: dict[str, Any] = Field(default_factory=dict)
    down: dict[str, Any] = Field(default_factory=dict)
    contestants: Annotated[dict[str, dict[str, Any]], AfterValidator(_known)] = Field(
        default_factory=_all
    )
    tune: Tuning = Tuning()
    workers: int | None = Field(None, ge=1, le=1024)
    threads: int = Field(1, ge=1, le=1024)
    answer: str = NOT_RUN

    @model_validator(mode="after")
    def _decided(self) -> Contrast:
        check_decided("base", self.base, OF_TRAININGS)
        check_decided("up", self.up, OF_SEARCHES)
        check_decided("down", self.down, {**OF_SEARCHES, "budget": "budget", "space": "space"})
        for name in ("up", "down"):
            self._check_stages(name)
            objectives = getattr(self, name).get("objectives", "accuracy")
            if objectives not in ("accuracy", ["accuracy"]):
                raise ValueError(
                    f"{name}.objectives must be accuracy, since one network is to be found and "
                    f"what judging costs is counted, but got {objectives!r}"
                )
        return self

    def _check_stages(self, name: str) -> None:
        """Raises: ValueError for a stage with a rate of its own, which nothing would tune."""
        options = getattr(self, name).get("supernet") or {}
        stages = options.get("stages") or () if isinstance(options, dict) else ()
        for index, stage in enumerate(stages):
            if isinstance(stage, dict) and stage.get("lr") is not None:
                raise ValueError(
                    f"{name}.supernet.stages.{index}.lr is decided by tune.grid, alike for all "
                    "stages; leave it out"
                )

    @property
    def needs(self) -> tuple[Kind, ...]:
        """The kinds of searches that the contestants build on, each once."""
        kinds = dict.fromkeys(CONTESTANTS[name].search for name in self.contestants)
        return tuple(kind for kind in kinds if kind is not None)
