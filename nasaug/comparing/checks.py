"""What is wrong with a study, said before any of its cells runs."""

from __future__ import annotations

import json

from nasaug.comparing.cells import MARK, Cell
from nasaug.comparing.plan import Planner
from nasaug.config import SearchConfig
from nasaug.netaug import sharing_groups
from nasaug.pipelines.inside import augmentation_for
from nasaug.supernet import Architecture
from nasaug.train_config import TrainConfig
from nasaug.training import load_dataset, load_teacher, proxy_resolution


def check_cells(planner: Planner) -> None:
    """Raises: ValueError, OSError for the first kind of cell that could not train: an illegal
    configuration, an unknown target, data or a teacher that is not there, no larger network."""
    classes: dict[str, tuple[int, int | None]] = {}
    for cell in _one_of_each(planner):
        config = cell.config
        where = f"methods.{cell.arm.method}" if cell.arm is not None else cell.name
        key = json.dumps(config.data.model_dump(mode="json"), sort_keys=True)
        try:
            if key not in classes:
                data = load_dataset(
                    config.data.name,
                    config.data.dir,
                    config.data.validation,
                    config.data.download,
                    config.data.imbalance,
                    config.data.per_class,
                )
                classes[key] = len(data.classes), data.native_size
            count, size = classes[key]
            target = config.make_target(count)
            if isinstance(config, TrainConfig):
                _check_training(planner, cell, config, target, size)
            elif isinstance(config, SearchConfig):
                config.make_space(target).within(config.limits)
        except ValueError as error:
            raise ValueError(f"{where}, target {config.target}: {error}") from None


def _one_of_each(planner: Planner) -> list[Cell]:
    """A cell of every arm, and all that they build on."""
    study, cells = planner.study, planner.cells
    found: dict[Cell, None] = {}
    for arm in planner.arms:
        found |= dict.fromkeys(cells.needed(arm.method, arm.target))
        found[cells.final(arm, study.tune.grid[0], study.seeds_of(arm.method)[0])] = None
    return list(found)


def _check_training(
    planner: Planner, cell: Cell, config: TrainConfig, target: Architecture, size: int | None
) -> None:
    """`size` is that of the images, None where it varies."""
    trained = target
    made = {str(planner.store.folder(needed)) for needed in cell.needs}
    if config.augmented is not None and config.largest not in made:
        if config.largest == "auto":
            raise ValueError(
                "largest: auto is whatever was searched last, so that the study could not be "
                f"repeated; say published, the path of a best.json, or {MARK}NAME"
            )
        inside = augmentation_for(config, target, planner.store.folder(cell.identity))
        if inside is not None:
            trained = inside.augmentation.largest
    if config.unshare is not None:
        sharing_groups(trained)
    teacher = config.distill.teacher if config.distill is not None else None
    if teacher is not None and teacher not in made:
        shown = config.train.resolution or proxy_resolution(target, size)
        load_teacher(teacher, target.num_classes, target.in_channels, shown)
