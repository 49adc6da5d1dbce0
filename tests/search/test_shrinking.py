"""Progressive shrinking: stages as data, what each may sample, and what a step learns."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chisquare
from torch.nn import functional as F

from nasaug.search import (
    Stage,
    Stages,
    SupernetOptions,
    check_stages,
    default_stages,
    passes_per_step,
    sample_stage,
    shrinking_step,
    supernet_step,
)
from nasaug.supernet import Network, SearchSpace, load_space
from nasaug.training import Batch, Recipe, State

SPACE = load_space("micro_down", 10)
RECIPE = Recipe(label_smoothing=0.1, epochs=7, lr=0.3)
FULL = {"name": "full", "epochs": 1}
ALL = {"kernel": "all", "depth": "all", "expand": "all", "width": "all"}
STAGES: TypeAdapter[tuple[Stage, ...]] = TypeAdapter(Stages)


def _stages(*given: dict[str, Any]) -> tuple[Stage, ...]:
    return STAGES.validate_python(
        [{"name": f"s{i}", "epochs": 1, **g} for i, g in enumerate(given)]
    )


def _drawn(space: SearchSpace, stage: Stage, count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [space.parameters(space.path(sample_stage(space, stage, rng))) for _ in range(count)]


def test_the_first_stage_draws_the_full_network_only() -> None:
    rng = random.Random(0)
    assert {sample_stage(SPACE, Stage(**FULL), rng) for _ in range(20)} == {SPACE.largest}


@given(
    st.sampled_from([1, 2, "all"]),
    st.sampled_from([1, 2, "all"]),
    st.sampled_from([1, 3, "all"]),
    st.sampled_from([1, 2, "all"]),
    st.integers(0, 10**6),
)
def test_what_is_drawn_is_among_the_largest_values(
    kernel: Any, depth: Any, expand: Any, width: Any, seed: int
) -> None:
    stage = Stage(name="s", epochs=1, kernel=kernel, depth=depth, expand=expand, width=width)
    found = SPACE.parameters(SPACE.path(sample_stage(SPACE, stage, random.Random(seed))))
    for row in SPACE.rows:
        present = found.get(f"{row.name}.present", True)
        for name, options in row.decisions.items():
            kind = name.rpartition(".")[2]
            if kind != "present" and present:
                assert options.index(found[name]) >= len(options) - stage.reach[kind]
    for network_stage in ("stage2", "stage3"):
        absent = [found[f"{network_stage}.block{n}.present"] for n in (2, 3)].count(False)
        assert absent < stage.reach["depth"]


def test_all_values_and_depths_are_drawn_equally_often() -> None:
    drawn = _drawn(SPACE, Stage(name="s", epochs=1, **ALL), 3000)
    for name in ("stem.width", "stage2.block1.expand", "stage1.block1.kernel", "head.width"):
        counts = Counter(values[name] for values in drawn)
        assert set(counts) == set(SPACE.decisions[name])
        assert chisquare(list(counts.values())).pvalue > 1e-4
    depths = Counter(sum(values[f"stage3.block{n}.present"] for n in (2, 3)) for values in drawn)
    assert set(depths) == {0, 1, 2} and chisquare(list(depths.values())).pvalue > 1e-4


def test_default_stages_are_once_for_alls() -> None:
    ofa = default_stages(load_space("mbv3_ofa"), epochs=5)
    names = ["full", "kernel-3", "depth-2", "depth-3", "expand-2", "expand-3"]
    assert [stage.name for stage in ofa] == names
    assert ofa[-1].reach == {"kernel": 3, "depth": 3, "expand": 3, "width": 1}
    assert {stage.epochs for stage in ofa} == {5}
    micro = default_stages(SPACE, epochs=1)
    assert micro[-1].reach == {"kernel": 2, "depth": 3, "expand": 4, "width": 5}
    check_stages(micro, SPACE)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([FULL, {**FULL}], "'full' is there twice"),
        ([{"kernel": 2}], "the first stage must train the full network alone"),
        ([{}, {"depth": 2}, {"kernel": 2}], "s2 has depth 1 after 2 in s1"),
        ([{}, {"expand": "all"}, {"expand": 2}], "s2 has expand 2 after all in s1"),
        ([{"kernel": 0}], "greater than or equal to 1"),
        ([{"epochs": 0}], "greater than or equal to 1"),
        ([{"wide": 2}], "wide"),
        ([{"name": "../up"}], "name"),
    ],
)
def test_stages_that_cannot_follow_one_another_are_refused(
    stages: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        _stages(*stages)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({**ALL, "width": 2}, "s1 leaves values of width out"),
        ({"kernel": "all"}, "leaves values of depth, expand, width out"),
        ({**ALL, "kernel": 7}, "kernel 7 is more than the 2 that micro_down has; use 2, or all"),
    ],
)
def test_stages_that_do_not_fit_the_space_are_refused(last: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_stages(_stages({}, last), SPACE)


def test_a_stage_has_the_recipe_with_its_own_length_and_rate() -> None:
    plain = Stage(**FULL).recipe(RECIPE)
    assert (plain.epochs, plain.lr, plain.warmup_epochs) == (1, 0.3, 1)
    own = Stage(name="s", epochs=2, lr=0.1, warmup_epochs=0).recipe(RECIPE)
    assert (own.epochs, own.lr, own.warmup_epochs) == (2, 0.1, 0)
    assert own.label_smoothing == RECIPE.label_smoothing


def test_channels_are_sorted_where_width_or_expand_ratio_becomes_elastic() -> None:
    full, kernel, expand, longer = _stages(
        {}, {"kernel": 2}, {"kernel": 2, "expand": 2}, {"kernel": 2, "expand": 2}
    )
    pairs = [(full, None), (kernel, full), (expand, kernel), (longer, expand)]
    assert [stage.sorts(before) for stage, before in pairs] == [False, False, True, False]


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (8,), generator=generator)


def _network(seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return Network(SPACE.largest.canonical(), generator=generator).double()


@pytest.mark.parametrize("taught", [False, True])
def test_gradients_are_those_of_the_mean_loss_written_out(batch: Batch, taught: bool) -> None:
    stage = Stage(name="s", epochs=1, paths=3, **ALL)
    net, teacher = _network(0).train(), _network(1).eval()
    step = shrinking_step(SPACE, stage, teacher if taught else None, 0.25, 2.0)
    state = State(RECIPE, 3, 10, 5, 0, nullcontext, list)
    losses = step(net, batch, state)
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert all(p.grad is None for p in teacher.parameters())

    rng = random.Random("0/step/3")
    images, labels = batch
    expected = torch.zeros((), dtype=torch.float64)
    for _ in range(3):
        logits = net(images, sample_stage(SPACE, stage, rng))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        if taught:
            with torch.no_grad():
                soft = F.softmax(teacher(images) / 2.0, 1)
            student = F.log_softmax(logits / 2.0, 1)
            divergence = (soft * (soft.log() - student)).sum(1).mean()
            loss = 0.75 * loss + 0.25 * 4.0 * divergence
        expected = expected + loss / 3
    assert float(losses["path"]) == pytest.approx(expected.item())
    parameters = {name: p for name, p in net.named_parameters() if name in found}
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_stages_belong_to_shrinking() -> None:
    stages = [FULL, {**FULL, **ALL, "name": "rest"}]
    assert SupernetOptions(method="shrinking", stages=stages).shrinks
    assert not SupernetOptions(method="sandwich").shrinks
    with pytest.raises(ValidationError, match="set method: shrinking"):
        SupernetOptions(stages=stages)


def test_shrinking_has_no_single_step() -> None:
    options = SupernetOptions(method="shrinking")
    with pytest.raises(ValueError, match="a step for each of its stages"):
        supernet_step(SPACE, options)
    with pytest.raises(ValueError, match="in each of its stages"):
        passes_per_step(SPACE, options)
