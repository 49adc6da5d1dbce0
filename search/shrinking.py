"""Progressive shrinking: from the full network down, one kind of choice after another.

Once-for-All (Cai et al., ICLR 2020, Section 3.3) trains the largest network first, then lets
kernels, depth, expand ratios and widths become smaller, a few at a time; smaller networks learn
from the labels and from what the full network says. Here a stage is data: how long, at which rate,
and how many of the largest values of every decision are trained. A stage begins with the weights
of the one before.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from nasaug.supernet import Architecture, Network, SearchSpace, Value
from nasaug.training import Batch, Losses, Recipe, State, Step, distillation

KINDS = ("kernel", "depth", "expand", "width")
# Stages begin with channels sorted by importance where one of these becomes elastic.
SORTED = ("expand", "width")
Reach = Annotated[int, Field(ge=1)] | Literal["all"]


class Stage(BaseModel):
    """One stage. `kernel`, `expand`, `width`: how many of a row's largest values are trained (1:
    the largest alone); `depth`: how many depths of a stage of the network, the deepest first.

    lr, warmup_epochs: None is the recipe's. paths: how many sub-networks a step trains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    epochs: int = Field(ge=1, le=10_000)
    lr: float | None = Field(None, gt=0, le=100)
    warmup_epochs: float | None = Field(None, ge=0, le=10_000)
    paths: int = Field(1, ge=1, le=64)
    kernel: Reach = 1
    depth: Reach = 1
    expand: Reach = 1
    width: Reach = 1

    @property
    def reach(self) -> dict[str, float]:
        """How many values of each kind; infinite for all."""
        given = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: float("inf") if n == "all" else n for kind, n in given.items()}

    def recipe(self, base: Recipe) -> Recipe:
        """The base recipe, as long and at the rate of this stage."""
        own = {"epochs": self.epochs, "lr": self.lr, "warmup_epochs": self.warmup_epochs}
        return base.model_copy(update={key: n for key, n in own.items() if n is not None})

    def sorts(self, before: Stage | None) -> bool:
        """Whether this stage makes widths or expand ratios more elastic than `before` did."""
        if before is None:
            return False
        return any(self.reach[kind] > before.reach[kind] for kind in SORTED)


def _in_order(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Raises: ValueError for stages that cannot follow one another, whatever the space."""
    names = [stage.name for stage in stages]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"stages must differ in their names, but {double!r} is there twice")
    if stages and max(stages[0].reach.values()) > 1:
        grown = [kind for kind, n in stages[0].reach.items() if n > 1]
        raise ValueError(
            f"the first stage must train the full network alone, which teaches the others, but "
            f"{names[0]} makes {', '.join(grown)} elastic; put a stage without before it"
        )
    for before, after in pairwise(stages):
        for kind in KINDS:
            if after.reach[kind] < before.reach[kind]:
                raise ValueError(
                    f"a stage must train all that the one before trained, but {after.name} has "
                    f"{kind} {getattr(after, kind)} after {getattr(before, kind)} in "
                    f"{before.name}; put them in order"
                )
    return stages


Stages = Annotated[tuple[Stage, ...], AfterValidator(_in_order)]


def default_stages(space: SearchSpace, epochs: int, paths: int = 2) -> tuple[Stage, ...]:
    """Once-for-All's order, each kind that the space has in as few stages as it has values:
    full, kernel, depth, expand, width, all of `epochs` epochs."""
    stages = [Stage(name="full", epochs=epochs)]
    most = most_values(space)
    for kind in KINDS:
        # Kernels become elastic at once, the others value by value, as published.
        for count in [most[kind]] if kind == "kernel" else range(2, most[kind] + 1):
            if count < 2:
                continue
            update = {kind: count, "name": f"{kind}-{count}", "epochs": epochs, "paths": paths}
            stages.append(stages[-1].model_copy(update=update))
    return _in_order(tuple(stages))


def most_values(space: SearchSpace) -> dict[str, int]:
    """How many values the richest decision of each kind has; 1 where nothing varies."""
    most = dict.fromkeys(KINDS, 1)
    optional: Counter[str] = Counter()
    for name, values in space.decisions.items():
        row, _, decision = name.rpartition(".")
        if decision == "present":
            optional[row.partition(".")[0]] += 1
        else:
            most[decision] = max(most[decision], len(values))
    if optional:
        most["depth"] = 1 + max(optional.values())
    return most


def check_stages(stages: Sequence[Stage], space: SearchSpace) -> None:
    """Raises: ValueError if the stages leave something of the space untrained, or go beyond it."""
    most = most_values(space)
    for stage in stages:
        for kind, reach in stage.reach.items():
            if most[kind] < reach < float("inf"):
                raise ValueError(
                    f"stage {stage.name}: {kind} {reach:g} is more than the {most[kind]} that "
                    f"{space.name} has; use {most[kind]}, or all"
                )
    left = [kind for kind, reach in stages[-1].reach.items() if reach < most[kind]]
    if left:
        raise ValueError(
            f"the last stage must train all of {space.name}, but {stages[-1].name} leaves values "
            f"of {', '.join(left)} out, which a search would then judge untrained; add a stage "
            f"with {left[0]}: all"
        )


def sample_stage(space: SearchSpace, stage: Stage, rng: random.Random) -> Architecture:
    """A member within the stage's reach: a depth for every stage of the network, and every other
    decision, drawn by itself and uniformly, as Once-for-All does (its MACs are not)."""
    reach = stage.reach
    optional: Counter[str] = Counter(
        _stage_of(name) for name in space.decisions if name.endswith(".present")
    )
    # How many of the last rows of each network stage are absent.
    absent = {
        name: rng.randrange(int(min(reach["depth"], count + 1))) for name, count in optional.items()
    }
    seen: Counter[str] = Counter()
    values: dict[str, Value] = {}
    for name, options in space.decisions.items():
        kind = name.rpartition(".")[2]
        if kind == "present":
            own = _stage_of(name)
            values[name] = seen[own] < optional[own] - absent[own]
            seen[own] += 1
        else:
            few = options[-int(min(reach[kind], len(options))) :]
            values[name] = few[rng.randrange(len(few))]
    return space.architecture(space.path_of(values))


def _stage_of(decision: str) -> str:
    return decision.partition(".")[0]


def shrinking_step(
    space: SearchSpace, stage: Stage, teacher: Network | None, weight: float, temperature: float
) -> Step:
    """The step of one stage: the mean over `stage.paths` sub-networks of

        (1 - weight) CE + weight T^2 KL(full || sub-network),

    or of the cross entropy alone where there is no teacher (the first stage). The teacher is the
    full network as the first stage left it, in evaluation mode.
    """

    def step(net: Network, batch: Batch, state: State) -> Losses:
        def learnt(
            sub: Architecture, images: Tensor, labels: Tensor, soft: Tensor | None = None
        ) -> tuple[Tensor, ...]:
            logits = state.outputs(net, images, sub).logits
            loss = state.loss(logits, labels)
            if soft is not None:
                lesson = distillation(logits, soft, temperature)
                loss = (1 - weight) * loss + weight * lesson
            (loss / stage.paths).backward()
            return (loss.detach(),)

        inputs: tuple[Tensor, ...] = batch
        if teacher is not None:
            with torch.no_grad():
                inputs = (*batch, state.outputs(teacher, batch[0]).logits)
        total = torch.zeros((), device=batch[0].device)
        for _ in range(stage.paths):
            path = sample_stage(space, stage, state.rng)
            (loss,) = state.repeated_as("path", net, path, learnt, *inputs)
            total = total + loss
        return {"path": total / stage.paths}

    return step
