"""How the supernet is trained: the steps that `SUPERNET_METHODS` names.

A supernet is one set of elastic weights for all members of a space; a step passes some members
through the batch and leaves their mean gradient behind, so that the learning rate means the same
whichever the method. They differ in which members, and in what these learn from:

single-path   one member, uniform over the space (Guo et al., ECCV 2020).
fair          m members that use every choice of every row equally often (FairNAS, Chu et al.,
              2019, arXiv 1907.01845, strict fairness).
edge-dropout  one member, the join of the edges that survive a dropout whose rate rises to 1 (Bender
              et al., ICML 2018); its limit is single-path.
sandwich      the largest on the labels; the smallest and k random ones on what the largest says
              (BigNAS, Yu et al., 2020, arXiv 2003.11142).
shrinking     several trainings, one after the other, each with a step of its own: progressive
              shrinking (see `shrinking.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nasaug.search.paths import dropout_path, fair_passes, fair_paths
from nasaug.search.shrinking import Stages
from nasaug.supernet import Architecture, Network, SearchSpace, did_you_mean
from nasaug.training import Batch, Losses, State, Step, distillation

SHRINKING = "shrinking"


def _known_method(name: str) -> str:
    known = (*SUPERNET_METHODS, SHRINKING)
    if name not in known:
        raise ValueError(f"unknown method {name!r}: {did_you_mean(name, known)}")
    return name


class SupernetOptions(BaseModel):
    """How the supernet is trained; an option of another method than `method` has no effect.

    fair_over: what is dealt out fairly, a row's joint choices (kernel, expand ratio and width at
    once; as FairNAS) or each decision by itself, which takes far fewer passes. edge_dropout: the
    rate at the start; it rises linearly and is 1 from the share `edge_dropout_until` of training
    on. random_paths: the k of the sandwich. temperature: softens the logits that teach, the
    sandwich's and those of shrinking.

    stages: those of shrinking; empty is Once-for-All's order, each as long as the recipe.
    soft_weight: of what the full network teaches them, the labels having the rest.
    kernel_transforms: whether smaller kernels are made from larger ones by learned matrices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Annotated[str, AfterValidator(_known_method)] = "single-path"
    fair_over: Literal["choices", "decisions"] = "choices"
    edge_dropout: float = Field(0.0, ge=0, le=1)
    edge_dropout_until: float = Field(0.5, gt=0, le=1)
    random_paths: int = Field(2, ge=0, le=64)
    temperature: float = Field(1.0, gt=0, le=100)
    stages: Stages = ()
    soft_weight: float = Field(0.5, ge=0, le=1)
    kernel_transforms: bool = False

    @property
    def shrinks(self) -> bool:
        """Whether it is trained in stages, rather than by one step."""
        return self.method == SHRINKING

    @model_validator(mode="after")
    def _stages_are_used(self) -> SupernetOptions:
        if self.stages and not self.shrinks:
            raise ValueError(
                f"stages are of the method {SHRINKING}, but the method is {self.method}; leave "
                f"them out, or set method: {SHRINKING}"
            )
        return self


def supernet_step(space: SearchSpace, options: SupernetOptions) -> Step:
    """The step that trains a supernet of `space` as `options` say.

    Raises: ValueError for shrinking, which has a step for each of its stages.
    """
    if options.shrinks:
        raise ValueError("shrinking has a step for each of its stages: use shrinking_step")
    return SUPERNET_METHODS[options.method](space, options)


def passes_per_step(space: SearchSpace, options: SupernetOptions) -> int:
    """How many members see the batch in a step, for comparisons at equal numbers of passes."""
    if options.shrinks:
        raise ValueError("shrinking trains other numbers of paths in each of its stages")
    if options.method == "fair":
        return fair_passes(space, options.fair_over)
    return 2 + options.random_paths if options.method == "sandwich" else 1


def single_path_step(space: SearchSpace) -> Step:
    """Each step trains one path, drawn uniformly from `space`, on the shared weights."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        return {"path": _learnt(net, batch, state, space.sample(state.rng))}

    return step


def fair_step(space: SearchSpace, options: SupernetOptions) -> Step:
    """Each step trains the paths of `fair_paths`, then the weights change once."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        paths = fair_paths(space, state.rng, state.step, options.fair_over)
        total = torch.zeros((), device=batch[0].device)
        for path in paths:
            total = total + _learnt(net, batch, state, space.architecture(path), len(paths))
        return {"path": total / len(paths)}

    return step


def edge_dropout_step(space: SearchSpace, options: SupernetOptions) -> Step:
    """Each step trains the path of `dropout_path` at the rate that is due."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        path = dropout_path(space, state.rng, dropout_rate(options, state.progress))
        return {"path": _learnt(net, batch, state, space.architecture(path))}

    return step


def _learnt(
    net: Network, batch: Batch, state: State, path: Architecture, passes: int = 1
) -> Tensor:
    """One path of `passes` on the labels, forward and backward. Returns its loss."""

    def learnt(sub: Architecture, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        loss = state.loss(state.outputs(net, images, sub).logits, labels)
        (loss / passes).backward()
        return (loss.detach(),)

    (loss,) = state.repeated_as("path", net, path, learnt, *batch)
    return loss


def dropout_rate(options: SupernetOptions, progress: float) -> float:
    """The edge dropout's rate when the share `progress` of training is done."""
    risen = min(1.0, progress / options.edge_dropout_until)
    return options.edge_dropout + (1 - options.edge_dropout) * risen


def sandwich_step(space: SearchSpace, options: SupernetOptions) -> Step:
    """Each step trains the largest member on the labels, the target and `random_paths` uniform
    ones on the largest's logits: KL(softmax(z_largest / T) || softmax(z / T)) T^2, where
    z_largest is detached.

    BigNAS sums the passes' gradients; here they are averaged. `random` is the mean of its losses.
    """

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images = batch[0]
        passes = 2 + options.random_paths

        def learnt(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            logits = state.outputs(net, images).logits
            loss = state.loss(logits, labels)
            (loss / passes).backward()
            return loss.detach(), logits.detach()

        def taught(sub: Architecture, images: Tensor, teacher: Tensor) -> tuple[Tensor, ...]:
            logits = state.outputs(net, images, sub).logits
            loss = distillation(logits, teacher, options.temperature)
            (loss / passes).backward()
            return (loss.detach(),)

        loss, teacher = state.repeated("largest", learnt, *batch)
        losses = {"largest": loss}
        students = {"smallest": [space.target]}
        if options.random_paths:
            students["random"] = [space.sample(state.rng) for _ in range(options.random_paths)]
        for name, archs in students.items():
            total = torch.zeros((), device=images.device)
            for arch in archs:
                (loss,) = state.repeated_as("taught", net, arch, taught, images, teacher)
                total = total + loss
            losses[name] = total / len(archs)
        return losses

    return step


SUPERNET_METHODS: dict[str, Callable[[SearchSpace, SupernetOptions], Step]] = {
    "single-path": lambda space, options: single_path_step(space),
    "fair": fair_step,
    "edge-dropout": edge_dropout_step,
    "sandwich": sandwich_step,
}
