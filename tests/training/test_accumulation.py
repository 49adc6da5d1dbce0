"""A step of several batches: what one optimizer step on the mean of their gradients would be."""

from __future__ import annotations

import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor

from nasaug.supernet import Architecture, Network, Noise
from nasaug.training import (
    Batch,
    Batches,
    Losses,
    Recipe,
    RunFolder,
    State,
    fit,
    plain_step,
)

Weights = dict[str, Tensor]
MakeNetwork = Callable[..., Network]
PROGRAM = Path(__file__).with_name("accumulating_worker.py")
# Of the five batches of an epoch four make two steps, and one is left out; four steps in all.
RECIPE = Recipe(
    epochs=1,
    warmup_epochs=1,
    batch_size=16,
    lr=0.05,
    weight_decay=0.01,
    label_smoothing=0.2,
    accumulate=2,
)
STEPS = 4
# From the rate of one batch to that of two over the first epoch, then half a cosine.
RATES = (0.075, 0.1, 0.1, 0.05)


class Doubled:
    """The same batches in float64, in which a loop by hand can be followed closely."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for images, labels in self._batches.epoch(epoch, start):
            yield images.double(), labels


@pytest.fixture(scope="module")
def doubled(batches: Batches) -> Batches:
    assert len(batches) == 5
    return cast(Batches, Doubled(batches))


def _parts(batches: Batches) -> list[list[Batch]]:
    """The batches of each of the four steps."""
    epochs = [list(batches.epoch(epoch)) for epoch in (0, 1)]
    return [epoch[first : first + 2] for epoch in epochs for first in (0, 2)]


def _weights(net: Network) -> Weights:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def _mean(gradients: list[Weights]) -> Weights:
    return {name: sum(g[name] for g in gradients) / len(gradients) for name in gradients[0]}


def _assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


ByHand = Callable[..., tuple[Weights, Weights]]


@pytest.fixture(scope="session")
def by_hand(hand_sgd: Callable[..., Any], gradients_of: Callable[..., Weights]) -> ByHand:
    """The weights after the four steps, and their moving average; `clip` bounds the norm of the
    mean gradient."""

    def train(net: Network, batches: Batches, clip: float = math.inf) -> tuple[Weights, Weights]:
        reference = hand_sgd(net, RECIPE)
        average: Weights = {}
        for parts, rate in zip(_parts(batches), RATES, strict=True):
            gradients = _mean([gradients_of(net, reference.weights, part, 0.2) for part in parts])
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
            scale = min(1.0, clip / (norm + 1e-6))
            reference.step({name: g * scale for name, g in gradients.items()}, rate)
            for name, weight in reference.weights.items():
                before = average.get(name, weight)
                average[name] = 0.8 * before + 0.2 * weight
        return reference.weights, average

    return train


def test_two_batches_a_step_equal_a_loop_by_hand(
    micro: Architecture,
    make_network: MakeNetwork,
    doubled: Batches,
    run: RunFolder,
    by_hand: ByHand,
) -> None:
    net = make_network(micro).double()
    expected, _ = by_hand(net, doubled)
    before = _weights(net)
    fit(net, plain_step, doubled, RECIPE, run)
    _assert_close(_weights(net), expected)
    assert all(not torch.equal(before[name], weight) for name, weight in expected.items())
    assert [(row["step"], row["epoch"], row["lr"]) for row in run.metrics()] == [
        (2, 1, pytest.approx(RATES[1])),
        (4, 2, pytest.approx(RATES[3])),
    ]


def test_clipping_and_the_moving_average_are_once_a_step(
    micro: Architecture,
    make_network: MakeNetwork,
    doubled: Batches,
    run: RunFolder,
    by_hand: ByHand,
) -> None:
    net = make_network(micro).double()
    clipped, average = by_hand(net, doubled, 0.2)
    unclipped, _ = by_hand(net, doubled)
    recipe = RECIPE.model_copy(update={"clip_norm": 0.2, "ema": 0.8})
    result = fit(net, plain_step, doubled, recipe, run)
    _assert_close(_weights(net), clipped)
    _assert_close(_weights(result), average)
    # Neither is without effect.
    for other in (unclipped, average):
        assert max(float((other[name] - w).abs().max()) for name, w in clipped.items()) > 1e-3


def test_losses_are_means_over_the_batches_of_a_step(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """And those of an epoch over its steps."""

    def numbered(net: Network, batch: Batch, state: State) -> Losses:
        plain_step(net, batch, state)
        state.observe("part", torch.tensor(float(state.part)))
        return {"batch": torch.tensor(float(state.batch))}

    seen: list[dict[str, float]] = []

    def watch(done: int, steps: int, values: Mapping[str, float]) -> None:
        assert steps == STEPS
        seen.append(dict(values))

    fit(make_network(micro), numbered, batches, RECIPE, run, watch=watch)
    assert [(v["loss_batch"], v["part"]) for v in seen] == [(0.5, 0.5), (2.5, 0.5)] * 2
    assert [(row["loss_batch"], row["part"]) for row in run.metrics()] == [(1.5, 0.5)] * 2


def test_a_step_knows_which_batch_is_running(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """Every epoch begins with its first batch, though the last one's was left out. All batches of
    a step draw the same sub-networks, and noise of their own."""
    seen, drawn, noises = [], [], []
    picture = torch.ones(4, 1, 28, 28)

    def look(net: Network, batch: Batch, state: State) -> Losses:
        expected = list(batches.epoch(state.epoch))[state.batch]
        assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))
        seen.append((state.epoch, state.step, state.part, state.batch, state.epoch_begins))
        drawn.append(state.rng.random())
        with torch.no_grad():
            noises.append(state.outputs(net, picture, noise=Noise(dropout=0.5)).logits)
        return plain_step(net, batch, state)

    # Too slow a rate to move anything.
    recipe = RECIPE.model_copy(update={"lr": 1e-30, "weight_decay": 0.0})
    fit(make_network(micro), look, batches, recipe, run)
    assert seen == [
        (0, 0, 0, 0, True),
        (0, 0, 1, 1, False),
        (0, 1, 0, 2, False),
        (0, 1, 1, 3, False),
        (1, 2, 0, 0, True),
        (1, 2, 1, 1, False),
        (1, 3, 0, 2, False),
        (1, 3, 1, 3, False),
    ]
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) == STEPS
    assert all(
        not torch.equal(one, other) for i, one in enumerate(noises) for other in noises[i + 1 :]
    )


class Stop(Exception):
    """The end of the machine that trained."""


class Counting:
    """The plain step; `begun` are the numbers of the steps whose batches it was given. Stops at
    the batch `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.begun: list[int] = []
        self._stop = stop

    def __call__(self, net: Network, batch: Batch, state: State) -> Losses:
        if len(self.begun) == self._stop:
            raise Stop
        self.begun.append(state.step)
        return plain_step(net, batch, state)


@pytest.mark.parametrize(("stop", "done"), [(1, 0), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_a_run_that_stops_in_the_middle_resumes_to_the_same_weights(
    stop: int,
    done: int,
    micro: Architecture,
    make_network: MakeNetwork,
    batches: Batches,
    tmp_path: Path,
) -> None:
    """Stopped in a step, or between two: what was done of a step is done again, in the middle of
    an epoch too."""
    recipe = RECIPE.model_copy(update={"checkpoint_every": 1, "ema": 0.8})
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    expected = fit(make_network(micro), plain_step, batches, recipe, whole)
    with pytest.raises(Stop):
        fit(make_network(micro), Counting(stop), batches, recipe, broken)
    assert max((int(p.stem[5:]) for p in broken.checkpoints.glob("*.json")), default=0) == done

    # Another network, to see that all comes from the checkpoint, where there is one.
    net, step = make_network(micro, 1 if done else 0), Counting()
    found = fit(net, step, batches, recipe, broken, resume=True)
    assert step.begun == [number for number in range(done, STEPS) for _ in range(2)]
    for name, weight in _weights(expected).items():
        assert torch.equal(weight, _weights(found)[name]), name
    losses = [[row["loss_target"] for row in run.metrics()] for run in (whole, broken)]
    assert losses[0] == losses[1]


def test_a_step_that_is_longer_than_an_epoch_is_refused(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    recipe = RECIPE.model_copy(update={"accumulate": 6})
    with pytest.raises(
        ValueError, match=r"^train.accumulate must be at most the 5 batches of an epoch, but got 6$"
    ):
        fit(make_network(micro), plain_step, batches, recipe, run)
    assert not run.metrics()
    recipe = RECIPE.model_copy(update={"accumulate": 5, "warmup_epochs": 0})
    fit(make_network(micro), plain_step, batches, recipe, run)
    assert [row["step"] for row in run.metrics()] == [1]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers that each take two batches a step have left their weights."""
    folder = tmp_path_factory.mktemp("workers")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("together", "batch_size", "accumulate", "rate"),
    [("synchronised", 16, 2, 0.04), ("apart", 8, 4, 0.02)],
)
def test_two_workers_of_two_batches_equal_one_of_two_or_four(
    together: str, batch_size: int, accumulate: int, rate: float, workers: Path, tmp_path: Path
) -> None:
    """With batch norm over both workers, a batch of one process is twice as large."""
    train = runpy.run_path(str(PROGRAM))["train"]
    expected = train(tmp_path / "alone", batch_size=batch_size, accumulate=accumulate, lr=rate)
    for rank in (0, 1):
        found = safetensors.torch.load_file(workers / f"{together}-{rank}.safetensors")
        for name, weight in _weights(expected).items():
            torch.testing.assert_close(found[name], weight, rtol=1e-9, atol=1e-11, msg=name)
