"""Magnitude pruning: the schedule, single weights against pruned SGD by hand, exact zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug import (
    Augmentation,
    NetAugOptions,
    PruneOptions,
    netaug_step,
    pruning_step,
    sparsity_at,
    sparsity_of,
)
from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    Factors,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Network,
    load_target,
)
from nasaug.training import Batch, Losses, Recipe, RunFolder, State, Step, fit, plain_step
from nasaug.training.gradients import Gradients
from nasaug.training.recipe import learning_rate

Weights = dict[str, Tensor]
MakeState = Callable[..., State]
RECIPE = Recipe(
    epochs=2, warmup_epochs=1, batch_size=8, lr=0.1, weight_decay=0.01, label_smoothing=0.0
)
STEPS = 30
# The layers of micro_10k that are pruned: all but the first convolution and the depthwise ones.
PRUNED = [
    "blocks.1.project.weight",
    *(f"blocks.{row}.{leaf}.weight" for row in range(2, 6) for leaf in ("expand", "project")),
    "blocks.6.conv.weight",
    "blocks.8.linear.weight",
]


SHORT = Architecture(
    (
        Conv(7, 2, 16, "relu"),
        MaxPool(),
        Bottleneck(8, 32, projection=True),
        Bottleneck(8, 32),
        Bottleneck(16, 64, 2, projection=True),
        GlobalAvgPool(),
        Linear(10),
    ),
    resolution=32,
    name="short",
)


class Batches:
    """The same ten batches of random images in every epoch."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(3)
        self._batches = [
            (
                torch.randn(8, 1, 16, 16, generator=generator, dtype=torch.float64).to(dtype),
                torch.randint(0, 10, (8,), generator=generator),
            )
            for _ in range(10)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from self._batches[start:]


def _network(arch: Architecture, dtype: torch.dtype = torch.float32) -> Network:
    return Network(arch, generator=torch.Generator().manual_seed(1)).to(dtype).train()


def _train(net: Network, step: Step, recipe: Recipe, path: Path, **options: Any) -> Network:
    dtype = next(net.parameters()).dtype
    return fit(net, step, Batches(dtype), recipe, RunFolder(path), **options)  # type: ignore[arg-type]


def _weights(net: Network) -> Weights:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def _zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


def _cubic(options: PruneOptions, done: int) -> float:
    """Equation 1 of Zhu and Gupta after `done` of the updates, from an initial sparsity of 0."""
    final, initial = options.sparsity, 0.0
    return final + (initial - final) * (1 - done / options.updates) ** 3


# The schedule.


@pytest.mark.parametrize(
    ("begin", "until", "updates"), [(0.0, 1.0, 4), (0.5, 0.8, 100), (0.1, 0.3, 7), (0.25, 1.0, 1)]
)
def test_sparsity_follows_the_cubic_schedule(begin: float, until: float, updates: int) -> None:
    options = PruneOptions(sparsity=0.9, begin=begin, until=until, updates=updates)
    step = (until - begin) / updates
    for done in range(updates + 1):
        expected = _cubic(options, done)
        assert sparsity_at(options, begin + done * step) == pytest.approx(expected, abs=1e-12)
        if done < updates:
            assert sparsity_at(options, begin + (done + 0.99) * step) == pytest.approx(expected)
    assert sparsity_at(options, begin / 2) == 0.0
    assert sparsity_at(options, until) == 0.9
    assert sparsity_at(options, (1 + until) / 2) == 0.9


shares = st.floats(0, 1, allow_nan=False)


@given(shares, shares, st.floats(0.001, 0.999), st.integers(1, 1000), shares, shares)
def test_sparsity_never_falls_and_ends_at_what_was_asked(
    one: float, other: float, sparsity: float, updates: int, first: float, second: float
) -> None:
    begin, until = sorted((one, other))
    if begin == until:
        return
    options = PruneOptions(sparsity=sparsity, begin=begin, until=until, updates=updates)
    early, late = (sparsity_at(options, progress) for progress in sorted((first, second)))
    assert 0 <= early <= late <= sparsity
    assert sparsity_at(options, 1.0) == sparsity
    assert sparsity_at(options, begin) == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "random"}, "kind"),
        ({"sparsity": 0}, "sparsity"),
        ({"sparsity": 1}, "sparsity"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"begin": -0.1}, "begin"),
        ({"begin": 1}, "begin"),
        ({"until": 1.1}, "until"),
        ({"updates": 0}, "updates"),
        ({"divisor": 0}, "divisor"),
        ({"amount": 0.5}, "amount"),
        ({"begin": 0.6, "until": 0.6}, "begin must be below until, but got 0.6 and 0.6"),
        ({"begin": 0.9}, "begin must be below until, but got 0.9 and 0.8"),
    ],
)
def test_bad_option_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        PruneOptions(**values)


