"""Training the supernet a path at a time, and judging a candidate by what it inherits."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.search import InheritedAccuracy, single_path_step
from nasaug.supernet import Architecture, Network, SearchSpace, Skip, embed
from nasaug.training import Batch, Recipe, State, evaluate, reestimate_batch_norm

RECIPE = Recipe(label_smoothing=0.1)


def _state(step: int, seed: int = 0) -> State:
    return State(RECIPE, step, 100, 10, seed, nullcontext, list)


def _batch(seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (size,), generator=generator)


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Network:
    return Network(space.largest, generator=torch.Generator().manual_seed(0)).double()


def _gradients(net: Network) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


def _scattered(net: Network, path: Architecture, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the exported path at their places in `net`, zeros elsewhere.

    Where a weight came from is found by exporting a network whose weights are their own places.
    """
    places = Network(net.arch, init=None).double()
    with torch.no_grad():
        for parameter in places.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter))
    rows = embed(path, net.arch).rows
    present = [index for index, row in enumerate(rows) if not isinstance(row, Skip)]
    found = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for name, origin in places.export(path).named_parameters():
        _, index, rest = name.split(".", 2)
        wide = found[f"blocks.{present[int(index)]}.{rest}"]
        wide.view(-1)[origin.detach().long().flatten()] = gradients[name].flatten()
    return found


@pytest.mark.parametrize("step", [0, 1, 7])
def test_step_trains_the_drawn_path_as_a_network_of_its_own(
    step: int, space: SearchSpace, supernet: Network
) -> None:
    state, batch = _state(step), _batch()
    path = space.sample(random.Random(f"0/step/{step}"))
    supernet.train().zero_grad()
    losses = single_path_step(space)(supernet, batch, state)
    alone = supernet.export(path)
    alone.zero_grad()
    loss = F.cross_entropy(alone(batch[0]), batch[1], label_smoothing=0.1)
    loss.backward()
    expected = _scattered(supernet, path, _gradients(alone))
    assert losses.keys() == {"path"}
    torch.testing.assert_close(losses["path"], loss.detach())
    assert not losses["path"].requires_grad
    for name, gradient in _gradients(supernet).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)
    assert any((gradient == 0).any() for gradient in expected.values())


def _paths(space: SearchSpace, supernet: Network, seed: int) -> list[tuple[int, ...]]:
    """Which parameters each of twelve steps touches: a trace of the paths drawn."""
    step, touched = single_path_step(space), []
    for index in range(12):
        supernet.train().zero_grad()
        step(supernet, _batch(size=2), _state(index, seed))
        gradients = _gradients(supernet).values()
        touched.append(tuple(int((g != 0).sum()) for g in gradients if g.ndim == 4))
    return touched


def test_paths_are_a_function_of_the_seed_and_the_step(
    space: SearchSpace, supernet: Network
) -> None:
    first = _paths(space, supernet, seed=1)
    assert _paths(space, supernet, seed=1) == first
    assert _paths(space, supernet, seed=2) != first
    assert len(set(first)) == 12


def test_inherited_accuracy_is_that_of_the_reestimated_export(
    space: SearchSpace, supernet: Network
) -> None:
    calibration, validation = [_batch(1, 16), _batch(2, 16)], [_batch(3, 64), _batch(4, 30)]
    judge = InheritedAccuracy(supernet, calibration, validation)
    rng = random.Random(0)
    found = []
    for arch in (space.target, space.sample(rng), space.largest):
        candidate = supernet.export(arch)
        reestimate_batch_norm(candidate, calibration)
        found.append(judge(arch))
        assert found[-1] == evaluate(candidate, validation)["top1"]
        # The same again, whatever was judged in between.
        assert judge(arch) == found[-1]
    assert len(set(found)) > 1


@pytest.mark.parametrize("training", [True, False])
def test_judging_leaves_the_supernet_alone(
    training: bool, space: SearchSpace, supernet: Network
) -> None:
    supernet.train(training)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    judge = InheritedAccuracy(supernet, [_batch(1)], [_batch(2)])
    judge(space.target)
    judge(space.largest)
    assert supernet.training == training
    after = supernet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
