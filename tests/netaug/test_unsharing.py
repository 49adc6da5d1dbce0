"""Weight sharing, then unsharing: against SGD on w_0, written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug import (
    Augmentation,
    NetAugOptions,
    PruneOptions,
    UnshareOptions,
    netaug_step,
    pruning_step,
    share_weights,
    sharing_groups,
    unsharing_step,
)
from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    Factors,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Network,
    load_target,
    published_factors,
    sort_channels,
    target_names,
)
from nasaug.training import Batch, Losses, Recipe, RunFolder, State, Step, fit, plain_step
from nasaug.training.gradients import Gradients
from nasaug.training.recipe import learning_rate

Weights = dict[str, Tensor]
MakeState = Callable[..., State]
# Two equal rows, and three with squeeze-and-excitation, among others.
REPEATING = Architecture(
    (
        Conv(3, 2, 8, "relu6"),
        DepthwiseSeparable(3, 1, 8, "relu6"),
        InvertedResidual(3, 2, 16, 8, "relu6", False),
        InvertedResidual(3, 1, 16, 8, "relu6", True),
        InvertedResidual(3, 1, 16, 8, "relu6", True),
        InvertedResidual(3, 2, 24, 16, "hardswish", False),
        InvertedResidual(3, 1, 32, 16, "hardswish", True, 8),
        InvertedResidual(3, 1, 32, 16, "hardswish", True, 8),
        InvertedResidual(3, 1, 32, 16, "hardswish", True, 8),
        InvertedResidual(5, 1, 32, 16, "hardswish", True, 8),
        Conv(1, 1, 32, "relu6"),
        GlobalAvgPool(),
        Linear(10),
    ),
    resolution=28,
    in_channels=1,
    name="repeating",
)
GROUPS = ((3, 4), (6, 7, 8))
RECIPE = Recipe(
    epochs=1, warmup_epochs=1, batch_size=8, lr=0.1, weight_decay=0.01, label_smoothing=0.0
)


class Batches:
    """The same ten batches of random images in every epoch."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
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


def _network(arch: Architecture = REPEATING, dtype: torch.dtype = torch.float64) -> Network:
    net = Network(arch, generator=torch.Generator().manual_seed(1)).to(dtype)
    # Norms and biases that differ from each other, so that sharing them is seen.
    generator = torch.Generator().manual_seed(2)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return net.train()


def _train(
    net: Network, step: Step, recipe: Recipe, path: Path, **options: Any
) -> tuple[Network, list[Weights]]:
    """The weights that `fit` returns, and those of `net` after every step."""
    seen: list[Weights] = []

    def watch(*_: object) -> None:
        seen.append(_weights(net))

    dtype = next(net.parameters()).dtype
    used = fit(net, step, Batches(dtype), recipe, RunFolder(path), watch=watch, **options)  # type: ignore[arg-type]
    return used, seen


def _weights(net: Network) -> Weights:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def _names(net: Network, groups: tuple[tuple[int, ...], ...] = GROUPS) -> dict[str, list[str]]:
    """The parameters of the members by the name of the first's, worked out by hand."""
    found: dict[str, list[str]] = {}
    for first, *others in groups:
        for name, _ in net.named_parameters():
            if name.startswith(f"blocks.{first}."):
                rest = name.split(".", 2)[2]
                found[name] = [name, *(f"blocks.{index}.{rest}" for index in others)]
    return found


def _assert_shared(weights: Mapping[str, Tensor], names: Mapping[str, list[str]]) -> None:
    for first, members in names.items():
        for member in members:
            assert torch.equal(weights[first], weights[member]), member


# Which rows may share.


def test_groups_of_the_micro_architecture() -> None:
    assert sharing_groups(REPEATING) == GROUPS


def test_groups_of_mobilenet_v2_are_what_follows_the_first_block_of_each_stage() -> None:
    arch = load_target("mbv2_tiny")
    named = [[arch.row_names[index] for index in group] for group in sharing_groups(arch)]
    assert named == [
        ["stage3.block2", "stage3.block3"],
        ["stage4.block2", "stage4.block3", "stage4.block4"],
        ["stage5.block2", "stage5.block3"],
        ["stage6.block2", "stage6.block3"],
    ]


REPEAT = [name for name in target_names() if not name.startswith("micro")]


