"""The configuration of `nasaug train`: a named method, and the parts that it is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from nasaug.config import RunConfig
from nasaug.netaug import (
    METHODS,
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    PruneOptions,
    QuantiseOptions,
    RelationalOptions,
    UnshareOptions,
    check_parts,
    evenly_spaced,
)
from nasaug.sections import Section
from nasaug.supernet import Factors, Noise, did_you_mean, published_factors


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: {did_you_mean(name, METHODS)}")
    return name


class NetAugSection(NetAugOptions):
    """The NetAug step's options, what may be larger than the target, and where weights start.

    width, expand: factors; None means the target's published ones. r and s are shorthand for both:
    s steps from 1 to r. kernel_growth and extra_depth are for a largest network made from factors;
    a searched one has its own kernels and depth.
    """

    width: tuple[float, ...] | None = Field(None, min_length=1)
    expand: tuple[float, ...] | None = Field(None, min_length=1)
    r: float | None = Field(None, ge=1, le=16)
    s: int | None = Field(None, ge=1, le=64)
    kernel_growth: tuple[int, ...] = (0,)
    extra_depth: tuple[int, ...] = (0,)
    divisor: int = Field(8, ge=1, le=64)
    init: Literal["fresh", "supernet"] = "fresh"

    @model_validator(mode="after")
    def _one_way(self) -> NetAugSection:
        if (self.r is None) != (self.s is None):
            raise ValueError("r and s go together: s steps from 1 to r; give both or neither")
        if self.r is not None and (self.width is not None or self.expand is not None):
            raise ValueError("r and s stand for width and expand; give the one or the other")
        return self

    @property
    def spelt_out(self) -> bool:
        """Whether the factors were given, rather than left to the paper or the search."""
        return not (self.width is None and self.expand is None and self.r is None)

    def factors(self, target: str) -> Factors:
        published = published_factors(target)
        if self.r is not None and self.s is not None:
            factors = evenly_spaced(self.r, self.s)
            return Factors(factors, factors)
        return Factors(self.width or published.width, self.expand or published.expand)


class DistillSection(DistillOptions):
    """The outer teacher: a run, torchvision:NAME@WEIGHTS or timm:NAME@WEIGHTS. cache: whether its
    answers are kept on disk, in `cache_dir` (None: the cache in the home folder); auto is where
    every epoch shows each image alike, or mirrored where the images are in memory."""

    teacher: str | None = None
    cache: Literal["auto", "always", "never"] = "auto"
    cache_dir: str | None = None


class RegulariseSection(Section):
    """What is dropped in training passes; rates (see `nasaug.supernet.Noise`)."""

    dropout: float = Field(0.0, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)
    drop_block: float = Field(0.0, ge=0, lt=1)
    block_size: int = Field(7, ge=1, le=1023)

    def noise(self) -> Noise:
        """Raises: ValueError for an even block size."""
        return Noise(**self.model_dump())


class MetricsSection(Section):
    """Whose accuracies are measured after every epoch, on training and validation images."""

    curves: Literal["target", "both"] = "target"


class TrainConfig(RunConfig):
    """`nasaug train`: `method` fills in sections by its name (see `nasaug methods`); a section that
    is absent is off. `largest` is auto (the newest search, else published), published, none or a
    path of a search's best.json. `init` is a run or a weights file that the target starts from, in
    place of fresh weights. What surrounds it in a larger network is fresh then, and channels are
    not sorted unless asked; `netaug.init` starts all of a larger network at the search's weights.
    `tune`: what of those weights is trained, all of them or the head (the
    classifier) alone, on features that stay as they are."""

    method: Annotated[str, AfterValidator(_known_method)] = "netaug"
    largest: str = "auto"
    init: str | None = None
    tune: Literal["all", "head"] = "all"
    netaug: NetAugSection | None = None
    relational: RelationalOptions | None = None
    in_place: InPlaceOptions | None = None
    distill: DistillSection | None = None
    boost: BoostOptions | None = None
    unshare: UnshareOptions | None = None
    prune: PruneOptions | None = None
    quantise: QuantiseOptions | None = None
    regularise: RegulariseSection = RegulariseSection()
    metrics: MetricsSection = MetricsSection()

    @model_validator(mode="before")
    @classmethod
    def _method_fills_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        method = METHODS.get(str(data.get("method", "netaug")))
        if method is None:
            return data
        filled = dict(data)
        for name, preset in method.sections.items():
            given = data.get(name, {})
            if isinstance(given, dict):
                filled[name] = {**preset, **given}
        if data.get("init") is not None and isinstance(filled.get("netaug"), dict):
            # Sorting would put fresh channels in the place of those that were trained.
            filled["netaug"] = {"sort_channels": False, **filled["netaug"]}
        given = data.get("netaug")
        inherits = isinstance(given, dict) and list(given) == ["init"]
        if inherits and "netaug" not in method.sections:
            raise ValueError(
                "--init (netaug.init) says where the larger network's weights start, but method "
                f"{data['method']} has none; leave it out, or use a method with netaug"
            )
        return filled

    @model_validator(mode="after")
    def _go_together(self) -> TrainConfig:
        if self.method == "baseline" and self.netaug is not None:
            raise ValueError(
                "method baseline trains the target alone, but there are keys of netaug; use "
                "--method netaug, or leave them out"
            )
        if self.init is not None:
            self._check_start(self.init)
        if self.tune == "head":
            self._check_head_alone()
        check_parts(self.parts())
        netaug, prune = self.augmented, self.prune
        sorts = netaug is not None and netaug.sort_channels
        if netaug is not None and prune is not None and sorts and prune.begin < netaug.width_until:
            raise ValueError(
                "pruning must begin when channels are no longer sorted (netaug.width_until "
                f"{netaug.width_until}), but prune.begin is {prune.begin}; raise it, or set "
                "netaug.sort_channels=false"
            )
        if prune is not None and self.unshare is not None and prune.begin < self.unshare.until:
            raise ValueError(
                "pruning must begin when weights are no longer shared (unshare.until "
                f"{self.unshare.until}), but prune.begin is {prune.begin}; raise it"
            )
        if self.augmented is None:
            self._check_alone()
        if self.distill is not None and self.distill.teacher is None:
            raise ValueError(
                "distillation needs a teacher; give --teacher (a run, torchvision:NAME@WEIGHTS or "
                "timm:NAME@WEIGHTS)"
            )
        return self

    def _check_start(self, init: str) -> None:
        """Raises: ValueError for parts that do not start from a target's weights."""
        if self.boost is not None:
            raise ValueError(
                f"--init {init} gives weights to the target, but method {self.method} trains "
                "another network that becomes it; use --method baseline, or leave --init out"
            )
        if self.augmented is not None and self.augmented.init == "supernet":
            raise ValueError(
                f"--init {init} and netaug.init=supernet both say where weights start; leave one "
                "out"
            )

    def _check_alone(self) -> None:
        """Raises: ValueError for keys that mean nothing to a target that is trained alone."""
        if self.largest not in ("auto", "published", "none"):
            raise ValueError(
                f"--largest {self.largest} is a network to train in, but method {self.method} "
                "trains the target alone; leave it out, or use a method with netaug"
            )
        if self.netaug is not None and self.netaug.init == "supernet":
            raise ValueError(
                "--init supernet starts the larger network from the search's weights, but with "
                "--largest none there is none"
            )
        if self.metrics.curves == "both":
            raise ValueError(
                "metrics.curves=both is for a target and the larger network around it, but it is "
                "trained alone; use metrics.curves=target"
            )

    def _check_head_alone(self) -> None:
        """Raises: ValueError for keys that mean nothing where only the classifier is trained."""
        if self.init is None:
            raise ValueError(
                "tune=head trains the classifier on features that were trained before, but there "
                "is no --init; name a run or a weights file, or use tune=all"
            )
        if self.augmented is not None:
            raise ValueError(
                f"tune=head keeps the features as they are, but method {self.method} trains them "
                "in a larger network; use --method baseline, or tune=all"
            )
        drop = self.regularise
        changes = {
            "prune": self.prune is not None,
            "unshare": self.unshare is not None,
            "regularise.drop_path": drop.drop_path > 0,
            "regularise.drop_block": drop.drop_block > 0,
        }
        for key, is_on in changes.items():
            if is_on:
                raise ValueError(
                    f"{key} acts on the features, which tune=head keeps as they are; leave it "
                    "out, or use tune=all"
                )

    @property
    def augmented(self) -> NetAugSection | None:
        """The netaug section, unless there is no larger network to train in."""
        return None if self.largest == "none" else self.netaug

    def parts(self) -> list[str]:
        """The parts that are on, by their names in `nasaug.netaug.PARTS`."""
        netaug, distill, prune, drop = self.augmented, self.distill, self.prune, self.regularise
        data, train = self.data, self.train
        on = {
            "netaug": netaug is not None,
            "several helpers": netaug is not None and netaug.helpers > 1,
            "tied sampling": netaug is not None and netaug.sampling == "tied",
            "largest helper": netaug is not None and netaug.sampling == "largest",
            "mean": netaug is not None and netaug.mixing == "mean",
            "anneal": netaug is not None and netaug.mixing == "anneal",
            "separate norms": netaug is not None and netaug.norms == "separate",
            "surgery": netaug is not None and netaug.mixing == "surgery",
            "supernet weights": netaug is not None and netaug.init == "supernet",
            "relational": self.relational is not None,
            "in-place": self.in_place is not None,
            "distill": distill is not None,
            "soft labels": distill is not None and distill.cache == "always",
            "boost": self.boost is not None,
            "unshare": self.unshare is not None,
            "unstructured pruning": prune is not None and prune.kind == "unstructured",
            "structured pruning": prune is not None and prune.kind == "structured",
            "quantise": self.quantise is not None,
            "dropout": drop.dropout > 0,
            "drop-path": drop.drop_path > 0,
            "drop-block": drop.drop_block > 0,
            "label smoothing": train.label_smoothing > 0,
            "mixup": data.mixup > 0,
            "cutmix": data.cutmix > 0,
            "rand-augment": data.rand_augment,
            "auto-augment": data.auto_augment,
            "moving average": train.ema is not None,
            "accumulation": train.accumulate > 1,
            "bf16": train.amp == "bf16",
        }
        return [name for name, is_on in on.items() if is_on]
