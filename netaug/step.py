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

import math
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug.augmentation import Augmentation
from nasaug.netaug.options import (
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    RelationalOptions,
)
from nasaug.netaug.sampling import SAMPLING
from nasaug.supernet import (
    Architecture,
    Network,
    Noise,
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
    Teacher,
    certainty,
    distillation,
    gather,
    relational_loss,
)


@dataclass(frozen=True)
class Parts:
    """What a target is trained with; None is without. `netaug` and what follows it need an
    `augmentation`, `boost` a network of the boosted target."""

    augmentation: Augmentation | None = None
    netaug: NetAugOptions = field(default_factory=NetAugOptions)
    relational: RelationalOptions | None = None
    in_place: InPlaceOptions | None = None
    distill: DistillOptions | None = None
    teacher: Teacher | None = None
    boost: BoostOptions | None = None
    noise: Noise | None = None


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
    helpers = _Helpers(net, batch, state, parts, soft)
    if parts.in_place is not None or parts.relational is not None:
        return _taught(net, batch, state, parts, augmentation.target, space, helpers, soft)
    losses = _target(net, batch, state, parts, augmentation.target, soft)
    for _ in range(options.helpers):
        helpers.learn(SAMPLING[options.sampling](space, state.rng))
    return {**losses, "helper": helpers.loss}


def _taught(
    net: Network,
    batch: Batch,
    state: State,
    parts: Parts,
    sub: Architecture,
    space: SearchSpace,
    helpers: _Helpers,
    soft: Tensor | None,
) -> Losses:
    """Helpers that are teachers too: what they teach comes into the target's loss, whose graph is
    kept for it until then."""
    images, labels = batch
    options = parts.netaug
    target = state.outputs(net, images, sub, parts.noise)
    loss = _hard_and_soft(target.logits, labels, soft, parts.distill, state)
    state.observe("top1_target", _top1(target.logits, labels))
    losses = {"target": loss.detach()}
    target = Output(*(values[: helpers.images] for values in target))
    for _ in range(options.helpers):
        helper = helpers.teach(SAMPLING[options.sampling](space, state.rng))
        if parts.in_place is not None:
            lesson = _in_place(target.logits, helper.logits, parts.in_place) / options.helpers
            losses["in_place"] = losses.get("in_place", 0) + lesson.detach()
            loss = loss + lesson
    if parts.relational is not None:
        relations = _relational(helpers.teacher(space.largest), target, parts.relational, state)
        losses["relational"] = relations.detach()
        loss = loss + parts.relational.weight * relations
    (loss + helpers.pending).backward()
    return losses | {"helper": helpers.loss}


def _target(
    net: Network,
    batch: Batch,
    state: State,
    parts: Parts,
    sub: Architecture | None,
    soft: Tensor | None,
) -> Losses:
    """The target's own lesson: forward and backward."""

    def learnt(images: Tensor, labels: Tensor, soft: Tensor | None = None) -> tuple[Tensor, ...]:
        out = state.outputs(net, images, sub, parts.noise)
        loss = _hard_and_soft(out.logits, labels, soft, parts.distill, state)
        loss.backward()
        return loss.detach(), _top1(out.logits, labels)

    inputs = batch if soft is None else (*batch, soft)
    if _silent(parts) and parts.boost is None:
        loss, top1 = state.repeated(sub, learnt, *inputs)
    else:  # noise or a slope of its own
        loss, top1 = learnt(*inputs)
    state.observe("top1_target", top1)
    return {"target": loss}


