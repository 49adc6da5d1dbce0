"""The help of a candidate's gradient, against loss decreases that are measured by stepping."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from nasaug.search import Helpfulness
from nasaug.supernet import Architecture, Network, SearchSpace
from nasaug.training import Batch

SMOOTHING = 0.1


def _batch(seed: int, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (size,), generator=generator)


TRAINING, VALIDATION = [_batch(1), _batch(2), _batch(3)], [_batch(11), _batch(12), _batch(13)]


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Network:
    return Network(space.largest, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def candidates(space: SearchSpace) -> list[Architecture]:
    rng = random.Random(0)
    return [space.target, space.sample(rng), space.sample(rng), space.largest]


@pytest.fixture(scope="module")
def judge(supernet: Network, space: SearchSpace) -> Helpfulness:
    return Helpfulness(supernet, space.target, TRAINING, VALIDATION, 3, SMOOTHING)


def _decreases(net: Network, target: Architecture, arch: Architecture) -> NDArray[np.float64]:
    """[k, b]: what a step along the gradient of training batch b takes from the target's loss on
    validation batch k, per unit of learning rate, by central differences.

    The gradient is that of all weights, left behind by `backward`; the target is an export.
    """
    epsilon, found = 1e-8, np.zeros((len(VALIDATION), len(TRAINING)))
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for b, (images, labels) in enumerate(TRAINING):
        stepped = Network(net.arch, init=None).double().train()
        stepped.load_state_dict(weights)
        loss = F.cross_entropy(stepped(images, arch), labels, label_smoothing=SMOOTHING)
        loss.backward()
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for name, parameter in stepped.named_parameters():
                    gradient = 0.0 if parameter.grad is None else parameter.grad
                    parameter.copy_(weights[name] - sign * epsilon * gradient)
                alone = stepped.export(target)
                for k, (shown, wanted) in enumerate(VALIDATION):
                    after = float(F.cross_entropy(alone(shown), wanted))
                    found[k, b] -= sign * after / (2 * epsilon)
    return found


@pytest.mark.parametrize("index", range(4))
def test_help_is_the_loss_that_a_small_step_takes_away(
    index: int,
    judge: Helpfulness,
    supernet: Network,
    space: SearchSpace,
    candidates: list[Architecture],
) -> None:
    arch = candidates[index]
    decreases = _decreases(supernet, space.target, arch)
    measured = judge.measure(arch)
    assert measured.mean == pytest.approx(decreases.mean(), rel=1e-5)
    assert judge(arch) == measured.mean
    noise = decreases.mean(1).var(ddof=1) / 3 + decreases.mean(0).var(ddof=1) / 3
    assert measured.standard_error == pytest.approx(math.sqrt(noise), rel=1e-3)
    assert measured.batches == 3
    # The reference tells the candidates apart, or it would be no reference.
    assert abs(decreases.mean() - judge(candidates[index - 1])) > 1e-3 * abs(decreases.mean())


def test_standard_error_is_the_spread_over_other_batches(
    supernet: Network, space: SearchSpace
) -> None:
    values, errors = [], []
    for repeat in range(24):
        batches = [_batch(100 + 8 * repeat + index, 4) for index in range(8)]
        judge = Helpfulness(supernet, space.target, batches[:4], batches[4:], 4)
        measured = judge.measure(space.target)
        values.append(measured.mean)
        errors.append(measured.standard_error)
    spread = float(np.std(values, ddof=1))
    assert 0.6 * spread < math.sqrt(float(np.mean(np.square(errors)))) < 1.8 * spread


def test_of_the_target_itself_on_its_own_batch_it_is_the_squared_gradient(
    supernet: Network, space: SearchSpace
) -> None:
    images, labels = TRAINING[0]
    alone = supernet.export(space.target).train()
    F.cross_entropy(alone(images), labels).backward()
    squared = sum(float((p.grad**2).sum()) for p in alone.parameters() if p.grad is not None)
    batches = [TRAINING[0]] * 2
    plain = Helpfulness(supernet, space.target, batches, batches, 2).measure(space.target)
    assert plain.mean == pytest.approx(squared, rel=1e-9)
    cosine = Helpfulness(supernet, space.target, batches, batches, 2, cosine=True)
    assert cosine(space.target) == pytest.approx(1.0)
    assert plain.standard_error == pytest.approx(0.0, abs=1e-9 * squared)


def _alone(net: Network, arch: Architecture, target: Architecture, batch: Batch) -> torch.Tensor:
    """The gradient by the target's weights only, by cutting it out of the gradients as weights."""
    cut = Network(net.arch, init=None).double().train()
    cut.load_state_dict(net.state_dict())
    F.cross_entropy(cut(batch[0], arch), batch[1]).backward()
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    return torch.cat([p.detach().flatten() for p in cut.export(target).parameters()])


