"""A training's passes, gone through without training it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from nasaug.supernet import Architecture, Network, SearchSpace, macs_at
from nasaug.training import (
    Batch,
    Batches,
    Losses,
    Recipe,
    RunFolder,
    State,
    fit,
    plain_step,
    rehearse,
)

MakeNetwork = Callable[..., Network]


def _two_members(space: SearchSpace) -> Callable[[Network, Batch, State], Losses]:
    """The whole network on all images, a random member on a half of them."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        half = len(images) // 2
        whole = state.loss(state.outputs(net, images).logits, labels)
        member = space.sample(state.rng)
        part = state.loss(state.outputs(net, images[:half], member).logits, labels[:half])
        (whole + part).backward()
        return {"both": (whole + part).detach()}

    return step


def test_they_come_to_the_macs_that_training_records(
    micro_space: SearchSpace, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """Two batches a step, and warm-up: 2 steps an epoch, 5 of them."""
    recipe = Recipe(epochs=2, warmup_epochs=0.5, batch_size=16, accumulate=2)
    step = _two_members(micro_space)
    net = make_network(micro_space.largest)
    fit(net, step, batches, recipe, run, seed=3)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    passes = rehearse(step, net, recipe, 28, steps=5, steps_per_epoch=2, seed=3)
    assert sum(images * macs_at(*key) for key, images in passes.items()) == sum(
        row["macs"] for row in rows
    )
    assert sum(passes.values()) == 5 * 2 * (16 + 8)
    other = rehearse(step, net, recipe, 28, steps=5, steps_per_epoch=2, seed=4)
    assert other != passes, "another seed draws other members"


def test_the_members_are_those_that_the_steps_draw(
    micro_space: SearchSpace, make_network: MakeNetwork
) -> None:
    recipe = Recipe(epochs=3, warmup_epochs=0, batch_size=16)
    net = make_network(micro_space.largest)
    passes = rehearse(
        _two_members(micro_space), net, recipe, 20, steps=6, steps_per_epoch=2, seed=7
    )
    drawn = [micro_space.sample(random.Random(f"7/step/{step}")) for step in range(6)]
    for member in drawn:
        assert passes[member, 20] >= 8
    assert {arch for arch, _ in passes} == {net.arch, *drawn}


def test_thinned_it_is_about_the_same(
    micro_space: SearchSpace, make_network: MakeNetwork, micro: Architecture
) -> None:
    recipe = Recipe(epochs=40, warmup_epochs=0, batch_size=16)
    net = make_network(micro_space.largest)

    def macs(thinned: int | None) -> int:
        passes = rehearse(
            _two_members(micro_space),
            net,
            recipe,
            28,
            steps=800,
            steps_per_epoch=20,
            thinned=thinned,
        )
        return sum(images * macs_at(*key) for key, images in passes.items())

    assert abs(macs(200) / macs(None) - 1) < 0.02
    plain = Network(micro.canonical(), init=None)
    for thinned in (3, None, 5000):
        passes = rehearse(
            plain_step, plain, recipe, 28, steps=10, steps_per_epoch=5, thinned=thinned
        )
        assert sum(passes.values()) == 160


def test_nothing_is_computed(micro_space: SearchSpace) -> None:
    """A network without content will do, and its weights are left alone."""
    with torch.device("meta"):
        net = Network(micro_space.largest.canonical(), init=None)
    recipe = Recipe(epochs=1, warmup_epochs=0, batch_size=16)
    assert rehearse(_two_members(micro_space), net, recipe, 28, steps=2, steps_per_epoch=2)
    assert all(parameter.grad is None for parameter in net.parameters())
    state = State(recipe, 0, 1, 1, 0, nullcontext, list)
    assert state.macs == 0


@pytest.mark.parametrize("every", [2, 4, 7])
def test_thinned_it_does_not_fall_into_step_with_what_comes_every_so_often(
    micro: Architecture, every: int
) -> None:
    net = Network(micro.canonical(), init=None)

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        loss = state.loss(state.outputs(net, images).logits, labels)
        if state.step % every == 0:
            loss = loss + state.loss(state.outputs(net, images).logits, labels)
        return {"all": loss.detach()}

    recipe = Recipe(epochs=1, warmup_epochs=0, batch_size=16)
    passes = rehearse(step, net, recipe, 28, steps=2800, steps_per_epoch=100, thinned=400)
    assert sum(passes.values()) == pytest.approx(2800 * 16 * (1 + 1 / every), rel=0.04)
