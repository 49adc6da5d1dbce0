"""The steps that train a supernet: which paths they train, and what these learn from."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare
from torch import Tensor

from nasaug.search import (
    SUPERNET_METHODS,
    SupernetOptions,
    passes_per_step,
    single_path_step,
    supernet_step,
)
from nasaug.search.paths import dropout_path, fair_passes, fair_paths
from nasaug.search.supernet_steps import dropout_rate
from nasaug.supernet import (
    Architecture,
    ChoicePath,
    Network,
    Output,
    SearchSpace,
    Skip,
    load_target,
)
from nasaug.training import Batch, Losses, Recipe, State, Step

RECIPE = Recipe(label_smoothing=0.1)
STEPS = 100
MICRO = load_target("micro_10k", 10, in_channels=1)
# No two choices of these come to the same row, so that a choice can be counted in a path.
DEEP = SearchSpace.around(MICRO, (1, 2), (1, 2, 3), (0, 2), (0, 1, 2), divisor=4)
SMALL = SearchSpace.around(MICRO, (1,), (1, 2, 3, 4), (0,), (0,))
FAIR_SPACES = {"deep": DEEP, "small": SMALL, "default": SearchSpace.around(MICRO)}
OPTIONS = {
    **{name: SupernetOptions(method=name) for name in SUPERNET_METHODS},
    "fair over decisions": SupernetOptions(method="fair", fair_over="decisions"),
    "sandwich of two": SupernetOptions(method="sandwich", random_paths=0),
}


def _state(step: int, seed: int = 0) -> State:
    return State(RECIPE, step, STEPS, 10, seed, nullcontext, list)


def _batch(size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (size,), generator=generator)


@pytest.fixture(scope="module")
def net() -> Network:
    """A supernet of the small space."""
    made = Network(SMALL.largest, generator=torch.Generator().manual_seed(0))
    return made.double().train()


def _run(step: Step, net: Network, state: State) -> tuple[Losses, dict[str, Tensor]]:
    """The losses of a step and the gradients that it leaves."""
    net.zero_grad()
    losses = step(net, _batch(), state)
    return losses, {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


def _gradients(net: Network, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in net.named_parameters()]
    found = torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9, msg=name)


def _free(space: SearchSpace, path: ChoicePath) -> list[bool]:
    """For every row whether the prefix rule leaves it a choice."""
    present = [row.choices[c].present for row, c in zip(space.rows, path, strict=True)]
    return [
        not row.optional or index == 0 or present[index - 1] for index, row in enumerate(space.rows)
    ]


def _spread(counts: Counter[Any], values: Any) -> int:
    found = [counts[value] for value in values]
    return max(found) - min(found)


def test_the_counted_spaces_have_no_two_equal_choices() -> None:
    for space in (DEEP, SMALL):
        path = space.path(space.largest)
        for node in [space.source, *(edge.head for edge in space.edges_of(path)[:-1])]:
            there = [edge for edge in node.table if edge is not None]
            assert len(there) == len(node.edges)


@pytest.mark.parametrize("space", FAIR_SPACES.values(), ids=FAIR_SPACES)
@given(seed=st.integers(0, 2**32), step=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_fair_step_uses_every_free_choice_equally(
    space: SearchSpace, seed: int, step: int
) -> None:
    paths = fair_paths(space, random.Random(seed), step)
    most = max(len(row.choices) for row in space.rows)
    assert len(paths) == fair_passes(space) == most
    free = [_free(space, path) for path in paths]
    for index, row in enumerate(space.rows):
        used = Counter(path[index] for path, may in zip(paths, free, strict=True) if may[index])
        assert _spread(used, range(len(row.choices))) <= 1
        if len(row.choices) == most:
            assert set(used.values()) == {1}
    for path in paths:
        space.edges_of(path)  # raises for what is no path


@pytest.mark.parametrize("space", FAIR_SPACES.values(), ids=FAIR_SPACES)
def test_fairness_holds_over_any_number_of_steps(space: SearchSpace) -> None:
    used: list[Counter[int]] = [Counter() for _ in space.rows]
    members = set()
    for step in range(12):
        paths = fair_paths(space, random.Random(f"{step}"), step)
        members |= set(paths)
        for path in paths:
            for row, choice in zip(used, path, strict=True):
                row[choice] += 1
        for index, row in enumerate(space.rows):
            # A second extra row is absent more often: the prefix rule.
            if not row.optional or not space.rows[index - 1].optional:
                assert _spread(used[index], range(len(row.choices))) <= 1, (step, row.name)
    assert len(members) > fair_passes(space)


def test_no_choice_of_a_second_extra_row_is_starved() -> None:
    """How often such a row is free differs between steps; where the dealing begins is drawn."""
    index = next(i for i, row in enumerate(DEEP.rows) if row.optional and DEEP.rows[i - 1].optional)
    used = Counter(
        path[index]
        for step in range(200)
        for path in fair_paths(DEEP, random.Random(step), step)
        if _free(DEEP, path)[index]
    )
    counts = [used[choice] for choice in range(len(DEEP.rows[index].choices))]
    assert chisquare(counts).pvalue > 1e-4


def test_every_depth_is_trained_by_fair_steps() -> None:
    extra = [index for index, row in enumerate(DEEP.rows) if row.optional][:2]
    depths = Counter(
        sum(DEEP.rows[index].choices[path[index]].present for index in extra)
        for step in range(10)
        for path in fair_paths(DEEP, random.Random(step), step)
    )
    assert set(depths) == {0, 1, 2}


@given(seed=st.integers(0, 2**32), step=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_fair_step_over_decisions_uses_every_value_equally(seed: int, step: int) -> None:
    paths = fair_paths(DEEP, random.Random(seed), step, "decisions")
    assert len(paths) == fair_passes(DEEP, "decisions") == 3
    free = [_free(DEEP, path) for path in paths]
    for index, row in enumerate(DEEP.rows):
        chosen = [row.choices[path[index]] for path in paths]
        if row.optional:
            offered = [c for c, may in zip(chosen, free, strict=True) if may[index]]
            assert _spread(Counter(c.present for c in offered), (False, True)) <= 1
        chosen = [choice for choice in chosen if choice.present]
        assert _spread(Counter(c.kernel for c in chosen), row.kernels or (None,)) <= 1
        assert _spread(Counter(c.expand for c in chosen), row.expands or (None,)) <= 1
        assert _spread(Counter(c.width for c in chosen), row.widths or (None,)) <= 1


def test_fair_decisions_over_many_steps() -> None:
    expands: Counter[float | None] = Counter()
    kernels: Counter[int | None] = Counter()
    row = DEEP.rows[2]
    assert (len(row.expands), len(row.kernels), row.optional) == (3, 2, False)
    for step in range(15):
        for path in fair_paths(DEEP, random.Random(step), step, "decisions"):
            expands[row.choices[path[2]].expand] += 1
            kernels[row.choices[path[2]].kernel] += 1
        assert _spread(expands, row.expands) == 0
        assert _spread(kernels, row.kernels) == (step + 1) % 2


def test_a_space_without_a_choice_has_one_fair_pass() -> None:
    only = SearchSpace.around(MICRO, (1,), (1,), (0,), (0,))
    for over in ("choices", "decisions"):
        (path,) = fair_paths(only, random.Random(0), 3, over)
        assert only.architecture(path) == only.target


@pytest.mark.parametrize("over", ["choices", "decisions"])
def test_a_fair_step_leaves_the_mean_gradient(over: str, net: Network) -> None:
    options = SupernetOptions(method="fair", fair_over=over)  # type: ignore[arg-type]
    losses, found = _run(supernet_step(SMALL, options), net, _state(3))
    images, labels = _batch()
    paths = fair_paths(SMALL, _state(3).rng, 3, over)
    each = [_state(3).loss(net(images, SMALL.architecture(path)), labels) for path in paths]
    mean = torch.stack(each).mean()
    _assert_equal(found, _gradients(net, mean))
    torch.testing.assert_close(losses["path"], mean.detach())
    assert len(set(paths)) == 4


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_edge_dropout_ends_as_the_single_path(seed: int) -> None:
    for space in FAIR_SPACES.values():
        drawn = space.sample_path(random.Random(seed))
        assert dropout_path(space, random.Random(seed), 1.0) == drawn


@pytest.mark.parametrize("space", FAIR_SPACES.values(), ids=FAIR_SPACES)
def test_edge_dropout_at_rate_0_is_the_whole_supernet(space: SearchSpace) -> None:
    for seed in range(20):
        path = dropout_path(space, random.Random(seed), 0.0)
        assert space.architecture(path) == space.largest


def _numbers(arch: Architecture) -> list[tuple[int, int, int]]:
    """Kernel, inner and outer width of every row; zeros where it is absent."""
    names = ("kernel", "mid", "out")
    return [
        (0, 0, 0) if isinstance(row, Skip) else tuple(getattr(row, name, 0) for name in names)  # type: ignore[misc]
        for row in arch.rows
    ]


@given(seed=st.integers(0, 2**32), rate=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_what_survives_contains_the_drawn_path(seed: int, rate: float) -> None:
    drawn = DEEP.architecture(DEEP.sample_path(random.Random(seed)))
    join = DEEP.architecture(dropout_path(DEEP, random.Random(seed), rate))
    for small, large in zip(_numbers(drawn), _numbers(join), strict=True):
        assert all(a <= b for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_join_is_distributed_as_defined(rate: float) -> None:
    """A row with four nested choices: the greatest survivor, against its exact distribution."""
    row = next(index for index, row in enumerate(SMALL.rows) if len(row.choices) == 4)
    rng = random.Random(1)
    found = Counter(dropout_path(SMALL, rng, rate)[row] for _ in range(4000))
    dropped = rate ** (1 / 3)
    expected = [
        sum(
            (1 if drawn == top else 1 - dropped) * dropped ** (3 - top) / 4
            for drawn in range(top + 1)
        )
        for top in range(4)
    ]
    assert sum(expected) == pytest.approx(1)
    # The rate is the probability that the drawn choice is left alone.
    assert expected[0] == pytest.approx(rate / 4)
    counts = [found[choice] for choice in range(4)]
    assert chisquare(counts, 4000 * np.array(expected)).pvalue > 1e-4


def test_the_rate_rises_linearly_and_stays() -> None:
    options = SupernetOptions(method="edge-dropout", edge_dropout=0.2, edge_dropout_until=0.5)
    rates = [dropout_rate(options, progress) for progress in (0, 0.25, 0.5, 0.75, 0.999)]
    assert rates == pytest.approx([0.2, 0.6, 1, 1, 1])
    late = SupernetOptions(edge_dropout_until=1.0)
    assert dropout_rate(late, 0.999) == pytest.approx(0.999)


def test_an_edge_dropout_step_after_the_annealing_is_a_single_path_step(net: Network) -> None:
    step = supernet_step(SMALL, OPTIONS["edge-dropout"])
    for index in (STEPS // 2, STEPS - 1):
        losses, found = _run(step, net, _state(index))
        expected_losses, expected = _run(single_path_step(SMALL), net, _state(index))
        assert losses == expected_losses
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_first_edge_dropout_step_trains_the_whole_supernet(net: Network) -> None:
    _, found = _run(supernet_step(SMALL, OPTIONS["edge-dropout"]), net, _state(0))
    images, labels = _batch()
    _assert_equal(found, _gradients(net, _state(0).loss(net(images), labels)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("count", [0, 2])
def test_a_sandwich_step_distils_from_the_largest(
    count: int, temperature: float, net: Network
) -> None:
    options = SupernetOptions(method="sandwich", random_paths=count, temperature=temperature)
    losses, found = _run(supernet_step(SMALL, options), net, _state(5))
    images, labels = _batch()
    rng = _state(5).rng
    drawn = [SMALL.sample(rng) for _ in range(count)]
    logits = net(images)
    targets = torch.softmax(logits.detach() / temperature, 1)

    def soft_loss(arch: Architecture) -> Tensor:
        # Cross entropy with soft labels: the divergence but for a constant, the same gradient.
        student = torch.log_softmax(net(images, arch) / temperature, 1)
        return -(targets * student).sum(1).mean() * temperature**2

    hard = _state(5).loss(logits, labels)
    each = [hard, *(soft_loss(arch) for arch in (SMALL.target, *drawn))]
    _assert_equal(found, _gradients(net, torch.stack(each).mean()))
    torch.testing.assert_close(losses["largest"], hard.detach())
    assert losses.keys() == {"largest", "smallest"} | ({"random"} if count else set())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_runs_as_many_passes_as_it_says(
    options: SupernetOptions, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, seen = Network.outputs, []

    def spied(self: Network, x: Tensor, sub: Architecture | None = None) -> Output:
        seen.append(sub)
        return outputs(self, x, sub)

    monkeypatch.setattr(Network, "outputs", spied)
    _run(supernet_step(SMALL, options), net, _state(7))
    assert len(seen) == passes_per_step(SMALL, options)
    for arch in seen:
        SMALL.path(arch or SMALL.largest)  # raises for what is no member


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_is_a_function_of_seed_and_step(options: SupernetOptions, net: Network) -> None:
    step = supernet_step(SMALL, options)
    losses, found = _run(step, net, _state(8))
    again, gradients = _run(step, net, _state(8))
    assert losses == again
    assert all(torch.equal(found[name], gradients[name]) for name in found)
    assert all(not loss.requires_grad and torch.isfinite(loss) for loss in losses.values())
    if options.random_paths or options.method != "sandwich":
        others = [_run(step, net, _state(number, seed))[1] for number, seed in ((9, 0), (8, 1))]
        for other in others:
            assert any(not torch.equal(found[name], other[name]) for name in found)


def test_the_methods_are_those_of_the_table() -> None:
    assert list(SUPERNET_METHODS) == ["single-path", "fair", "edge-dropout", "sandwich"]
    assert SupernetOptions().method == "single-path"
    state = _state(2)
    net = Network(SMALL.largest, generator=torch.Generator().manual_seed(1)).double()
    losses = [
        _run(step, net, _state(2))[0]
        for step in (supernet_step(SMALL, SupernetOptions()), single_path_step(SMALL))
    ]
    assert losses[0] == losses[1]
    assert state.rng.random() == _state(2).rng.random()


def test_passes_of_the_default_space() -> None:
    space = FAIR_SPACES["default"]
    counts = {name: passes_per_step(space, options) for name, options in OPTIONS.items()}
    assert counts == {
        "single-path": 1,
        "fair": 24,
        "edge-dropout": 1,
        "sandwich": 4,
        "fair over decisions": 4,
        "sandwich of two": 2,
    }


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"unknown method 'sandwhich'.*'sandwich'"):
        SupernetOptions(method="sandwhich")


@pytest.mark.parametrize(
    "wrong",
    [
        {"fair_over": "rows"},
        {"edge_dropout": 1.1},
        {"edge_dropout_until": 0},
        {"random_paths": -1},
        {"temperature": 0},
        {"k": 2},
    ],
)
def test_options_have_their_ranges(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SupernetOptions(**wrong)