# Which weights go.


def _nothing(net: Network, batch: Batch, state: State) -> Losses:
    return {}


def _prune_once(net: Network, target: Architecture, options: PruneOptions, state: State) -> None:
    """What one step does to the weights before anything is trained."""
    state.gradients = Gradients(net)
    step = pruning_step(_nothing, target, options)
    step(net, (torch.zeros(0), torch.zeros(0)), state)


def _smallest(weight: Tensor, sparsity: float) -> np.ndarray:
    """The mask of the `sparsity` smallest magnitudes, by sorting all of them."""
    flat = weight.detach().abs().numpy().flatten()
    mask = np.zeros(flat.size, dtype=bool)
    mask[sorted(range(flat.size), key=lambda place: flat[place])[: round(sparsity * flat.size)]] = 1
    return mask.reshape(weight.shape)


ALL_AT_ONCE = PruneOptions(sparsity=0.7, begin=0.5, until=0.51, updates=1)


def test_the_smallest_weights_of_every_layer_go(micro: Architecture, make_state: MakeState) -> None:
    net = _network(micro)
    before = _weights(net)
    _prune_once(net, micro, ALL_AT_ONCE, make_state(50))
    for name, weight in net.named_parameters():
        if name in PRUNED:
            mask = torch.from_numpy(_smallest(before[name], 0.7))
            assert torch.equal(weight == 0, mask), name
            assert torch.equal(weight[~mask], before[name][~mask])
        else:
            assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("name", ["mbv2_tiny", "mbv3_w035", "short"])
def test_first_convolution_depthwise_norms_and_biases_stay(
    name: str, make_state: MakeState
) -> None:
    """Squeezes, shortcuts and the features after pooling are pruned."""
    target = SHORT if name == "short" else load_target(name, 10)
    net = _network(target)
    _prune_once(net, target, ALL_AT_ONCE, make_state(50))
    for name, weight in net.named_parameters():
        share = _zeros(weight) / weight.numel()
        if weight.ndim == 1:
            continue
        depthwise = weight.ndim == 4 and weight.shape[1] == 1 and weight.shape[2] > 1
        if depthwise or name.startswith("blocks.0."):
            assert share == 0, name
        else:
            assert share == pytest.approx(0.7, abs=0.5 / weight.numel() + 1e-9), name


@pytest.mark.parametrize(("step", "prunes"), [(49, False), (50, True), (51, False), (99, False)])
def test_masks_grow_at_updates_only(
    step: int, prunes: bool, micro: Architecture, make_state: MakeState
) -> None:
    """A run of 100 steps: at half of it, the one update."""
    net = _network(micro)
    _prune_once(net, micro, ALL_AT_ONCE, make_state(step))
    assert (sparsity_of(net) > 0) == prunes


def test_equal_weights_are_pruned_to_the_same_count(
    micro: Architecture, make_state: MakeState
) -> None:
    net = _network(micro)
    for parameter in net.parameters():
        parameter.data.fill_(0.5)
    _prune_once(net, micro, ALL_AT_ONCE, make_state(50))
    for name in PRUNED:
        weight = dict(net.named_parameters())[name]
        assert _zeros(weight) == round(0.7 * weight.numel())