def test_cosine_compares_directions_on_the_shared_weights(
    supernet: Network, space: SearchSpace, candidates: list[Architecture]
) -> None:
    judge = Helpfulness(supernet, space.target, TRAINING, VALIDATION, 2, cosine=True)
    arch, target = candidates[1], space.target
    cosines = [
        float(
            F.cosine_similarity(
                _alone(supernet, target, target, shown), _alone(supernet, arch, target, seen), 0
            )
        )
        for shown in VALIDATION[:2]
        for seen in TRAINING[:2]
    ]
    assert judge(arch) == pytest.approx(float(np.mean(cosines)), rel=1e-9)
    assert 0 < abs(judge(arch)) < 1


@pytest.mark.parametrize("training", [True, False])
def test_judging_changes_nothing(
    training: bool, supernet: Network, space: SearchSpace, candidates: list[Architecture]
) -> None:
    supernet.train(training)
    parameters = list(supernet.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    try:
        judge = Helpfulness(supernet, space.target, TRAINING, VALIDATION, 2)
        first = judge.measure(candidates[2])
        judge(candidates[3])
        assert judge.measure(candidates[2]) == first
        assert supernet.training == training
        assert torch.equal(parameters[0].grad, torch.ones_like(parameters[0]))
        assert all(parameter.grad is None for parameter in parameters[1:])
    finally:
        parameters[0].grad = None
    after = supernet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batches_are_taken_once_and_only_as_many_as_asked(
    supernet: Network, space: SearchSpace, candidates: list[Architecture]
) -> None:
    def once(batches: list[Batch]) -> Iterator[Batch]:
        yield from batches[:2]
        raise AssertionError("a third batch was taken")

    judge = Helpfulness(supernet, space.target, once(TRAINING), once(VALIDATION), 2)
    again = Helpfulness(supernet, space.target, TRAINING, VALIDATION, 2)
    for arch in candidates[:2]:
        assert judge(arch) == again(arch)


def test_too_few_pairs_or_batches_are_refused(supernet: Network, space: SearchSpace) -> None:
    with pytest.raises(ValueError, match=r"pairs must be at least 2 .* but got 1"):
        Helpfulness(supernet, space.target, TRAINING, VALIDATION, 1)
    with pytest.raises(ValueError, match="4 pairs needs 4 training batches, but there are 3"):
        Helpfulness(supernet, space.target, TRAINING, VALIDATION, 4)
    with pytest.raises(ValueError, match="needs 3 validation batches, but there are 2; take fewer"):
        Helpfulness(supernet, space.target, TRAINING, VALIDATION[:2], 3)


def test_networks_outside_the_supernet_are_refused(supernet: Network, space: SearchSpace) -> None:
    small = supernet.export(space.target)
    judge = Helpfulness(small, space.target, TRAINING, VALIDATION, 2)
    with pytest.raises(ValueError, match="does not contain"):
        judge(space.largest)
    outside = Helpfulness(small, space.largest, TRAINING, VALIDATION, 2)
    with pytest.raises(ValueError, match="does not contain"):
        outside(space.target)