class _Helpers:
    """The helpers' passes of one batch, or of the first `images` of it. `loss` is their mean;
    `pending` is what was not sent backward yet, since its graph is needed once more."""

    def __init__(
        self, net: Network, batch: Batch, state: State, parts: Parts, soft: Tensor | None
    ) -> None:
        self._net, self._state, self._parts = net, state, parts
        self._options = options = parts.netaug
        images, labels = batch
        self.images = math.ceil(options.share * len(labels))
        images, labels = images[: self.images], labels[: self.images]
        if options.resolution is not None and options.resolution != images.shape[-1]:
            size = (options.resolution, options.resolution)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        self._batch = images, labels
        taught = soft is not None and parts.distill is not None and parts.distill.helpers
        self._soft = soft[: self.images] if taught and soft is not None else None
        self._last: Output | None = None
        self._top1: list[Tensor] = []
        self.loss = torch.zeros((), device=batch[0].device)
        self.pending = torch.zeros((), device=batch[0].device)

    @property
    def _scale(self) -> float:
        """The weight of one helper's loss."""
        options, left = self._options, 1.0 - self._state.progress
        share = 1 if options.mixing in ("sum", "anneal") else 1 / options.helpers
        return options.alpha * share * (left if options.mixing == "anneal" else 1.0)

    def learn(self, helper: Architecture) -> None:
        """One helper on the labels, forward and backward, of which nothing else is needed."""
        state, surgery = self._state, self._options.mixing == "surgery"

        def learnt(
            sub: Architecture,
            images: Tensor,
            labels: Tensor,
            scale: Tensor,
            soft: Tensor | None = None,
        ) -> tuple[Tensor, ...]:
            out, loss = self._pass(sub, images, labels, soft)
            (scale * loss).backward()
            return loss.detach(), _top1(out.logits, labels)

        images, labels = self._batch
        scale = torch.full((), self._scale, dtype=images.dtype, device=images.device)
        inputs = (images, labels, scale, *([] if self._soft is None else [self._soft]))
        with state.auxiliary() if surgery else nullcontext():
            if _silent(self._parts):
                loss, top1 = state.repeated_as("helper", self._net, helper, learnt, *inputs)
            else:
                loss, top1 = learnt(helper, *inputs)
        self._observe(loss, top1)

    def teach(self, helper: Architecture) -> Output:
        """One helper on the labels: forward and, unless its graph is needed again, backward."""
        out, loss = self._pass(helper, *self._batch, self._soft)
        relational = self._parts.relational
        kept = relational is not None and relational.attached
        self._backward(self._scale * loss, kept and self._options.sampling == "largest")
        self._observe(loss.detach(), _top1(out.logits, self._batch[1]))
        self._last = out
        return out

    def _observe(self, loss: Tensor, top1: Tensor) -> None:
        self.loss = self.loss + loss / self._options.helpers
        self._top1.append(top1)
        self._state.observe("top1_helper", torch.stack(self._top1).mean())

    def teacher(self, largest: Architecture) -> Tensor:
        """The largest network's embedding: that of its own pass where it is the helper anyway."""
        relational = self._parts.relational
        assert relational is not None
        if self._options.sampling == "largest":
            assert self._last is not None
            embedding = self._last.embedding
        else:
            with torch.set_grad_enabled(relational.attached or relational.teacher_loss):
                out, loss = self._pass(largest, *self._batch, self._soft)
            embedding = out.embedding
            if relational.teacher_loss:
                self._backward(self._scale * loss, relational.attached)
        return embedding if relational.attached else embedding.detach()

    def _pass(
        self, helper: Architecture, images: Tensor, labels: Tensor, soft: Tensor | None
    ) -> tuple[Output, Tensor]:
        out = self._state.outputs(self._net, images, helper, self._parts.noise)
        return out, _hard_and_soft(out.logits, labels, soft, self._parts.distill, self._state)

    def _backward(self, loss: Tensor, kept: bool) -> None:
        if self._options.mixing == "surgery":
            with self._state.auxiliary():
                loss.backward(retain_graph=kept)
        elif kept:
            self.pending = self.pending + loss
        else:
            loss.backward()


def _hard_and_soft(
    logits: Tensor,
    labels: Tensor,
    soft: Tensor | None,
    options: DistillOptions | None,
    state: State,
) -> Tensor:
    """The recipe's loss, and the outer teacher's where there is one."""
    hard = state.loss(logits, labels)
    if soft is None or options is None:
        return hard
    lesson = distillation(logits, soft, options.temperature)
    return (1 - options.weight) * hard + options.weight * lesson


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


def _silent(parts: Parts) -> bool:
    return parts.noise is None or parts.noise.silent


def _top1(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of the batch's images whose likeliest class is right."""
    right = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.detach().argmax(1) == right).float().mean()