def test_a_layer_keeps_a_weight(micro: Architecture, make_state: MakeState) -> None:
    options = PruneOptions(sparsity=0.9999, begin=0.5, until=0.51, updates=1)
    net = _network(micro)
    _prune_once(net, micro, options, make_state(50))
    for name in PRUNED:
        weight = dict(net.named_parameters())[name]
        assert _zeros(weight) == weight.numel() - 1


def test_only_the_targets_slice_is_pruned(
    augmentation: Augmentation, net: Network, make_state: MakeState
) -> None:
    """The target alone and the target inside a wider network lose the same weights."""
    target, before = augmentation.target, _weights(net)
    alone = net.export(target)
    _prune_once(alone, target, ALL_AT_ONCE, make_state(50))
    _prune_once(net, target, ALL_AT_ONCE, make_state(50))
    inside = _weights(net.export(target))
    assert all(torch.equal(weight, inside[name]) for name, weight in _weights(alone).items())
    after = _weights(net)
    changed = sum(int((after[name] != before[name]).sum()) for name in after)
    assert changed == sum(_zeros(inside[name]) for name in PRUNED) > 1000


def test_a_wider_kernel_is_pruned_at_its_centre_and_an_absent_row_not_at_all(
    make_state: MakeState,
) -> None:
    """Dense 3x3 convolutions inside 5x5 ones, and rows that the target skips."""
    factors = Factors((1, 2), (1, 2))
    augmentation = Augmentation.by_factors(SHORT, factors, kernel_growth=(0, 2), extra_depth=(0, 1))
    net = _network(augmentation.largest)
    before = _weights(net)
    _prune_once(net, augmentation.target, ALL_AT_ONCE, make_state(50))
    exported = net.export(augmentation.target)
    pruned = [w for w in exported.parameters() if w.ndim > 1][1:]
    assert all(_zeros(w) == round(0.7 * w.numel()) for w in pruned)
    changed = sum(int((w != before[name]).sum()) for name, w in net.named_parameters())
    assert changed == sum(_zeros(w) for w in pruned)
    assert len(augmentation.largest.rows) > len(SHORT.rows)


def test_a_target_that_is_not_inside_the_network_is_refused(make_state: MakeState) -> None:
    net = _network(load_target("micro_10k", 10, in_channels=1))
    other = load_target("micro_40k", 10, in_channels=1)
    with pytest.raises(ValueError, match="micro_10k does not contain micro_40k: row 0"):
        _prune_once(net, other, ALL_AT_ONCE, make_state(50))


def test_gradients_momentum_and_average_of_pruned_weights_are_zero(
    augmentation: Augmentation, net: Network, make_state: MakeState
) -> None:
    """In both gradient sets, whatever the number of batches; the rest stays as it was."""
    target = augmentation.target
    companions = [{name: torch.ones_like(p) for name, p in net.named_parameters()} for _ in "ab"]

    def add(net: Network, batch: Batch, state: State) -> Losses:
        with state.auxiliary():
            pass
        for gradients in state.gradient_sets():
            for gradient in gradients.values():
                gradient += 1
        return {"target": torch.tensor(2.5)}

    step, gradients = pruning_step(add, target, ALL_AT_ONCE), Gradients(net)
    for part in range(2):
        state = make_state(50, companions=companions)
        state.gradients, state.part = gradients, part
        losses = step(net, (torch.zeros(0), torch.zeros(0)), state)
        assert float(losses["target"]) == 2.5
    sets = gradients.sets()
    assert len(sets) == 2
    for name, weight in net.named_parameters():
        kept = (weight != 0).double()
        for tensors, value in ((sets[0], 2), (sets[1], 2), (companions[0], 1), (companions[1], 1)):
            expected = value * (kept if weight.ndim > 1 else torch.ones_like(kept))
            assert torch.equal(tensors[name], expected), name


# Training.


