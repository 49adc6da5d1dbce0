"""Judging a network: batch-norm statistics and scores against their definitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nasaug.supernet import Architecture, ElasticNorm, Network, SearchSpace, load_target
from nasaug.training import (
    Batch,
    Dataset,
    Losses,
    Recipe,
    RunFolder,
    State,
    View,
    calibration_batches,
    evaluate,
    evaluation_batches,
    fit,
    reestimate_batch_norm,
    training_batches,
)

MakeNetwork = Callable[..., Network]


def _batches(sizes: tuple[int, ...], classes: int = 10) -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(size, 1, 28, 28, generator=generator) * scale + scale,
            torch.randint(0, classes, (size,), generator=generator),
        )
        for scale, size in enumerate(sizes, 1)
    ]


def _weights(net: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def _norms(net: Network) -> dict[str, ElasticNorm]:
    return {name: m for name, m in net.named_modules() if isinstance(m, ElasticNorm)}


def test_statistics_are_means_over_the_batches(
    micro: Architecture, make_network: MakeNetwork
) -> None:
    """Of each batch's mean and unbiased variance, of whatever a norm reads; batches count alike."""
    net, batches = make_network(micro), _batches((8, 16, 4))
    read: dict[str, list[Tensor]] = defaultdict(list)
    reader = make_network(micro).train()
    for name, norm in _norms(reader).items():
        norm.register_forward_pre_hook(lambda _, args, name=name: read[name].append(args[0]))
    with torch.no_grad():
        for images, _ in batches:
            reader(images)
    assert reestimate_batch_norm(net, batches) == 28
    for name, norm in _norms(net).items():
        inputs = [x.double().transpose(0, 1).flatten(1).numpy() for x in read[name]]
        mean = np.mean([x.mean(1) for x in inputs], axis=0)
        variance = np.mean([x.var(1, ddof=1) for x in inputs], axis=0)
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_reestimation_changes_nothing_but_statistics(
    micro: Architecture, make_network: MakeNetwork, training: bool
) -> None:
    net = make_network(micro).train(training)
    before = _weights(net)
    reestimate_batch_norm(net, _batches((8,)))
    for name, tensor in _weights(net).items():
        assert torch.equal(tensor, before[name]) == ("running" not in name)
    assert net.training == training
    assert all(norm.momentum is None for norm in _norms(net).values())


def test_reestimation_forgets_earlier_statistics(
    micro: Architecture, make_network: MakeNetwork
) -> None:
    net = make_network(micro)
    reestimate_batch_norm(net, _batches((8, 8)))
    once = _weights(net)
    for norm in _norms(net).values():
        norm.running_mean.fill_(77)
        norm.running_var.fill_(77)
    reestimate_batch_norm(net, _batches((8, 8)))
    assert all(torch.equal(once[name], tensor) for name, tensor in _weights(net).items())


def test_reestimation_without_batches_is_refused(
    micro: Architecture, make_network: MakeNetwork
) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        reestimate_batch_norm(make_network(micro), [])


def test_network_can_be_trained_after_reestimation(
    micro: Architecture, make_network: MakeNetwork
) -> None:
    """It ran in inference mode, whose tensors take no part in gradients."""
    net = make_network(micro).train()
    reestimate_batch_norm(net, _batches((8,)))
    evaluate(net, _batches((8,)))
    net(_batches((8,))[0][0]).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("classes", [2, 4, 5, 10])
def test_scores_equal_their_definitions_in_numpy(classes: int, make_network: MakeNetwork) -> None:
    """Over images, not batches: these are of unequal sizes. With few classes top-5 is certain."""
    net = make_network(load_target("micro_10k", classes, in_channels=1))
    batches = _batches((40, 7), classes)
    reestimate_batch_norm(net, batches)
    with torch.no_grad():
        logits = torch.cat([net.eval()(x) for x, _ in batches]).double().numpy()
    labels = torch.cat([y for _, y in batches]).numpy()
    own = logits[np.arange(47), labels]
    better = (logits > own[:, None]).sum(1)
    losses = np.log(np.exp(logits).sum(1)) - own
    expected = {"top1": (better < 1).mean(), "top5": (better < 5).mean(), "loss": losses.mean()}
    assert evaluate(net, batches) == pytest.approx(expected)
    assert (expected["top5"] == 1) == (classes <= 5)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_nothing(
    micro: Architecture, make_network: MakeNetwork, training: bool
) -> None:
    net = make_network(micro).train(training)
    before = _weights(net)
    scores = evaluate(net, _batches((8,)))
    assert net.training == training
    assert all(torch.equal(before[name], tensor) for name, tensor in _weights(net).items())
    assert evaluate(net.eval(), _batches((8,))) == scores


def test_evaluation_without_batches_is_refused(
    micro: Architecture, make_network: MakeNetwork
) -> None:
    with pytest.raises(ValueError, match="not one image"):
        evaluate(make_network(micro), [])


def test_sub_network_needs_reestimation(
    clothes: Dataset,
    micro: Architecture,
    micro_space: SearchSpace,
    make_network: MakeNetwork,
    tmp_path: Path,
) -> None:
    """Trained in turn with the whole, it is near chance without and well above it with."""

    def in_turn(net: Network, batch: Batch, state: State) -> Losses:
        images, labels = batch
        loss = state.loss(net(images, micro if state.step % 2 else None), labels)
        loss.backward()
        return {"loss": loss.detach()}

    view = View(28, 1)
    supernet = make_network(micro_space.largest)
    recipe = Recipe(epochs=3, batch_size=16)
    fit(supernet, in_turn, training_batches(clothes, view, 16, 0), recipe, RunFolder(tmp_path))
    target = supernet.export(micro)
    test = list(evaluation_batches(clothes, clothes.test, view))
    before = evaluate(target, test)["top1"]
    reestimate_batch_norm(target, calibration_batches(clothes, view, 256))
    after = evaluate(target, test)["top1"]
    assert before < 0.25 < 0.35 < after
