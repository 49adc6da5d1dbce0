"""The training loop, step by step against loops written by hand."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from nasaug.supernet import Architecture, Bits, Network, SearchSpace, sort_channels
from nasaug.training import (
    Batch,
    Batches,
    Dataset,
    Losses,
    Recipe,
    RunFolder,
    State,
    TrainingFailed,
    View,
    fit,
    plain_step,
    training_batches,
)
from nasaug.training.distributed import ALONE, Workers
from nasaug.training.fit import _replays
from nasaug.training.recipe import learning_rate

Weights = dict[str, Tensor]
GradientsOf = Callable[..., Weights]
MakeNetwork = Callable[..., Network]
# Five steps an epoch, ten in all; decay and smoothing are large enough to be seen.
RECIPE = Recipe(
    epochs=1, warmup_epochs=1, batch_size=16, lr=0.1, weight_decay=0.01, label_smoothing=0.2
)


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
    return cast(Batches, Doubled(batches))


def _steps(batches: Batches) -> list[Batch]:
    """The batches of two epochs, which is all that RECIPE asks for."""
    return [*batches.epoch(0), *batches.epoch(1)]


def _weights(net: Network) -> Weights:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def _assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_plain_training_equals_a_loop_by_hand(
    micro: Architecture,
    make_network: MakeNetwork,
    doubled: Batches,
    run: RunFolder,
    hand_sgd: Callable[..., Any],
    gradients_of: GradientsOf,
) -> None:
    net = make_network(micro).double()
    reference = hand_sgd(net, RECIPE)
    before = _weights(net)
    for step, batch in enumerate(_steps(doubled)):
        gradients = gradients_of(net, reference.weights, batch, 0.2)
        rate = 0.02 * (step + 1) if step < 5 else 0.05 * (1 + math.cos(math.pi * (step - 5) / 5))
        reference.step(gradients, rate)
    result = fit(net, plain_step, doubled, RECIPE, run)
    assert result is net
    _assert_close(_weights(net), reference.weights)
    assert all(not torch.equal(before[name], tensor) for name, tensor in _weights(net).items())


def test_unused_weights_decay_and_coast_as_in_full_size_sgd(
    micro: Architecture,
    micro_space: SearchSpace,
    make_network: MakeNetwork,
    doubled: Batches,
    run: RunFolder,
    hand_sgd: Callable[..., Any],
    gradients_of: GradientsOf,
) -> None:
    """Steps train the whole and the target in turn; what the target lacks gets zero gradients."""
    net = make_network(micro_space.largest).double()
    reference = hand_sgd(net, RECIPE)

    def part(step: int) -> Architecture | None:
        return micro if step % 2 else None

    for step, batch in enumerate(_steps(doubled)):
        gradients = gradients_of(net, reference.weights, batch, 0.2, part(step))
        reference.step(gradients, learning_rate(RECIPE, step, 5))

    def alternate(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        for parameter in net.parameters():
            assert parameter.grad is not None and not parameter.grad.any()
        loss = state.loss(net(images, part(state.step)), labels)
        loss.backward()
        return {"loss": loss.detach()}

    fit(net, alternate, doubled, RECIPE, run)
    _assert_close(_weights(net), reference.weights)


def test_unused_weights_keep_a_gradient_of_zeros(
    micro: Architecture,
    micro_space: SearchSpace,
    make_network: MakeNetwork,
    batches: Batches,
    run: RunFolder,
) -> None:
    net = make_network(micro_space.largest)
    shrunk = 0

    def target_only(net: Network, batch: Batch, state: State) -> Losses:
        nonlocal shrunk
        images, labels = batch
        loss = state.loss(net(images, micro), labels)
        loss.backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.shape == parameter.shape
            shrunk += int((parameter.grad == 0).sum() > parameter.numel() // 3)
        return {"target": loss.detach()}

    fit(net, target_only, batches, RECIPE, run)
    assert shrunk > 0


def test_moving_average_equals_one_by_hand(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """It starts as the weights after the first step, and is what training returns."""
    net = make_network(micro)
    average: Weights = {}

    def follow(*_: object) -> None:
        for name, weight in _weights(net).items():
            average[name] = 0.8 * average[name] + 0.2 * weight if name in average else weight

    validated: list[Weights] = []

    def validate(weights: Network, progress: float) -> dict[str, float]:
        validated.append(_weights(weights))
        return {}

    recipe = RECIPE.model_copy(update={"ema": 0.8})
    result = fit(net, plain_step, batches, recipe, run, watch=follow, validate=validate)
    _assert_close(_weights(result), average)
    _assert_close(validated[-1], average)
    gap = max(float((average[name] - w).abs().max()) for name, w in _weights(net).items())
    assert gap > 1e-3


def test_moving_average_leaves_training_alone(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, tmp_path: Path
) -> None:
    plain, averaged = make_network(micro), make_network(micro)
    fit(plain, plain_step, batches, RECIPE, RunFolder(tmp_path / "a"))
    recipe = RECIPE.model_copy(update={"ema": 0.5})
    fit(averaged, plain_step, batches, recipe, RunFolder(tmp_path / "b"))
    for name, weight in _weights(plain).items():
        assert torch.equal(weight, _weights(averaged)[name])


@pytest.mark.parametrize("ema", [None, 0.8])
def test_momentum_and_average_move_along_when_channels_are_sorted(
    ema: float | None,
    micro: Architecture,
    make_network: MakeNetwork,
    doubled: Batches,
    tmp_path: Path,
) -> None:
    """Training the whole, it makes no difference to what is computed, before or after."""
    recipe = RECIPE.model_copy(update={"ema": ema})
    images = next(iter(doubled.epoch(5)))[0]
    found, moved = [], 0

    def sort_and_train(net: Network, batch: Batch, state: State) -> Losses:
        nonlocal moved
        before = _weights(net)
        sort_channels(net, state.companions())
        moved += any(not torch.equal(before[name], w) for name, w in _weights(net).items())
        return plain_step(net, batch, state)

    for step in (plain_step, sort_and_train):
        net = make_network(micro).double()
        result = fit(net, step, doubled, recipe, RunFolder(tmp_path / step.__name__))
        with torch.no_grad():
            found.append(result.train()(images))
    assert moved > 3
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_by_their_norm_over_all_parameters(
    micro: Architecture,
    make_network: MakeNetwork,
    doubled: Batches,
    run: RunFolder,
    hand_sgd: Callable[..., Any],
    gradients_of: GradientsOf,
) -> None:
    net = make_network(micro).double()
    reference = hand_sgd(net, RECIPE)
    clipped = 0
    for step, batch in enumerate(_steps(doubled)):
        gradients = gradients_of(net, reference.weights, batch, 0.2)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        clipped += norm > 0.5
        scale = min(1.0, 0.5 / (norm + 1e-6))
        reference.step({n: g * scale for n, g in gradients.items()}, learning_rate(RECIPE, step, 5))
    assert clipped > 0
    fit(net, plain_step, doubled, RECIPE.model_copy(update={"clip_norm": 0.5}), run)
    _assert_close(_weights(net), reference.weights)


def test_loss_that_is_not_finite_stops_training(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    def explode(net: Network, batch: Batch, state: State) -> Losses:
        losses = plain_step(net, batch, state)
        return {"target": losses["target"] * (math.inf if state.step == 6 else 1)}

    with pytest.raises(TrainingFailed, match=r"of target became inf at step 7: the learning rate"):
        fit(make_network(micro), explode, batches, RECIPE, run)
    assert [row["step"] for row in run.metrics()] == [5]


def test_learning_rate_that_is_too_high_stops_training(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    recipe = Recipe(epochs=8, batch_size=16, lr=100, weight_decay=1, warmup_epochs=0)
    with pytest.raises(TrainingFailed, match=r"became nan at step \d+: the learning rate of"):
        fit(make_network(micro), plain_step, batches, recipe, run)


def test_images_that_are_not_finite_are_named_as_the_cause(
    micro: Architecture,
    make_network: MakeNetwork,
    make_noise: Callable[..., Dataset],
    run: RunFolder,
) -> None:
    data = replace(make_noise(80, classes=10), mean=(math.nan,))
    batches = training_batches(data, View(28, 1), 16, seed=0)
    with pytest.raises(TrainingFailed, match="became nan at step 1: the images of that batch"):
        fit(make_network(micro), plain_step, batches, RECIPE, run)


def test_bf16_on_a_cpu_stays_near_float32(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, tmp_path: Path
) -> None:
    """Mean losses of two epochs within a percent, and yet other weights, which stay float32."""
    trained, losses = {}, {}
    for amp in ("off", "bf16"):
        net, run = make_network(micro), RunFolder(tmp_path / amp)
        fit(net, plain_step, batches, RECIPE.model_copy(update={"amp": amp}), run)
        assert all(p.dtype == torch.float32 for p in net.parameters())
        trained[amp] = _weights(net)["blocks.0.conv.weight"]
        losses[amp] = [row["loss_target"] for row in run.metrics()]
    assert not torch.equal(trained["off"], trained["bf16"])
    assert losses["bf16"] == pytest.approx(losses["off"], rel=0.01)


def test_training_learns(
    clothes: Dataset, make_network: MakeNetwork, micro: Architecture, run: RunFolder
) -> None:
    """Three epochs on 480 images lower the loss well below chance, ln 10."""
    batches = training_batches(clothes, View(28, 1), 32, seed=0)
    recipe = Recipe(epochs=3, batch_size=32, lr=0.1, label_smoothing=0)
    fit(make_network(micro), plain_step, batches, recipe, run)
    losses = [row["loss_target"] for row in run.metrics()]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * math.log(10)


def test_a_run_is_resumed_as_it_was_begun(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """Another number of steps would be another schedule."""
    fit(make_network(micro), plain_step, batches, RECIPE, run)
    longer = RECIPE.model_copy(update={"epochs": RECIPE.epochs + 1})
    with pytest.raises(ValueError, match=r"was begun with \d+ steps, and now there would be \d+"):
        fit(make_network(micro), plain_step, batches, longer, run, resume=True)


def test_batches_of_a_step_are_taken_one_at_a_time(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """So that accumulation does not hold them all."""
    alive: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    def step(net: Network, batch: Batch, state: State) -> Losses:
        made.append(weakref.ref(batch[0]))
        alive.append(sum(reference() is not None for reference in made))
        return plain_step(net, batch, state)

    recipe = RECIPE.model_copy(update={"accumulate": len(batches), "epochs": 1})
    fit(make_network(micro), step, batches, recipe, run)
    assert len(alive) >= 2 * len(batches) and max(alive) <= 2


@pytest.mark.parametrize(
    ("graphs", "device", "group", "bits"),
    [
        ("off", "cuda", ALONE, None),
        (None, "cpu", ALONE, None),
        (None, "cuda", Workers(rank=0, size=2), None),
        (None, "cuda", ALONE, Bits()),
    ],
)
def test_recordings_are_of_one_worker_on_a_gpu(
    graphs: Literal["off"] | None,
    device: str,
    group: Workers,
    bits: Bits | None,
    make_network: MakeNetwork,
    micro: Architecture,
) -> None:
    """And of a network that does not round."""
    net = make_network(micro)
    net.round_to(bits)
    assert _replays(net, Recipe(graphs=graphs), torch.device(device), group) is None


def test_a_step_inside_fit_has_cuts(
    clothes: Dataset, make_network: MakeNetwork, micro: Architecture, run: RunFolder
) -> None:
    seen: list[bool] = []

    def step(net: Network, batch: Batch, state: State) -> Losses:
        seen.append(state.cuts is not None)
        return plain_step(net, batch, state)

    batches = training_batches(clothes, View(28, 1), 240, seed=0)
    fit(make_network(micro), step, batches, Recipe(epochs=1, batch_size=240), run)
    assert all(seen) and seen
