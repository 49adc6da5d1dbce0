"""What trainings and searches cost: their passes gone through without computing them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from nasaug.config import SearchConfig
from nasaug.pipelines.plan import make_plan
from nasaug.pipelines.stages import SEEDS_APART, stages_of
from nasaug.search import Stage, shrinking_step, supernet_step
from nasaug.setting import Setting
from nasaug.supernet import Network, SearchSpace, macs_at
from nasaug.train_config import TrainConfig
from nasaug.training import Passes, Recipe, Step, rehearse, total_steps


@dataclass(frozen=True)
class Part:
    """A training that a run consists of: a whole one, or a stage of progressive shrinking."""

    step: Step
    net: Network
    recipe: Recipe
    seed: int
    size: int
    batches: int

    @property
    def steps_per_epoch(self) -> int:
        return self.batches // self.recipe.accumulate

    def passes(self) -> Passes:
        """All of its passes."""
        return self._rehearsed(total_steps(self.recipe, self.steps_per_epoch), None)

    def epoch_macs(self, thinned: int) -> float:
        """Mean forward MACs x images of an epoch, of so many steps over the whole training: of a
        longer one, if it has fewer."""
        steps = max(thinned, total_steps(self.recipe, self.steps_per_epoch))
        return macs_of(self._rehearsed(steps, thinned)) * self.steps_per_epoch / steps

    def _rehearsed(self, steps: int, thinned: int | None) -> Passes:
        return rehearse(
            self.step,
            self.net,
            self.recipe,
            self.size,
            steps=steps,
            steps_per_epoch=self.steps_per_epoch,
            seed=self.seed,
            thinned=thinned,
        )


def macs_of(passes: Passes) -> int:
    """MACs x images of all passes."""
    return sum(images * macs_at(arch, size) for (arch, size), images in passes.items())


def training_part(config: TrainConfig, setting: Setting, run: Path) -> Part:
    """Of `nasaug train`. Raises: ValueError for what cannot be trained as asked."""
    plan = make_plan(config, setting, run)
    size, batches = setting.view.resolution, len(setting.training)
    return Part(plan.step, plan.net, config.train, config.seed, size, batches)


def supernet_parts(config: SearchConfig, setting: Setting, space: SearchSpace) -> list[Part]:
    """Of the supernet of `nasaug search`: one part, or one for every stage of shrinking."""
    with torch.device("meta"):  # it is only asked what it is
        net = Network(space.largest.canonical(), init=None)
    options = config.supernet
    size, batches = setting.view.resolution, len(setting.training)
    if not options.shrinks:
        step = supernet_step(space, options)
        return [Part(step, net, config.train, config.seed, size, batches)]

    def part(index: int, stage: Stage) -> Part:
        teacher = net if index else None
        step = shrinking_step(space, stage, teacher, options.soft_weight, options.temperature)
        seed = config.seed + SEEDS_APART * index
        return Part(step, net, stage.recipe(config.train), seed, size, batches)

    return [part(index, stage) for index, stage in enumerate(stages_of(config, space, options))]
