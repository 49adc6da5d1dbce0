"""What a training changes, and what a checkpoint therefore keeps: a network's weights, its
optimizer's momentum, and the moving average of the weights where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nasaug.training.recipe import Recipe, make_optimizer

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Weights(Generic[Net]):
    """Of one network, as a recipe trains it."""

    net: Net
    optimizer: torch.optim.SGD
    average: AveragedModel | None

    @classmethod
    def of(cls, net: Net, recipe: Recipe) -> Weights[Net]:
        """Those of a network before its first step; momentum begins at zero."""
        return cls(net, make_optimizer(net, recipe), _moving_average(net, recipe))

    @property
    def used(self) -> Net:
        """The weights that count: the moving average where there is one."""
        used = self.net if self.average is None else self.average.module
        assert isinstance(used, type(self.net))
        return used

    def step(self, rate: float, clip_norm: float | None) -> None:
        """One update by the gradients that lie there, at a learning rate."""
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip_norm)
        for settings in self.optimizer.param_groups:
            settings["lr"] = rate * settings["lr_factor"]
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.net)

    def companions(self) -> list[Mapping[str, Tensor]]:
        """What must move along when channels are sorted: momentum and averaged weights, by name."""
        average = self.average
        averaged = dict(average.module.named_parameters()) if average is not None else {}
        return [self._momentum(), averaged]

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by names that begin with `net.`, `momentum.` and `average.`."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in self._momentum().items()}
        if self.average is not None:
            averaged = self.average.state_dict()
            tensors |= {f"average.{name}": tensor for name, tensor in averaged.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave. Raises: ValueError for those of another network."""
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "momentum": {}, "average": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        try:
            self.net.load_state_dict(parts["net"])
            if self.average is not None:
                self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        for name, parameter in self.net.named_parameters():
            if name in parts["momentum"]:
                # With the strides of its parameter, as the fused optimizer needs.
                buffer = torch.empty_like(parameter, requires_grad=False)
                momentum = buffer.copy_(parts["momentum"][name])
                self.optimizer.state[parameter]["momentum_buffer"] = momentum

    def _momentum(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            name: state[parameter]["momentum_buffer"]
            for name, parameter in self.net.named_parameters()
            if state[parameter].get("momentum_buffer") is not None
        }


def _moving_average(net: nn.Module, recipe: Recipe) -> AveragedModel | None:
    if recipe.ema is None:
        return None
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average
