"""What a target is trained inside: a searched network, or one made from factors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nasaug.netaug import Augmentation
from nasaug.search import format_macs, parse_budget
from nasaug.sections import SpaceSection
from nasaug.supernet import Architecture, Factors
from nasaug.train_config import NetAugSection, TrainConfig
from nasaug.training import read_json_object
from nasaug.workspace import SearchResult, is_down, newest_search, read_best

INSIDE = "inside.json"


@dataclass(frozen=True)
class Inside:
    """`best` is the search's result behind the augmentation, if any; `source` says it in words."""

    augmentation: Augmentation
    best: Path | None
    source: str


def augmentation_for(config: TrainConfig, target: Architecture, run: Path) -> Inside | None:
    """None for a target that is trained alone.

    Raises: ValueError for a largest network that is not there, not of this target, or does not
        contain it (naming the first row where it fails).
    """
    section = config.augmented
    if section is None:
        return None
    inside = _inside(config, section, target, run)
    if inside.augmentation.largest == target:
        raise ValueError(
            f"there is nothing to train {target.name} in: with {inside.source} the largest network "
            "is the target itself; raise netaug.r or a factor, or use --method baseline"
        )
    return inside


def _inside(config: TrainConfig, section: NetAugSection, target: Architecture, run: Path) -> Inside:
    best = _search_result(config, target, run)
    grows = section.kernel_growth != (0,) or section.extra_depth != (0,)
    factors = section.factors(target.name)
    if best is None:
        augmentation = Augmentation.by_factors(
            target, factors, section.divisor, section.kernel_growth, section.extra_depth
        )
        given = "the factors given" if section.spelt_out or grows else "the published factors"
        return Inside(augmentation, None, given)
    path, facts = best
    down = is_down(facts)
    if not down and facts["target"] != config.target:
        raise ValueError(
            f"{path} was searched for {facts['target']}, not {config.target}; "
            "name another --largest, or search for this target first"
        )
    if grows:
        raise ValueError(
            f"netaug.kernel_growth and netaug.extra_depth are for --largest published; {path} has "
            "kernels and depth of its own"
        )
    try:
        largest = Architecture.from_dict(facts["architecture"]).with_classes(target.num_classes)
        if not section.spelt_out and not down and "space" in facts:
            space = SpaceSection.model_validate(facts["space"])
            factors = Factors(space.width or factors.width, space.expand or factors.expand)
        augmentation = Augmentation.inside(target, largest, factors, section.divisor)
        budget = format_macs(parse_budget(facts["budget_macs"]))
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    return Inside(augmentation, path, f"the search {path} (budget {budget})")


def _search_result(config: TrainConfig, target: Architecture, run: Path) -> SearchResult | None:
    """The search to use: the one that the run began with, or what `largest` says."""
    chosen = run / INSIDE
    begun = str(read_json_object(chosen).get("largest", "")) if chosen.exists() else ""
    wanted = begun or config.largest
    if wanted == "auto":
        return newest_search(config.target, target, run)
    if wanted == "published":
        return None
    path = Path(wanted)
    path = path / "best.json" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{path} does not exist; run nasaug search, or use --largest published")
    return path, read_best(path)
