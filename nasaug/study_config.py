"""What `nasaug compare` is asked: methods x seeds x targets, from one YAML file.

A study opens with its question and ends with its answer. What all cells share is `base`; a method
is the keys by which it differs. Learning rates stand in neither: they are tuned, alike for every
method.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from nasaug.netaug import METHODS
from nasaug.sections import Section
from nasaug.supernet import did_you_mean

Kind = Literal["epochs", "macs", "time"]
KINDS: tuple[Kind, ...] = ("epochs", "macs", "time")
NOT_RUN = "not run yet"
# Keys that the study decides, and the key of the study that does it.
DECIDED = {
    "seed": "seeds",
    "target": "targets",
    "threads": "threads",
    "train.lr": "tune.grid",
    "tensorboard": "nasaug compare's own report",
}
SHARED = {"train.epochs": "lengths", "train.warmup_epochs": "base.train.warmup_epochs"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*")
MOST_SEEDS = 1000
MOST_EPOCHS = 10_000


def _seeds(given: Any) -> Any:
    """A count of seeds, 0 and up, or the seeds themselves."""
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_SEEDS:
        return tuple(range(given))
    whole = isinstance(given, list | tuple) and all(type(seed) is int for seed in given)
    if whole and 0 < len(set(given)) == len(given) <= MOST_SEEDS and min(given) >= 0:
        return tuple(given)
    raise ValueError(
        f"seeds must be a count from 1 to {MOST_SEEDS} or a list of different seeds, but got "
        f"{given!r}"
    )


def _rates(given: tuple[float, ...]) -> tuple[float, ...]:
    if not given or len(set(given)) < len(given) or not all(0 < rate <= 100 for rate in given):
        raise ValueError(
            "a grid is one or more different learning rates above 0 and up to 100, but got "
            f"{list(given)}"
        )
    return tuple(sorted(given))


def _lengths(given: tuple[int, ...]) -> tuple[int, ...]:
    right = all(1 <= epochs <= MOST_EPOCHS for epochs in given)
    if not given or len(set(given)) < len(given) or not right:
        raise ValueError(
            f"lengths are one or more different numbers of epochs, from 1 to {MOST_EPOCHS:,}, but "
            f"got {list(given)}"
        )
    return tuple(sorted(given))


Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds)]
Rates = Annotated[tuple[float, ...], AfterValidator(_rates)]
Lengths = Annotated[tuple[int, ...], AfterValidator(_lengths)]


class Tuning(Section):
    """How the learning rate of every method is chosen, on validation images.

    grid: the rates that every method is tried at. extend: where the best of them is at an edge, the
    next rate beyond it (a factor of 2) is tried too, up to `limit` of them a side. share: the
    length of the tuning runs, as a share of the final ones'. seeds: how many runs a rate, none of
    them a final seed. A grid of one rate without `extend` is no tuning.
    """

    grid: Rates = (0.1, 0.2, 0.4, 0.8)
    share: float = Field(1.0, gt=0, le=1)
    seeds: int = Field(1, ge=1, le=100)
    extend: bool = True
    limit: int = Field(4, ge=1, le=12)

    @property
    def off(self) -> bool:
        return len(self.grid) == 1 and not self.extend


class TuneSection(Tuning):
    """A study's tuning, for every target. longer: the longer baselines are tuned at their own
    lengths, else they train at the rate of the nearest length of the study."""

    longer: bool = True


class BeforeSection(Section):
    """A run that methods build on, such as a teacher: keys of `nasaug train` or of `nasaug search`.

    With a `target` of its own there is one of it, else one for every target of the study, with the
    keys that `per_target` has for it. A training that does not say its epochs is as long as the
    study's longest.
    """

    train: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    per_target: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> BeforeSection:
        if (self.train is None) == (self.search is None):
            raise ValueError("give the keys of one run: train or search")
        return self

    @property
    def keys(self) -> dict[str, Any]:
        """Those of all targets."""
        return self.train if self.train is not None else self.search or {}


class MethodSection(Section):
    """What a method has besides its keys of `nasaug train`; None is what the study says.

    against: the method that it is compared with. counts: the runs of `before` whose compute is
    part of its own.
    """

    seeds: Seeds | None = None
    targets: tuple[str, ...] | None = None
    lengths: Lengths | None = None
    equal: tuple[Kind, ...] | None = None
    against: str | None = None
    counts: tuple[str, ...] = ()


class Study(Section):
    """`nasaug compare`: see docs/compare.md for every key.

    lengths: the epochs of the final runs, after the warm-up; None is `base.train.epochs` alone.
    """

    question: str
    targets: tuple[str, ...]
    lengths: Lengths | None = None
    seeds: Seeds = (0, 1, 2)
    base: dict[str, Any] = Field(default_factory=dict)
    before: dict[str, BeforeSection] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]]
    baseline: str = "baseline"
    tune: TuneSection = TuneSection()
    equal: tuple[Kind, ...] = KINDS
    workers: int | None = Field(None, ge=1, le=1024)
    threads: int = Field(1, ge=1, le=1024)
    answer: str = NOT_RUN

    @model_validator(mode="after")
    def _sound(self) -> Study:
        check_names("targets", [Path(target).stem for target in self.targets])
        check_names("methods", self.methods)
        check_names("before", self.before, at_least=0)
        if self.baseline not in self.methods:
            near = did_you_mean(self.baseline, self.methods)
            raise ValueError(f"baseline {self.baseline!r} is none of the methods: {near}")
        decided = {**DECIDED, "method": "methods"}
        if self.lengths is not None:
            decided["train.epochs"] = "lengths"  # one of the two would be silently ignored
        check_decided("base", self.base, decided)
        for name, method in self.methods.items():
            check_decided(f"methods.{name}", method, DECIDED | SHARED)
            self._check_method(name)
        for name, before in self.before.items():
            check_decided(f"before.{name}", before.keys, {"threads": "threads"})
            for target in before.per_target:
                if "target" in before.keys or target not in self.targets:
                    raise ValueError(
                        f"before.{name}.per_target: {target!r} is no target that this run is made "
                        "for; name one of the study, and leave target out of the run's keys"
                    )
        return self

    def _check_method(self, name: str) -> None:
        section = self.section(name)
        if self.keys(name)["method"] not in METHODS:
            near = did_you_mean(self.keys(name)["method"], METHODS)
            raise ValueError(
                f"methods.{name}: the name is no training method, so it needs a key method: {near}"
                if "method" not in self.methods[name]
                else f"methods.{name}.method: unknown {self.keys(name)['method']!r}: {near}"
            )
        against = self.against(name)
        if against is not None and (against == name or against not in self.methods):
            near = did_you_mean(against, [other for other in self.methods if other != name])
            raise ValueError(f"methods.{name}.against: no other method is {against!r}: {near}")
        if section.lengths is not None and not set(section.lengths) <= set(self.lengths or ()):
            raise ValueError(
                f"methods.{name}.lengths must be among the study's lengths, "
                f"{list(self.lengths or ())}, but got {list(section.lengths)}; add them to lengths"
            )
        known = {"targets": (section.targets or (), self.targets)}
        known["counts"] = (section.counts, tuple(self.before))
        for key, (given, allowed) in known.items():
            for one in given:
                if one not in allowed:
                    near = did_you_mean(one, allowed)
                    raise ValueError(f"methods.{name}.{key}: unknown {one!r}: {near}")
        if against is not None:
            self._check_opponent(name, against)

    def _check_opponent(self, name: str, against: str) -> None:
        """Raises: ValueError where there would be nothing to compare a run with."""
        both = {
            "targets": (self.of(name), self.of(against)),
            "lengths": (self.lengths_of(name) or (), self.lengths_of(against) or ()),
        }
        for key, (mine, theirs) in both.items():
            if not set(mine) <= set(theirs):
                raise ValueError(
                    f"methods.{name} is compared with {against}, which must then be trained for "
                    f"its {key} too; add them to methods.{against}.{key}"
                )

    def section(self, name: str) -> MethodSection:
        """What the method has besides its keys. Raises: ValueError."""
        own = {key: self.methods[name][key] for key in _OWN if key in self.methods[name]}
        try:
            return MethodSection.model_validate(own)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, ("methods", name, *first["loc"])))
            if first["type"] == "value_error":
                raise ValueError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None
            said = first["msg"].removeprefix("Input should be ")
            raise ValueError(f"{key} must be {said}, but got {first['input']!r}") from None

    def keys(self, name: str) -> dict[str, Any]:
        """The method's keys of `nasaug train`. `method` is the name itself, unless it is said."""
        given = {key: value for key, value in self.methods[name].items() if key not in _OWN}
        return {"method": name, **given}

    def against(self, name: str) -> str | None:
        """The method that it is compared with; None for the baseline."""
        section = self.section(name)
        return section.against or (self.baseline if name != self.baseline else None)

    def of(self, name: str) -> tuple[str, ...]:
        """The targets that the method is tried on."""
        return self.section(name).targets or self.targets

    def lengths_of(self, name: str) -> tuple[int, ...] | None:
        """Its epochs after the warm-up; None is `base.train.epochs`."""
        return self.section(name).lengths or self.lengths

    def equals(self, name: str) -> tuple[Kind, ...]:
        """At equal what it is compared."""
        given = self.section(name).equal
        chosen = self.equal if given is None else given
        return tuple(kind for kind in KINDS if kind in chosen)

    def seeds_of(self, name: str) -> tuple[int, ...]:
        return self.section(name).seeds or self.seeds


_OWN = tuple(MethodSection.model_fields)


def check_names(key: str, names: Iterable[str], at_least: int = 1) -> None:
    listed = list(names)
    if len(listed) < at_least:
        raise ValueError(f"{key} must hold at least one name, but is empty")
    for name in listed:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{key}: names have letters, digits and _ + . - only, since they name folders, but "
                f"got {name!r}"
            )
    double = [name for name in listed if listed.count(name) > 1]
    if double:
        raise ValueError(f"{key} must differ in their names, but {double[0]!r} is there twice")


def check_decided(where: str, keys: Mapping[str, Any], decided: Mapping[str, str]) -> None:
    for key, by in decided.items():
        inner: Any = keys
        for part in key.split("."):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        if inner is not None:
            raise ValueError(f"{where}.{key} is decided by {by}; leave it out of {where}")
