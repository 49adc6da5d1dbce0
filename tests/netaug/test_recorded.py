"""Which part of a step is played back where a run makes recordings: what never differs, no more."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.netaug import (
    Augmentation,
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    RelationalOptions,
    training_step,
)
from nasaug.supernet import Architecture, ChannelMasks, Cuts, Network, Noise, boost
from nasaug.training import Batch, State
from nasaug.training.gradients import Gradients

MakeState = Callable[..., State]


class Listening:
    """In place of recordings: remembers under which keys it is asked, and runs the work itself."""

    def __init__(self) -> None:
        self.keys: list[Hashable] = []

    def __call__(self, key: Hashable, work: Any, inputs: Any, counting: Any) -> tuple[Tensor, ...]:
        self.keys.append(key)
        done: tuple[Tensor, ...] = work(*inputs)
        return done


class Teaching:
    """An outer teacher: the same logits every step."""

    def __init__(self, images: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self._logits = torch.randn(images, 10, generator=generator, dtype=torch.float64)

    def __call__(self, images: Tensor, state: State) -> Tensor:
        return self._logits


def _asked(parts: Parts, net: Network, batch: Batch, state: State) -> list[Hashable]:
    listening = Listening()
    state.replays = listening  # type: ignore[assignment]
    net.zero_grad(set_to_none=True)
    training_step(parts)(net, batch, state)
    return listening.keys


def _alone(augmentation: Augmentation) -> Network:
    target = augmentation.target.canonical()
    return Network(target, generator=torch.Generator().manual_seed(0)).double().train()


def test_a_target_alone(augmentation: Augmentation, batch: Batch, make_state: MakeState) -> None:
    assert _asked(Parts(), _alone(augmentation), batch, make_state()) == [None]
    silent = Parts(noise=Noise())
    assert _asked(silent, _alone(augmentation), batch, make_state()) == [None]


def test_noise_is_drawn_anew(
    augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    parts = Parts(noise=Noise(dropout=0.1))
    assert _asked(parts, _alone(augmentation), batch, make_state()) == []


def test_what_is_boosted_is_launched(
    augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """Its slope changes every few steps."""
    arch = boost(augmentation.target.canonical())
    boosted = Network(arch, generator=torch.Generator().manual_seed(0)).double()
    assert _asked(Parts(boost=BoostOptions()), boosted, batch, make_state()) == []


def test_of_netaug_the_target(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    parts = Parts(augmentation, NetAugOptions(every=2))
    target: list[Architecture] = [augmentation.target]
    for step in (1, 2):  # without a helper, and with one
        assert _asked(parts, net, batch, make_state(step)) == target


def test_of_netaug_the_helpers(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """All of them, in both phases, by one recording, which counts what each would cost."""
    masks = ChannelMasks(net)
    parts, target = Parts(augmentation, NetAugOptions(helpers=2, width_until=0.5)), []
    for step in (1, 2, 99):
        state, sliced = make_state(step), make_state(step)
        state.masks = masks
        assert _asked(parts, net, batch, state) == ["helper", "helper", augmentation.target]
        _asked(parts, net, batch, sliced)
        assert state.macs == sliced.macs
        target.append(state.macs)
    assert len(set(target)) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share": 0.5},
        {"resolution": 20},
        {"helpers": 3},
        {"mixing": "anneal"},
        {"mixing": "surgery"},
        {"norms": "separate"},
    ],
    ids=str,
)
@pytest.mark.parametrize("in_place", [None, InPlaceOptions(certainty=True)])
@pytest.mark.parametrize("step", [1, 90])
def test_masked_helpers_leave_the_gradients_of_slices(
    step: int,
    in_place: InPlaceOptions | None,
    changes: dict[str, Any],
    net: Network,
    augmentation: Augmentation,
    batch: Batch,
    make_state: MakeState,
) -> None:
    if changes.get("norms") == "separate":
        net.separate_norms(augmentation.target)
    teacher = Teaching(len(batch[1]))
    distill = DistillOptions(helpers=True)
    options = NetAugOptions(**changes)
    parts = Parts(augmentation, options, None, in_place, distill, teacher)
    found = []
    for masks in (None, ChannelMasks(net)):
        state = make_state(step)
        state.masks, state.cuts, state.gradients = masks, Cuts(), Gradients(net)
        if masks is not None:
            state.replays = Listening()  # type: ignore[assignment]
        losses = training_step(parts)(net, batch, state)
        state.settle()
        sets = state.gradient_sets()
        found.append([*losses.values(), *(g.clone() for s in sets for g in s.values())])
    for sliced, masked in zip(*found, strict=True):
        torch.testing.assert_close(masked, sliced, rtol=1e-7, atol=1e-12)


def test_a_helper_that_is_the_target_has_the_target_s_norms(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    net.separate_norms(augmentation.target)
    asked: list[str] = []

    def work(sub: Architecture, images: Tensor) -> tuple[Tensor, ...]:
        asked.append(sub.name)
        return (net(images, sub),)

    for masks in (None, ChannelMasks(net)):
        state = make_state()
        state.masks, state.replays = masks, Listening()  # type: ignore[assignment]
        state.repeated_as("key", net, augmentation.target, work, batch[0])
    assert asked == [augmentation.target.name] * 2  # rather than the whole network


def test_what_earlier_passes_left_is_not_recorded(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """A recording would add it again whenever it is played back."""
    state = make_state()
    state.cuts = Cuts()
    net.zero_grad(set_to_none=True)
    state.outputs(net, batch[0], augmentation.target).logits.square().mean().backward()
    pending: list[bool] = []

    class Looking(Listening):
        def __call__(self, key: Hashable, work: Any, inputs: Any, counting: Any) -> Any:
            pending.append(net.get_parameter("blocks.0.conv.weight").grad is None)
            return super().__call__(key, work, inputs, counting)

    state.replays = Looking()  # type: ignore[assignment]
    state.repeated("key", lambda images: (images,), batch[0])
    assert pending == [False]


def test_large_batches_are_sliced(
    net: Network,
    augmentation: Augmentation,
    batch: Batch,
    make_state: MakeState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nasaug.training.state.MOST_MASKED", 1_000_000)
    state = make_state()
    state.masks = ChannelMasks(net)
    assert _asked(Parts(augmentation), net, batch, state) == [augmentation.target]


def test_what_helpers_say_is_given_to_the_target_s_recording(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """As inputs, since it differs from step to step."""
    given: list[list[torch.Size]] = []

    class Looking(Listening):
        def __call__(self, key: Hashable, work: Any, inputs: Any, counting: Any) -> Any:
            given.append([each.shape for each in inputs[2:]])
            return super().__call__(key, work, inputs, counting)

    images, classes = len(batch[1]), 10
    state = make_state(1)
    state.replays = Looking()  # type: ignore[assignment]
    options = NetAugOptions(helpers=2, share=0.5)
    training_step(Parts(augmentation, options, in_place=InPlaceOptions()))(net, batch, state)
    assert given == [[torch.Size((images // 2, classes))] * 2]


def test_relations_are_launched(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """Their graph is that of two passes, and triples of images are drawn anew."""
    parts = Parts(augmentation, relational=RelationalOptions(), in_place=InPlaceOptions())
    assert _asked(parts, net, batch, make_state()) == []


def test_the_gradients_are_there_when_it_ends(
    net: Network, augmentation: Augmentation, batch: Batch, make_state: MakeState
) -> None:
    """A recording has to hold all that becomes of a batch."""
    state = make_state()
    state.cuts = Cuts()
    found: list[bool] = []

    class Looking(Listening):
        def __call__(self, key: Hashable, work: Any, inputs: Any, counting: Any) -> Any:
            done = super().__call__(key, work, inputs, counting)
            found.append(net.get_parameter("blocks.0.conv.weight").grad is not None)
            return done

    state.replays = Looking()  # type: ignore[assignment]
    net.zero_grad(set_to_none=True)
    training_step(Parts(augmentation))(net, batch, state)
    assert found == [True]
