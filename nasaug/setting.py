"""What searching and training do first: device, data, target, views."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nasaug.config import RunConfig
from nasaug.console import say
from nasaug.supernet import Architecture
from nasaug.training import (
    Batches,
    Dataset,
    View,
    Workers,
    calibration_batches,
    check_batch,
    evaluation_batches,
    join_workers,
    keep_caches,
    load_dataset,
    proxy_resolution,
    training_batches,
    training_sample,
)

# The keys of the data section that say how images are shown.
VIEWED = {"flip", "crop", "workers", "rand_augment", "auto_augment", "mixup", "cutmix"}


@dataclass(frozen=True)
class Setting:
    """The target (of a search down the table's smallest member), the data and how the one sees the
    other."""

    config: RunConfig
    target: Architecture
    data: Dataset
    view: View
    group: Workers
    training: Batches

    @property
    def device(self) -> torch.device:
        return self.view.device

    def calibration(self) -> Batches:
        return calibration_batches(self.data, self.view, self.config.train.bn_images)

    def validation(self) -> Batches:
        return evaluation_batches(self.data, self.data.validation, self.view)

    def training_sample(self) -> Batches:
        """As many training images as there are for validation, the same every time."""
        return training_sample(self.data, self.view, len(self.data.validation))

    def test(self) -> Batches:
        return evaluation_batches(self.data, self.data.test, self.view)


def prepare(config: RunConfig, loaded: Dataset | None = None) -> Setting:
    """What the data are is said, unless they are `loaded` already.

    Raises: ValueError for an unknown target or data set, and for a device that is not there.
    """
    keep_caches()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    data = loaded or load_dataset(
        config.data.name,
        config.data.dir,
        config.data.validation,
        config.data.download,
        config.data.imbalance,
        config.data.per_class,
    )
    target = config.make_target(len(data.classes))
    size = config.train.resolution or proxy_resolution(target, data.native_size)
    options = config.data.model_dump(include=VIEWED)
    view = View(size, target.in_channels, device, **options)
    group = join_workers(device)
    check_batch(config.train, group.size)
    training = training_batches(data, view, config.train.batch_size, config.seed, group)
    if group.first and loaded is None:
        where = f"at {size} x {size}"
        if size != target.resolution:
            where += f" (a proxy; costs are counted at {target.resolution} x {target.resolution})"
        say(
            f"{data.name}: {len(data.train):,} training, {len(data.validation):,} validation, "
            f"{len(data.test):,} test images of {len(data.classes)} classes, shown {where}"
        )
    return Setting(config, target, data, view, group, training)


def choose_device(name: str) -> torch.device:
    """auto, cpu or cuda. Raises: ValueError for another name, and for a GPU that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, but got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    import os

    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cuda", torch.cuda.current_device())
