"""A supernet trained in stages: progressive shrinking, every stage a run of its own.

    supernet/stages/1-full/        metrics.jsonl, checkpoint/, then weights.safetensors, result.json

A stage that is finished is not trained again; one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch

from nasaug.config import RunConfig
from nasaug.console import progress_bar, say
from nasaug.search import Stage, SupernetOptions, check_stages, default_stages, shrinking_step
from nasaug.setting import Setting
from nasaug.supernet import Network, SearchSpace, sort_channels, sort_features
from nasaug.training import (
    RunFolder,
    fit,
    load_weights,
    reestimate_batch_norm,
    save_weights,
)

STAGES = "stages"
SEEDS_APART = 1_000_003
Validate = Callable[[Network, float], dict[str, float]]


def stages_of(config: RunConfig, space: SearchSpace, options: SupernetOptions) -> tuple[Stage, ...]:
    """The stages given, or Once-for-All's, each as long as the recipe.

    Raises: ValueError for stages that do not fit the space.
    """
    stages = options.stages or default_stages(space, config.train.epochs)
    check_stages(stages, space)
    return stages


def fresh_supernet(
    config: RunConfig, setting: Setting, space: SearchSpace, options: SupernetOptions
) -> Network:
    """The largest member, from the seed."""
    generator = torch.Generator().manual_seed(config.seed)
    net = Network(space.largest.canonical(), "kaiming_uniform", generator).to(setting.device)
    if options.kernel_transforms:
        net.learn_kernel_transforms()
    return net


def train_in_stages(
    config: RunConfig,
    setting: Setting,
    space: SearchSpace,
    options: SupernetOptions,
    folder: RunFolder,
    validate: Validate,
    resume: bool,
) -> Network:
    """All stages in their order, each beginning with the weights of the one before; their metrics
    are put together in `folder`."""
    stages = stages_of(config, space, options)
    if not resume:
        shutil.rmtree(folder.path / STAGES, ignore_errors=True)
    net = fresh_supernet(config, setting, space, options)
    teacher: Network | None = None
    before: Stage | None = None
    runs = []
    for index, stage in enumerate(stages):
        run = RunFolder(folder.path / STAGES / f"{index + 1}-{stage.name}")
        runs.append(run)
        if not run.finished:
            say(f"stage {index + 1} of {len(stages)}, {stage.name}: {_said(stage)}")
            if stage.sorts(before):
                sort_channels(net)
                if before is not None and stage.reach["width"] > before.reach["width"]:
                    sort_features(net)
            step = shrinking_step(space, stage, teacher, options.soft_weight, options.temperature)
            with progress_bar(stage.name) as bar:
                trained = fit(
                    net,
                    step,
                    setting.training,
                    stage.recipe(config.train),
                    run,
                    seed=config.seed + SEEDS_APART * index,
                    validate=validate,
                    watch=bar,
                    resume=resume,
                )
            save_weights(run.weights, trained)
            run.write_result({"stage": stage.model_dump(mode="json")})
            shutil.rmtree(run.checkpoints)
        # From the file in any case: what `fit` returns may be an average, which cannot be trained.
        net = load_weights(run.weights).to(setting.device)
        if teacher is None:
            teacher = net.export()
            reestimate_batch_norm(teacher, setting.calibration())
            teacher.eval()
        before = stage
    _put_together(runs, stages, folder)
    return net


def _said(stage: Stage) -> str:
    """What is elastic, in words."""
    free = [f"{kind} {getattr(stage, kind)}" for kind, n in stage.reach.items() if n > 1]
    length = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
    return f"{length} of " + (", ".join(free) if free else "the full network")


def _put_together(runs: list[RunFolder], stages: tuple[Stage, ...], folder: RunFolder) -> None:
    """The metrics of all stages, in the supernet's own file: epochs and steps go on."""
    folder.forget_metrics_after(0)
    steps = epochs = 0
    for run, stage in zip(runs, stages, strict=True):
        rows = run.metrics()
        for row in rows:
            values = {key: value for key, value in row.items() if key != "step"}
            values |= {"stage": stage.name, "epoch": epochs + int(row["epoch"])}
            folder.log_metrics(steps + int(row["step"]), values)
        steps += int(rows[-1]["step"])
        epochs += int(rows[-1]["epoch"])