@pytest.mark.parametrize("name", REPEAT)
@pytest.mark.parametrize("larger", [False, True])
def test_two_rows_share_if_and_only_if_they_are_equal_and_of_one_stage(
    name: str, larger: bool
) -> None:
    """Pair by pair, in the target and in the largest network that was published for it."""
    arch = load_target(name)
    if larger:
        arch = Augmentation.by_factors(arch, published_factors(name)).largest.canonical()
    groups = sharing_groups(arch)
    assert groups
    together = {pair for group in groups for pair in combinations(group, 2)}
    for one, other in combinations(range(len(arch.rows)), 2):
        stages = [arch.row_names[index].split(".") for index in (one, other)]
        alike = (
            len(stages[0]) == 2
            and stages[0][0] == stages[1][0]
            and arch.rows[one] == arch.rows[other]
            and arch.widths_in[one] == arch.widths_in[other]
        )
        assert ((one, other) in together) == alike


def test_equal_rows_with_other_inputs_do_not_share() -> None:
    """The first bottleneck of a stage reads another width, though its row could be the same."""
    rows = (
        Conv(3, 2, 16, "relu"),
        Bottleneck(8, 32, projection=True),
        Bottleneck(8, 32, projection=True),
        Bottleneck(8, 32, projection=True),
        GlobalAvgPool(),
        Linear(10),
    )
    assert sharing_groups(Architecture(rows, 28)) == ((2, 3),)


def test_absent_rows_do_not_share() -> None:
    target = load_target("mbv2_tiny")
    largest = Augmentation.by_factors(target, Factors((1,), (1,)), extra_depth=(0, 1)).largest
    aligned = Augmentation.by_factors(target, Factors((1,), (1,)), extra_depth=(0, 1)).target
    assert len(sharing_groups(largest)) > len(sharing_groups(target))
    assert len(sharing_groups(aligned)) == 4


@pytest.mark.parametrize("name", ["micro_10k", "micro_40k"])
def test_a_target_without_equal_rows_is_refused(name: str) -> None:
    message = (
        f"weight sharing needs a stage with two equal rows, but {name} has none; choose another "
        r"network \(mbv2_tiny has four such stages\) or train without unsharing"
    )
    with pytest.raises(ValueError, match=message):
        sharing_groups(load_target(name))


# Making them equal.


def test_sharing_copies_parameters_and_nothing_else() -> None:
    net = _network()
    for name, buffer in net.named_buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(len(name))))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    names = _names(net)
    others = {member for members in names.values() for member in members[1:]}
    momentum = {name: torch.rand_like(p) for name, p in net.named_parameters()}
    partial = {"blocks.6.squeeze.reduce.bias": torch.rand(8)}
    share_weights(net, GROUPS, [momentum, partial, {}])
    _assert_shared(net.state_dict(), names)
    _assert_shared(momentum, names)
    # One other of the two, two of the three.
    assert len(others) == len(names) + sum(name.startswith("blocks.6.") for name in names)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in others), name


# The first phase is SGD on w_0; the second is plain SGD.


def _two_sets(net: Network, batch: Batch, state: State) -> Losses:
    """A step with gradient surgery: half of the batch is the auxiliary loss."""
    images, labels = batch
    loss = state.loss(net(images[:4]), labels[:4])
    loss.backward()
    with state.auxiliary():
        other = state.loss(net(images[4:]), 9 - labels[4:])
        other.backward()
    return {"loss": loss.detach()}