class PrunedSGD:
    """Nesterov SGD with a mask on weights and gradients, as one would write it down."""

    def __init__(self, net: Network, recipe: Recipe, options: PruneOptions) -> None:
        self._net, self._recipe, self._options = net, recipe, options
        self.weights = _weights(net)
        self.average: Weights = {}
        self._momentum = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self._masks: Weights = {name: torch.ones_like(self.weights[name]) for name in PRUNED}

    def prune(self, sparsity: float) -> None:
        for name, kept in self._masks.items():
            kept[torch.from_numpy(_smallest(self.weights[name], sparsity))] = 0
            for tensors in (self.weights, self._momentum, self.average):
                if name in tensors:
                    tensors[name] *= kept

    def step(self, batches: list[Batch], rate: float) -> None:
        leaves = {name: w.clone().requires_grad_() for name, w in self.weights.items()}
        loss = torch.zeros((), dtype=torch.float64)
        for images, labels in batches:
            logits = torch.func.functional_call(self._net, leaves, (images,))
            loss = loss + F.cross_entropy(logits, labels) / len(batches)
        loss.backward()
        for name, weight in self.weights.items():
            found = leaves[name].grad
            assert found is not None
            decay = self._recipe.weight_decay if weight.ndim > 1 else 0.0
            gradient = self._masks.get(name, 1) * (found + decay * weight)
            self._momentum[name] = self._recipe.momentum * self._momentum[name] + gradient
            weight -= rate * (gradient + self._recipe.momentum * self._momentum[name])
        if self._recipe.ema is not None:
            for name, weight in self.weights.items():
                last = self.average.get(name, weight)
                ema = self._recipe.ema
                self.average[name] = ema * last + (1 - ema) * weight


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_equals_pruned_sgd_by_hand(
    accumulate: int, micro: Architecture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"ema": 0.8, "accumulate": accumulate})
    options = PruneOptions(sparsity=0.8, begin=0.2, until=0.8, updates=3)
    net = _network(micro, torch.float64)
    reference = PrunedSGD(net, recipe, options)
    batches, epoch_steps = list(Batches(torch.float64).epoch(0)), 10 // accumulate
    steps = 3 * epoch_steps
    expected, before = [], 0
    for step in range(steps):
        # An update is in force by the end of the step at whose end it is due.
        done = int(min(3, max(0, ((step + 1) / steps - 0.2) / 0.2 + 1e-9)))
        if done > before:
            reference.prune(_cubic(options, done))
        before = done
        start = step % epoch_steps * accumulate
        rate = learning_rate(recipe, step, epoch_steps)
        reference.step(batches[start : start + accumulate], rate)
        expected.append({name: w.clone() for name, w in reference.weights.items()})
    assert before == 3
    seen: list[Weights] = []
    step_function = pruning_step(plain_step, micro, options)
    used = _train(net, step_function, recipe, tmp_path, watch=lambda *_: seen.append(_weights(net)))
    assert len(seen) == steps
    for weights, wanted in zip(seen, expected, strict=True):
        assert all(torch.equal(weights[name] == 0, wanted[name] == 0) for name in PRUNED)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, wanted[name], rtol=1e-6, atol=1e-8)
    for name, weight in used.named_parameters():
        torch.testing.assert_close(weight.detach(), reference.average[name], rtol=1e-6, atol=1e-8)
    for name in PRUNED:
        assert _zeros(seen[-1][name]) == round(0.8 * seen[-1][name].numel())


@pytest.fixture(scope="module", params=["alone", "inside"])
def method(request: pytest.FixtureRequest, micro: Architecture, augmentation: Augmentation) -> Any:
    """Architecture and step of a target alone, and of one inside sampled larger networks."""
    if request.param == "alone":
        return micro, plain_step
    return augmentation.largest.canonical(), netaug_step(augmentation, NetAugOptions())


