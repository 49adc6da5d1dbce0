"""Two sets of gradients, and what becomes of them when they are in conflict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasaug.training import ALONE
from nasaug.training.gradients import Gradients


def _set_up(base: list[float], second: list[float] | None) -> tuple[nn.Module, Gradients]:
    """A module of two parameters, (2,) and (2, 1), whose gradients are the given four numbers."""
    net = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2, 1)})
    gradients = Gradients(net)
    _backward(net, base)
    if second is not None:
        with gradients.auxiliary():
            _backward(net, second)
    return net, gradients


def _backward(net: nn.Module, values: list[float]) -> None:
    weights = torch.cat([p.flatten() for p in net.parameters()])
    (weights * torch.tensor(values)).sum().backward()


def _flat(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def test_conflict_is_projected_out() -> None:
    """By hand: (1, 0, 1, 0) and (-3, 2, 1, 0) have the product -2; the second loses -2/2 of it."""
    net, gradients = _set_up([1, 0, 1, 0], [-3, 2, 1, 0])
    gradients.merge()
    assert _flat(net).tolist() == [1 - 2, 2, 1 + 2, 0]


def test_what_is_left_of_the_second_does_not_oppose_the_base() -> None:
    generator = torch.Generator().manual_seed(0)
    conflicts = 0
    for _ in range(50):
        base, second = torch.randn(2, 4, generator=generator)
        net, gradients = _set_up(base.tolist(), second.tolist())
        gradients.merge()
        left = _flat(net) - base
        assert float(left @ base) >= -1e-5
        if float(second @ base) >= 0:
            torch.testing.assert_close(left, second)
        else:
            conflicts += 1
            torch.testing.assert_close(left, second - (second @ base) / (base @ base) * base)
    assert 10 < conflicts < 40


def test_without_a_second_set_nothing_changes() -> None:
    net, gradients = _set_up([1, 2, 3, 4], None)
    gradients.merge()
    assert _flat(net).tolist() == [1, 2, 3, 4]
    assert len(gradients.sets()) == 1


def test_a_base_of_zeros_leaves_the_second_as_it_is() -> None:
    net, gradients = _set_up([0, 0, 0, 0], [1, -2, 3, -4])
    gradients.merge()
    assert _flat(net).tolist() == [1, -2, 3, -4]


def test_passes_add_up_in_their_own_set() -> None:
    net, gradients = _set_up([1, 0, 0, 0], [0, 1, 0, 0])
    _backward(net, [1, 0, 0, 0])
    with gradients.auxiliary():
        _backward(net, [0, 1, 0, 0])
    first, second = gradients.sets()
    assert first["a"].tolist() == [2, 0]
    assert second["a"].tolist() == [0, 2]
    gradients.clear()
    assert all(not value.any() for each in gradients.sets() for value in each.values())


def test_sums_over_batches_become_means() -> None:
    _, gradients = _set_up([4, 0, 0, 8], [2, 2, 0, 0])
    losses = {"target": torch.tensor(6.0)}
    gradients.average(ALONE, 2, losses)
    first, second = gradients.sets()
    assert first["a"].tolist() == [2, 0] and second["a"].tolist() == [1, 1]
    assert float(losses["target"]) == 3


def test_gradients_have_the_strides_of_their_parameters() -> None:
    """The fused optimizer walks through memory."""
    net = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    gradients = Gradients(net)
    with gradients.auxiliary():
        net(torch.randn(1, 4, 5, 5)).sum().backward()
    gradients.merge()
    assert net.weight.grad is not None
    assert net.weight.grad.stride() == net.weight.stride()
