"""The NetAug step: two losses, one set of weights, and what it does when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug import Augmentation, NetAugOptions, netaug_step
from nasaug.supernet import Architecture, Network, Output, Skip, embed, sort_channels
from nasaug.training import (
    Batch,
    Recipe,
    RunFolder,
    State,
    View,
    evaluation_batches,
    fit,
    load_dataset,
    training_batches,
)

MakeState = Callable[..., State]
Weights = dict[str, Tensor]
UNSORTED = NetAugOptions(sort_channels=False)


class Listening:
    """A network that records what it is asked to run, and answers with a weight of its own."""

    def __init__(self) -> None:
        self.weight = torch.zeros(10, requires_grad=True)
        self.run: list[Architecture] = []

    def outputs(self, images: Tensor, sub: Architecture) -> Output:
        self.run.append(sub)
        return Output(self.weight.expand(len(images), 10), images.flatten(1))


def _pairs(
    augmentation: Augmentation,
    batch: Batch,
    make_state: MakeState,
    steps: range,
    seed: int = 0,
    options: NetAugOptions = UNSORTED,
) -> list[tuple[Architecture, Architecture]]:
    """What the given steps of a run would train: the target, which comes last, and the helper."""
    listening, step = Listening(), netaug_step(augmentation, options)
    for index in steps:
        step(listening, batch, make_state(index, seed))  # type: ignore[arg-type]
    return list(zip(listening.run[1::2], listening.run[::2], strict=True))


def _scattered(net: Network, part: Architecture, batch: Batch) -> tuple[float, Weights]:
    """Loss of the exported `part`, and its gradients at their places in `net`, zeros elsewhere.

    Where a weight came from is found by exporting a network whose weights are their own places.
    """
    places = Network(net.arch, init=None).double()
    with torch.no_grad():
        for parameter in places.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter))
    alone = net.export(part)
    loss = F.cross_entropy(alone(batch[0]), batch[1], label_smoothing=0.1)
    loss.backward()
    rows = embed(part, net.arch).rows
    present = [index for index, row in enumerate(rows) if not isinstance(row, Skip)]
    found = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    origins = dict(places.export(part).named_parameters())
    for name, parameter in alone.named_parameters():
        _, index, rest = name.split(".", 2)
        assert parameter.grad is not None
        wide = found[f"blocks.{present[int(index)]}.{rest}"]
        wide.view(-1)[origins[name].detach().long().flatten()] = parameter.grad.flatten()
    return loss.item(), found


@pytest.mark.parametrize("alpha", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("index", [1, 77])
def test_gradients_are_the_targets_and_alpha_times_the_helpers(
    alpha: float,
    index: int,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """In both phases; each network is exported, trained on its own, and scattered back."""
    ((_, helper),) = _pairs(augmentation, batch, make_state, range(index, index + 1))
    target_loss, target = _scattered(net, augmentation.target, batch)
    helper_loss, helping = _scattered(net, helper, batch)
    options = NetAugOptions(alpha=alpha, sort_channels=False)
    losses = netaug_step(augmentation, options)(net, batch, make_state(index))
    assert float(losses["target"]) == pytest.approx(target_loss)
    assert float(losses["helper"]) == pytest.approx(helper_loss)
    assert not any(loss.requires_grad for loss in losses.values())
    for name, parameter in net.named_parameters():
        expected = target[name] + alpha * helping[name]
        found = torch.zeros_like(expected) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert target_loss != helper_loss


def test_target_comes_first_and_then_a_helper_that_contains_it(
    augmentation: Augmentation, micro: Architecture, batch: Batch, make_state: MakeState
) -> None:
    helpers = []
    for first, second in _pairs(augmentation, batch, make_state, range(100)):
        assert first == micro
        assert embed(micro, second)
        assert embed(second, augmentation.largest)
        helpers.append(second)
    assert len(set(helpers)) > 80


@pytest.mark.parametrize(("until", "steps"), [(0.5, 50), (0.0, 0), (1.0, 100), (0.25, 25)])
def test_widths_are_the_targets_in_the_second_phase(
    until: float,
    steps: int,
    augmentation: Augmentation,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """What is inside a block still varies."""
    options = NetAugOptions(width_until=until, sort_channels=False)
    pairs = _pairs(augmentation, batch, make_state, range(100), options=options)
    wider = [
        helper.canonical().widths_in != target.canonical().widths_in for target, helper in pairs
    ]
    assert sum(wider[:steps]) >= 0.9 * steps
    assert not any(wider[steps:])
    assert len({helper for _, helper in pairs[steps:]}) >= 0.5 * (100 - steps)


def test_helpers_are_a_function_of_seed_and_step(
    augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """So that every worker trains the same one, and a resumed run goes on as it would have."""
    first = _pairs(augmentation, batch, make_state, range(60))
    assert _pairs(augmentation, batch, make_state, range(60)) == first
    assert _pairs(augmentation, batch, make_state, range(40, 60)) == first[40:]
    assert _pairs(augmentation, batch, make_state, range(60), seed=1) != first


def _weights(net: Network) -> Weights:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(
    ("index", "until", "wanted", "sorts"),
    [
        (0, 0.5, True, True),
        (40, 0.5, True, True),
        (1, 0.5, True, False),  # not the first step of an epoch
        (50, 0.5, True, False),  # the second phase
        (0, 0.0, True, False),
        (0, 0.5, False, False),
    ],
)
def test_channels_are_sorted_as_an_epoch_of_the_first_phase_begins(
    index: int,
    until: float,
    wanted: bool,
    sorts: bool,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """The step itself changes no weights otherwise; the optimizer does."""
    before = _weights(net)
    options = NetAugOptions(width_until=until, sort_channels=wanted)
    netaug_step(augmentation, options)(net, batch, make_state(index))
    found = _weights(net)
    net.load_state_dict(before)
    sort_channels(net)
    expected = _weights(net) if sorts else before
    assert any(not torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


def test_momentum_and_average_are_sorted_along(
    augmentation: Augmentation, net: Network, batch: Batch, make_state: MakeState
) -> None:
    """Copies of the weights, which have to stay copies."""
    companions: list[Mapping[str, Tensor]] = [_weights(net), _weights(net)]
    before = _weights(net)
    netaug_step(augmentation, NetAugOptions())(net, batch, make_state(0, companions=companions))
    name = "blocks.2.project.weight"
    assert not torch.equal(net.state_dict()[name], before[name])
    for companion in companions:
        assert all(torch.equal(companion[n], p) for n, p in net.named_parameters())


def test_sorting_changes_the_target_and_not_the_whole(
    augmentation: Augmentation, net: Network, batch: Batch, make_state: MakeState
) -> None:
    """The target gets other channels before its loss is taken."""
    with torch.no_grad():
        whole = net(batch[0])
    losses = {
        sorts: netaug_step(augmentation, NetAugOptions(sort_channels=sorts))(
            net, batch, make_state(0)
        )
        for sorts in (False, True)
    }
    with torch.no_grad():
        torch.testing.assert_close(net(batch[0]), whole)
    assert losses[True]["target"] != losses[False]["target"]
    expected, _ = _scattered(net, augmentation.target, batch)
    assert float(losses[True]["target"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": -0.1},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
        {"width_until": -0.1},
        {"width_until": 1.1},
        {"width_until": float("nan")},
        {"sort_channels": "perhaps"},
        {"helpers": 0},
        {"mixing": "median"},
        {"sampling": "smallest"},
        {"helper": 2},
        {"every": 0},
        {"share": 0.0},
        {"start": 1.0},
        {"stop": 0.0},
        {"resolution": 4},
    ],
)
def test_bad_option_is_refused_by_name(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValidationError, match=name):
        NetAugOptions(**values)


def test_training_lowers_the_targets_loss(augmentation: Augmentation, tmp_path: Path) -> None:
    """Four epochs on 360 real images, sorting and both phases included."""
    data = load_dataset("fashion-mnist-mini", validation=0.96)
    assert len(data.train) == 360
    recipe = Recipe(epochs=3, batch_size=24, lr=0.05)
    generator = torch.Generator().manual_seed(0)
    net = Network(augmentation.largest.canonical(), generator=generator)
    batches = training_batches(data, View(28, 1), recipe.batch_size, seed=0)
    run = RunFolder(tmp_path)
    fit(net, netaug_step(augmentation, NetAugOptions()), batches, recipe, run)
    losses = [row["loss_target"] for row in run.metrics()]
    assert len(losses) == 4
    assert losses[-1] < 0.75 * losses[0]
    assert all("loss_helper" in row for row in run.metrics())
    # Of the target alone, too.
    images, labels = next(iter(evaluation_batches(data, data.train, View(28, 1), 360)))
    alone = net.export(augmentation.target)
    with torch.no_grad():
        loss = F.cross_entropy(alone.train()(images), labels)
    assert float(loss) < 0.75 * losses[0]


def test_norms_that_are_separate_have_gradients_of_one_side_only(
    augmentation: Augmentation, net: Network, batch: Batch, make_state: MakeState
) -> None:
    ((_, helper),) = _pairs(augmentation, batch, make_state, range(1, 2))
    target = _scattered(net, augmentation.target, batch)[1]
    helping = _scattered(net, helper, batch)[1]
    net.separate_norms(augmentation.target)
    netaug_step(augmentation, UNSORTED)(net, batch, make_state(1))
    for name, parameter in net.named_parameters():
        if ".own_norm." in name:
            expected = target[name.replace(".own_norm.", ".norm.")]
        else:
            expected = helping[name] + (0 if ".norm." in name else target[name])
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-12)