def test_zeros_stay_zero_through_momentum_decay_and_averaging(
    method: tuple[Architecture, Step], micro: Architecture, tmp_path: Path
) -> None:
    """With channel sorting before pruning begins. What is kept goes on being trained."""
    arch, inner = method
    options = PruneOptions(sparsity=0.8, begin=0.5, until=0.8)
    net, zeros = _network(arch), 0
    seen: list[Mapping[str, Tensor]] = []

    def watch(*_: object) -> None:
        seen.append(_weights(net.export(micro)))

    recipe = RECIPE.model_copy(update={"ema": 0.9})
    used = _train(net, pruning_step(inner, micro, options), recipe, tmp_path, watch=watch)
    for before, after in pairwise(seen):
        for name in PRUNED:
            assert not (after[name][before[name] == 0] != 0).any(), name
            zeros += _zeros(before[name])
    assert zeros > 0
    assert not any(_zeros(seen[14][name]) for name in PRUNED)
    exported = _weights(used.export(micro))
    for name in PRUNED:
        last = seen[-1][name]
        assert _zeros(last) == round(0.8 * last.numel())
        assert torch.equal(exported[name] == 0, last == 0)
    assert any(not torch.equal(seen[-1][name], seen[-2][name]) for name in PRUNED)


@pytest.mark.parametrize(("stop", "kind"), [(17, "unstructured"), (28, "structured")])
def test_an_interrupted_run_resumes_to_the_same_bits(
    stop: int, kind: Any, method: tuple[Architecture, Step], micro: Architecture, tmp_path: Path
) -> None:
    """While the masks grow, and after; neither is where a checkpoint was."""
    arch, inner = method
    options = PruneOptions(kind=kind, sparsity=0.8, begin=0.5, until=0.8, updates=4)
    step = pruning_step(inner, micro, options)
    recipe = RECIPE.model_copy(update={"ema": 0.9, "checkpoint_every": 3})
    whole = _train(_network(arch), step, recipe, tmp_path / "whole")

    def stopping(net: Network, batch: Batch, state: State) -> Losses:
        if state.step == stop:
            raise KeyboardInterrupt
        return step(net, batch, state)

    with pytest.raises(KeyboardInterrupt):
        _train(_network(arch), stopping, recipe, tmp_path / "cut")
    resumed = _train(_network(arch), step, recipe, tmp_path / "cut", resume=True)
    expected = _weights(whole)
    assert all(torch.equal(expected[name], w) for name, w in _weights(resumed).items())


@pytest.mark.parametrize(("begin", "until", "updates"), [(0.0, 1.0, 100), (0.9, 0.91, 5)])
def test_short_runs_reach_the_sparsity(
    begin: float, until: float, updates: int, micro: Architecture, tmp_path: Path
) -> None:
    """With fewer steps than updates, and with all updates between two steps."""
    options = PruneOptions(sparsity=0.6, begin=begin, until=until, updates=updates)
    recipe = RECIPE.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    net = _train(_network(micro), pruning_step(plain_step, micro, options), recipe, tmp_path)
    for name, weight in net.named_parameters():
        assert _zeros(weight) == (round(0.6 * weight.numel()) if name in PRUNED else 0)


@pytest.mark.parametrize("begin", [0.1, 1 / 3, 0.5, 0.7])
@pytest.mark.parametrize("steps", [7, 40, 101])
def test_pruning_begins_with_the_first_step_that_cannot_sort(
    steps: int, begin: float, micro: Architecture
) -> None:
    """Channels are sorted while `progress < width_until`: the rule is `begin >= width_until`."""
    options = PruneOptions(begin=begin, until=begin + 1e-3, updates=1000)
    net, pruned = _network(micro), pruning_step(_nothing, micro, options)
    for index in range(steps):
        state = State(RECIPE, index, steps, 10, 0, nullcontext, lambda: [])
        state.gradients = Gradients(net)
        pruned(net, (torch.zeros(0), torch.zeros(0)), state)
        assert (sparsity_of(net) > 0) == (state.progress >= begin)


# The share of zeros.


def test_sparsity_of_counts_convolutions_and_the_classifier(micro: Architecture) -> None:
    net = _network(micro)
    assert sparsity_of(net) == 0
    total = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    own = dict(net.named_parameters())
    with torch.no_grad():
        own["blocks.8.linear.weight"][:, :10] = 0
        own["blocks.2.depthwise.weight"][:2] = 0
    assert sparsity_of(net) == pytest.approx((10 * 10 + 2 * 9) / total)
