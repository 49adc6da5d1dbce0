"""The one training step: the target, and whatever helps it.

    L(W_t) + alpha sum_i L([W_t, W_i])              NetAug (Cai et al., ICLR 2022, Equation 2)
           + lambda (L_D + 2 L_A)                   the largest network as relational teacher
           + T^2 KL(sampled || target)              the sampled networks as teachers

where L is the cross entropy, or that and an outer teacher's. The passes share the weights and see
the same batch; their gradients add up, and the caller's optimizer takes one step. Every part is an
option; with none the target is trained alone. NetDistiller and the other named methods (see
`methods.py`) are settings of this step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasaug.netaug.augmentation import Augmentation
from nasaug.netaug.helpers import Helpers
from nasaug.netaug.options import (
    BoostOptions,
    InPlaceOptions,
    NetAugOptions,
    RelationalOptions,
)
from nasaug.netaug.parts import Parts, hard_and_soft, top1_of
from nasaug.netaug.sampling import SAMPLING
from nasaug.supernet import (
    Architecture,
    Network,
    Output,
    SearchSpace,
    at_slope,
    sort_channels,
)
from nasaug.training import (
    ALONE,
    Batch,
    Losses,
    State,
    Step,
    certainty,
    distillation,
    gather,
    relational_loss,
)


def netaug_step(augmentation: Augmentation, options: NetAugOptions) -> Step:
    """The published step, for a network of `augmentation.largest`."""
    return training_step(Parts(augmentation, options))


def training_step(parts: Parts) -> Step:
    """The step for a network of the largest architecture, or of the target where it is alone."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        soft = parts.teacher(batch[0], state) if parts.teacher is not None else None
        if parts.augmentation is None:
            return _target(net, batch, state, parts, _boosted(net, parts.boost, state), soft)
        return _augmented(net, batch, state, parts, parts.augmentation, soft)

    return step


def _augmented(
    net: Network,
    batch: Batch,
    state: State,
    parts: Parts,
    augmentation: Augmentation,
    soft: Tensor | None,
) -> Losses:
    options = parts.netaug
    wide = state.progress < options.width_until
    space = augmentation.helpers if wide else augmentation.narrow
    # Channels that nobody trains are not worth sorting in.
    helped = options.start <= state.progress < options.stop
    if wide and helped and options.sort_channels and state.epoch_begins:
        sort_channels(net, state.companions())
    # A second phase without expand factors has nothing but the target.
    if not options.helps(state.step, state.progress) or space.largest == augmentation.target:
        return _target(net, batch, state, parts, augmentation.target, soft)
    helpers = Helpers(net, batch, state, parts, soft)
    if parts.relational is not None:
        return _related(net, batch, state, parts, augmentation.target, space, helpers, soft)
    drawn = [SAMPLING[options.sampling](space, state.rng) for _ in range(options.helpers)]
    said = [helpers.learn(helper) for helper in drawn]
    lessons = said if parts.in_place is not None else []
    losses = _target(net, batch, state, parts, augmentation.target, soft, lessons)
    return {**losses, "helper": helpers.loss}


def _related(
    net: Network,
    batch: Batch,
    state: State,
    parts: Parts,
    sub: Architecture,
    space: SearchSpace,
    helpers: Helpers,
    soft: Tensor | None,
) -> Losses:
    """With relations taught too, maybe through both graphs: the target's is kept until then."""
    assert parts.relational is not None
    images, labels = batch
    options = parts.netaug
    target = state.outputs(net, images, sub, parts.noise)
    loss = hard_and_soft(target.logits, labels, soft, parts.distill, state)
    state.observe("top1_target", top1_of(target.logits, labels))
    losses = {"target": loss.detach()}
    target = Output(*(values[: helpers.images] for values in target))
    for _ in range(options.helpers):
        helper = helpers.teach(SAMPLING[options.sampling](space, state.rng))
        if parts.in_place is not None:
            lesson = _in_place(target.logits, helper.logits, parts.in_place) / options.helpers
            losses["in_place"] = losses.get("in_place", 0) + lesson.detach()
            loss = loss + lesson
    relations = _relational(helpers.teacher(space.largest), target, parts.relational, state)
    losses["relational"] = relations.detach()
    (loss + parts.relational.weight * relations + helpers.pending).backward()
    return losses | {"helper": helpers.loss}


def _target(
    net: Network,
    batch: Batch,
    state: State,
    parts: Parts,
    sub: Architecture | None,
    soft: Tensor | None,
    lessons: Sequence[Tensor] = (),
) -> Losses:
    """The target's own lesson, and those of helpers with these logits: forward and backward."""
    outer = () if soft is None else (soft,)

    def learnt(images: Tensor, labels: Tensor, *teachers: Tensor) -> tuple[Tensor, ...]:
        out = state.outputs(net, images, sub, parts.noise)
        teacher = teachers[0] if outer else None
        loss = hard_and_soft(out.logits, labels, teacher, parts.distill, state)
        losses = [loss]
        if lessons:
            assert parts.in_place is not None
            helpers = teachers[len(outer) :]
            taught = [_in_place(out.logits[: len(one)], one, parts.in_place) for one in helpers]
            losses.append(torch.stack(taught).mean())
        sum(losses[1:], loss).backward()
        return top1_of(out.logits, labels), *(each.detach() for each in losses)

    inputs = (*batch, *outer, *lessons)
    if parts.silent and parts.boost is None:
        top1, *losses = state.repeated(sub, learnt, *inputs)
    else:  # noise or a slope of its own
        top1, *losses = learnt(*inputs)
    state.observe("top1_target", top1)
    return dict(zip(("target", "in_place"), losses, strict=False))


def _in_place(target: Tensor, helper: Tensor, options: InPlaceOptions) -> Tensor:
    weights = certainty(helper) if options.certainty else None
    lesson = distillation(target, helper.detach(), options.temperature, weights)
    return options.weight * lesson


def _relational(
    teacher: Tensor, target: Output, options: RelationalOptions, state: State
) -> Tensor:
    """Over the images of all workers, unless these keep their statistics to themselves too."""
    group = state.group if state.recipe.sync_batch_norm else ALONE
    return relational_loss(
        gather(teacher, group),
        gather(target.embedding, group),
        options.distance,
        options.angle,
        options.anchors,
        torch.Generator().manual_seed(state.rng.getrandbits(63)),
    )


def _boosted(net: Network, boost: BoostOptions | None, state: State) -> Architecture | None:
    return None if boost is None else at_slope(net.arch, boost.slope(state.progress))
