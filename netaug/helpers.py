"""The helpers' passes of one batch."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug.parts import Parts, hard_and_soft, top1_of
from nasaug.supernet import Architecture, Network, Output
from nasaug.training import Batch, State


class Helpers:
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

    def learn(self, helper: Architecture) -> Tensor:
        """One helper on the labels, forward and backward: its logits, without their graph."""
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
            return loss.detach(), top1_of(out.logits, labels), out.logits.detach()

        images, labels = self._batch
        scale = torch.full((), self._scale, dtype=images.dtype, device=images.device)
        inputs = (images, labels, scale, *([] if self._soft is None else [self._soft]))
        with state.auxiliary() if surgery else nullcontext():
            if self._parts.silent:
                results = state.repeated_as("helper", self._net, helper, learnt, *inputs)
            else:
                results = learnt(helper, *inputs)
        loss, top1, logits = results
        self._observe(loss, top1)
        return logits

    def teach(self, helper: Architecture) -> Output:
        """One helper of relational distillation on the labels: forward and, unless its graph is
        needed again, backward."""
        out, loss = self._pass(helper, *self._batch, self._soft)
        relational = self._parts.relational
        assert relational is not None
        kept = relational.attached and self._options.sampling == "largest"
        self._backward(self._scale * loss, kept)
        self._observe(loss.detach(), top1_of(out.logits, self._batch[1]))
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
        return out, hard_and_soft(out.logits, labels, soft, self._parts.distill, self._state)

    def _backward(self, loss: Tensor, kept: bool) -> None:
        if self._options.mixing == "surgery":
            with self._state.auxiliary():
                loss.backward(retain_graph=kept)
        elif kept:
            self.pending = self.pending + loss
        else:
            loss.backward()