class StemDirection:
    """Nesterov SGD on w_0, then on the w_i from there, with its own gradients and clipping.

    `weights` holds w_0 under the name of a group's first member while it is `shared`.
    """

    def __init__(self, net: Network, recipe: Recipe) -> None:
        self._net, self._recipe, self._names = net, recipe, _names(net)
        self.weights = _weights(net)
        for first, members in self._names.items():
            self.weights[first] *= len(members) ** 0.5
            for member in members[1:]:
                del self.weights[member]
        self._momentum = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.shared = True

    def unfold(self, values: Mapping[str, Tensor]) -> Weights:
        """Every w_i = w_0 / sqrt(L); also a buffer of w_0 as it is for w_i."""
        if not self.shared:
            return dict(values)
        found = {}
        for name, value in values.items():
            members = self._names.get(name, [name])
            found |= {member: value / len(members) ** 0.5 for member in members}
        return found

    def unshare(self) -> None:
        self.weights = {name: w.clone() for name, w in self.unfold(self.weights).items()}
        self._momentum = self.unfold(self._momentum)
        self.shared = False

    def gradients(self, images: Tensor, labels: Tensor) -> Weights:
        leaves = {name: w.clone().requires_grad_() for name, w in self.weights.items()}
        logits = torch.func.functional_call(self._net, self.unfold(leaves), (images,))
        found = torch.autograd.grad(F.cross_entropy(logits, labels), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    def step(self, gradients: Weights, rate: float) -> None:
        recipe = self._recipe
        if recipe.clip_norm is not None:
            norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
            # torch divides by a norm that is 1e-6 larger.
            scale = min(1.0, recipe.clip_norm / (float(norm) + 1e-6))
            gradients = {name: scale * g for name, g in gradients.items()}
        for name, weight in self.weights.items():
            decay = recipe.weight_decay if weight.ndim > 1 else 0.0
            gradient = gradients[name] + decay * weight
            buffer = recipe.momentum * self._momentum[name] + gradient
            self._momentum[name] = buffer
            weight -= rate * (gradient + recipe.momentum * buffer)


def _projected(base: Weights, other: Weights) -> Weights:
    """PCGrad: base + other, less what of other opposes base."""
    product = sum(float((base[name] * other[name]).sum()) for name in base)
    norm = sum(float(base[name].square().sum()) for name in base)
    share = min(0.0, product / norm)
    return {name: base[name] + other[name] - share * base[name] for name in base}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.0},
        {"weight_decay": 0.0},
        {"clip_norm": 0.3},
        {"accumulate": 2, "epochs": 3},
        {"surgery": True},
    ],
    ids=str,
)
def test_both_phases_equal_sgd_by_hand_step_by_step(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    surgery = "surgery" in changes
    recipe = RECIPE if surgery else RECIPE.model_copy(update=changes)
    net = _network()
    share_weights(net, GROUPS)
    reference = StemDirection(net, recipe)
    batches, parts = list(Batches().epoch(0)), recipe.accumulate
    expected = []
    epoch_steps = 10 // parts
    steps = epoch_steps * (recipe.epochs + 1)
    for step in range(steps):
        if step == 0.4 * steps:
            reference.unshare()
        found: Weights = {}
        for part in range(parts):
            images, labels = batches[step % epoch_steps * parts + part]
            if surgery:
                gradients = _projected(
                    reference.gradients(images[:4], labels[:4]),
                    reference.gradients(images[4:], 9 - labels[4:]),
                )
            else:
                gradients = reference.gradients(images, labels)
            found = {n: g / parts + found.get(n, 0) for n, g in gradients.items()}
        reference.step(found, learning_rate(recipe, step, epoch_steps))
        expected.append({n: w.clone() for n, w in reference.unfold(reference.weights).items()})
    inner = _two_sets if surgery else plain_step
    _, seen = _train(
        net, unsharing_step(inner, GROUPS, UnshareOptions(until=0.4)), recipe, tmp_path
    )
    assert len(seen) == steps
    for weights, wanted in zip(seen, expected, strict=True):
        assert weights.keys() == wanted.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(weight, wanted[name], rtol=1e-6, atol=1e-8)
    names = _names(net)
    _assert_shared(seen[int(0.4 * steps) - 1], names)
    for first, members in names.items():
        if first.endswith("project.weight"):
            assert not torch.equal(seen[-1][first], seen[-1][members[1]])


def test_weights_begin_as_those_of_the_first_member(tmp_path: Path) -> None:
    """Whether they were made equal before training or not."""
    step = unsharing_step(plain_step, GROUPS, UnshareOptions())
    shared, found = _network(), _network()
    share_weights(shared, GROUPS)
    _, expected = _train(shared, step, RECIPE, tmp_path / "a")
    _, seen = _train(found, step, RECIPE, tmp_path / "b")
    assert all(torch.equal(expected[0][name], weight) for name, weight in seen[0].items())


# Bit equality through everything that touches weights.


@pytest.fixture(scope="module")
def augmentation() -> Augmentation:
    return Augmentation.by_factors(REPEATING, Factors((1, 2), (1, 2)))


def _sorting_step(augmentation: Augmentation) -> Step:
    options = NetAugOptions(width_until=0.4)
    groups = sharing_groups(augmentation.largest)
    return unsharing_step(netaug_step(augmentation, options), groups, UnshareOptions(until=0.6))


def test_a_group_stays_equal_bit_for_bit_while_channels_are_sorted(
    augmentation: Augmentation, tmp_path: Path
) -> None:
    """In float32, with Nesterov momentum, decay and a moving average; all that is kept is equal."""
    arch = augmentation.largest.canonical()
    assert sharing_groups(arch) == GROUPS
    net = _network(arch, torch.float32)
    names, phases = _names(net), []
    step = _sorting_step(augmentation)

    def checked(net: Network, batch: Batch, state: State) -> Losses:
        companions = state.companions()
        kept = [_weights(net), *({**mapping} for mapping in companions)]
        if 0 < state.progress <= 0.6:
            for weights in kept:
                _assert_shared(weights, names)
            phases.append(state.progress)
        before = {name: weight.clone() for name, weight in net.named_parameters()}
        losses = step(net, batch, state)
        if state.epoch_begins and state.progress < 0.4:
            moved = [name for name, w in net.named_parameters() if not torch.equal(w, before[name])]
            assert any(name in names for name in moved), "channels must have been sorted"
        return losses

    recipe = RECIPE.model_copy(update={"epochs": 4, "ema": 0.8})
    used, seen = _train(net, checked, recipe, tmp_path)
    assert len(phases) == 30
    _assert_shared(seen[29], names)
    first, second = "blocks.6.project.weight", "blocks.7.project.weight"
    assert not torch.equal(seen[30][first], seen[30][second])
    averaged = _weights(used)
    assert not torch.equal(averaged[first], averaged[second])


def test_sorting_keeps_a_shared_group_equal() -> None:
    """Equal weights have one order."""
    net = _network()
    share_weights(net, GROUPS)
    before = _weights(net)
    momentum = {name: torch.rand_like(weight) for name, weight in before.items()}
    share_weights(net, GROUPS, [momentum])
    sort_channels(net, [momentum])
    _assert_shared(_weights(net), _names(net))
    _assert_shared(momentum, _names(net))
    assert not torch.equal(
        _weights(net)["blocks.6.project.weight"], before["blocks.6.project.weight"]
    )


@pytest.mark.parametrize("stop", [7, 16])
def test_an_interrupted_run_resumes_to_the_same_bits(
    stop: int, augmentation: Augmentation, tmp_path: Path
) -> None:
    """Stopped in the first phase and in the second, a step after a checkpoint."""
    arch = augmentation.largest.canonical()
    step = _sorting_step(augmentation)
    recipe = RECIPE.model_copy(update={"ema": 0.8, "checkpoint_every": 3})
    whole, _ = _train(_network(arch, torch.float32), step, recipe, tmp_path / "whole")

    def stopping(net: Network, batch: Batch, state: State) -> Losses:
        if state.step == stop:
            raise KeyboardInterrupt
        return step(net, batch, state)

    with pytest.raises(KeyboardInterrupt):
        _train(_network(arch, torch.float32), stopping, recipe, tmp_path / "cut")
    resumed, seen = _train(
        _network(arch, torch.float32), step, recipe, tmp_path / "cut", resume=True
    )
    assert len(seen) < 20
    expected = _weights(whole)
    assert all(torch.equal(expected[name], w) for name, w in _weights(resumed).items())


@pytest.mark.parametrize("outside", ["unsharing", "pruning"])
def test_sharing_and_pruning_go_together(outside: str, tmp_path: Path) -> None:
    """In either order: the members of a group lose the same weights while they are shared."""
    options = PruneOptions(sparsity=0.6, begin=0.2, until=0.8, updates=10)
    share = UnshareOptions(until=0.5)
    if outside == "unsharing":
        step = unsharing_step(pruning_step(plain_step, REPEATING, options), GROUPS, share)
    else:
        step = pruning_step(unsharing_step(plain_step, GROUPS, share), REPEATING, options)
    recipe = RECIPE.model_copy(update={"ema": 0.8})
    used, seen = _train(_network(REPEATING, torch.float32), step, recipe, tmp_path)
    _assert_shared(seen[9], _names(used))
    zeros = [int((weights["blocks.7.project.weight"] == 0).sum()) for weights in seen]
    assert 0 < zeros[9] < zeros[-1] == round(0.6 * 32 * 16)
    assert zeros == sorted(zeros)
    assert int((_weights(used)["blocks.7.project.weight"] == 0).sum()) == zeros[-1]


def test_a_difference_of_one_bit_does_not_last(make_state: MakeState) -> None:
    """An all-reduce of several workers may leave one."""
    net = _network()
    share_weights(net, GROUPS)
    momentum = {name: torch.rand_like(weight) for name, weight in _weights(net).items()}
    share_weights(net, GROUPS, [momentum])
    with torch.no_grad():
        for tensors in (dict(net.named_parameters()), momentum):
            tensors["blocks.7.project.weight"].mul_(1 + 1e-15)

    def look(net: Network, batch: Batch, state: State) -> Losses:
        _assert_shared(_weights(net), _names(net))
        _assert_shared(momentum, _names(net))
        return {}

    step = unsharing_step(look, GROUPS, UnshareOptions())
    assert _with_gradients(step, net, make_state, 1, companions=[momentum]) is not None


def _with_gradients(
    step: Step, net: Network, make_state: MakeState, index: int, parts: int = 1, **options: Any
) -> list[dict[str, Tensor]]:
    """The gradient sets after `parts` calls of a step of a run of 100 steps."""
    gradients = Gradients(net)
    for part in range(parts):
        state = make_state(index, **options)
        state.gradients, state.part = gradients, part
        step(net, (torch.zeros(0), torch.zeros(0)), state)
    return gradients.sets()


def _fill(net: Network, batch: Batch, state: State) -> Losses:
    """Adds 1 + i + part to every gradient of row i, and twice that to the auxiliary set."""
    with state.auxiliary():
        pass
    for scale, gradients in enumerate(state.gradient_sets(), 1):
        for name, gradient in gradients.items():
            gradient += scale * (1 + int(name.split(".")[1]) + state.part)
    return {}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_gradients_of_both_sets_are_the_groups_means(parts: int, make_state: MakeState) -> None:
    """Also when those of several batches add up."""
    step = unsharing_step(_fill, GROUPS, UnshareOptions(until=0.5))
    row_means = {index: sum(group) / len(group) for group in GROUPS for index in group}
    for index, shared in ((0, True), (49, True), (50, False), (99, False)):
        sets = _with_gradients(step, _network(), make_state, index, parts)
        assert len(sets) == 2
        for scale, gradients in enumerate(sets, 1):
            for name, gradient in gradients.items():
                row = int(name.split(".")[1])
                mean = row_means.get(row, row) if shared else row
                wanted = scale * sum(1 + mean + part for part in range(parts))
                torch.testing.assert_close(gradient, torch.full_like(gradient, wanted))


def test_losses_are_those_of_the_step_inside(make_state: MakeState) -> None:
    def answering(net: Network, batch: Batch, state: State) -> Losses:
        return {"target": torch.tensor(state.progress)}

    net = _network()
    for index in (1, 99):
        state = make_state(index)
        state.gradients = Gradients(net)
        step = unsharing_step(answering, GROUPS, UnshareOptions())
        losses = step(net, (torch.zeros(0), torch.zeros(0)), state)
        assert float(losses["target"]) == pytest.approx(index / 100)


@pytest.mark.parametrize("until", [0, 1, -0.5, 1.5, float("nan"), "half"])
def test_bad_share_is_refused(until: Any) -> None:
    with pytest.raises(ValidationError, match="until"):
        UnshareOptions(until=until)


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="form"):
        UnshareOptions(form="stem")  # type: ignore[call-arg]


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_progress_decides(until: float, index: int) -> None:
    net = _network()
    state = State(RECIPE, index, 100, 10, 0, lambda: pytest.fail("unused"), lambda: [])
    state.gradients = Gradients(net)
    unsharing_step(_fill, GROUPS, UnshareOptions(until=until))(
        net, (torch.zeros(0), torch.zeros(0)), state
    )
    gradients = state.gradient_sets()[0]
    equal = torch.equal(gradients["blocks.3.project.weight"], gradients["blocks.4.project.weight"])
    assert equal == (index / 100 < until)
