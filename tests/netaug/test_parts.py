"""The parts of the training step: each against the same losses written out and differentiated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.netaug import (
    METHODS,
    Augmentation,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    RelationalOptions,
    training_step,
)
from nasaug.netaug.sampling import tied
from nasaug.supernet import Architecture, Factors, Network, Noise, Output, SearchSpace
from nasaug.training import (
    Batch,
    State,
    certainty,
    distillation,
    relational_loss,
)
from nasaug.training.gradients import Gradients

MakeState = Callable[..., State]
INDEX = 7


def _run(net: Network, batch: Batch, state: State, parts: Parts) -> dict[str, Tensor]:
    """The gradients that a step leaves, merged as `fit` does."""
    net.zero_grad(set_to_none=True)
    state.gradients = Gradients(net)
    training_step(parts)(net, batch, state)
    state.gradients.merge()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def _gradients(net: Network, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*net.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-11)


def _loss(out: Output, batch: Batch) -> Tensor:
    return F.cross_entropy(out.logits, batch[1], label_smoothing=0.1)


@pytest.fixture
def parts(augmentation: Augmentation) -> Parts:
    return Parts(augmentation, NetAugOptions(sort_channels=False))


def _with(parts: Parts, **options: Any) -> Parts:
    return replace(parts, netaug=parts.netaug.model_copy(update=options))


def _drawn(augmentation: Augmentation, state: State, count: int) -> list[Architecture]:
    rng = random.Random(f"{state.seed}/step/{state.step}")
    return [augmentation.helpers.sample(rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("mixing", "share"), [("sum", 1.0), ("mean", 1 / 3), ("anneal", 1 - INDEX / 100)]
)
def test_mixings_weigh_three_helpers(
    mixing: str,
    share: float,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    state = make_state(INDEX)
    total = _loss(net.outputs(batch[0], augmentation.target), batch)
    for helper in _drawn(augmentation, state, 3):
        total = total + 0.5 * share * _loss(net.outputs(batch[0], helper), batch)
    found = _run(net, batch, state, _with(parts, mixing=mixing, helpers=3, alpha=0.5))
    _assert_close(found, _gradients(net, total))


def test_surgery_projects_the_helpers_gradient(
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """PCGrad on flat vectors. The target is taught wrong labels, so that there is conflict."""
    wrong = 10.0 * F.one_hot((batch[1] + 1) % 10, 10).double()
    taught = replace(
        _with(parts, mixing="surgery"),
        distill=DistillOptions(weight=1.0, temperature=1.0, helpers=False),
        teacher=lambda images, state: wrong,
    )
    conflicts = 0
    for index in range(INDEX, INDEX + 6):
        state = make_state(index)
        (helper,) = _drawn(augmentation, state, 1)
        target = net.outputs(batch[0], augmentation.target)
        base = _gradients(net, distillation(target.logits, wrong))
        aid = _gradients(net, _loss(net.outputs(batch[0], helper), batch))
        product = torch.stack([(base[n] * aid[n]).sum() for n in base]).sum()
        norm = torch.stack([base[n].square().sum() for n in base]).sum()
        share = (product / norm).clamp(max=0)
        conflicts += int(share < 0)
        expected = {name: base[name] + aid[name] - share * base[name] for name in base}
        _assert_close(_run(net, batch, state, taught), expected)
    assert conflicts


@pytest.mark.parametrize("sampling", ["independent", "largest"])
@pytest.mark.parametrize("mixing", ["sum", "surgery"])
@pytest.mark.parametrize(
    "relational",
    [
        RelationalOptions(weight=3.0),
        RelationalOptions(weight=3.0, attached=False),
        RelationalOptions(weight=3.0, teacher_loss=True),
        RelationalOptions(weight=3.0, attached=False, teacher_loss=True, angle=0.0),
    ],
)
def test_relations_of_the_largest_network_are_taught(
    relational: RelationalOptions,
    mixing: str,
    sampling: str,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """Attached, the gradient reaches the teacher's weights; its own loss is a helper's."""
    state = make_state(INDEX)
    largest = net.outputs(batch[0], augmentation.largest)
    target = net.outputs(batch[0], augmentation.target)
    teacher = largest.embedding if relational.attached else largest.embedding.detach()
    loss = relational_loss(teacher, target.embedding, 1.0, relational.angle)
    base = _loss(target, batch) + 3.0 * loss
    helping = torch.zeros((), dtype=torch.float64)
    if sampling == "largest" or relational.teacher_loss:
        helping = helping + _loss(largest, batch)
    if sampling == "independent":
        (helper,) = _drawn(augmentation, state, 1)
        helping = helping + _loss(net.outputs(batch[0], helper), batch)
    expected, aid = _gradients(net, base), _gradients(net, helping)
    share = torch.zeros((), dtype=torch.float64)
    if mixing == "surgery":
        product = sum((expected[n] * aid[n]).sum() for n in expected)
        norm = sum(expected[n].square().sum() for n in expected)
        share = torch.as_tensor(product / norm).clamp(max=0)
    expected = {n: expected[n] * (1 - share) + aid[n] for n in expected}
    given = replace(_with(parts, mixing=mixing, sampling=sampling), relational=relational)
    _assert_close(_run(net, batch, state, given), expected)


@pytest.mark.parametrize("certain", [False, True])
def test_helpers_teach_in_place(
    certain: bool,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    state = make_state(INDEX)
    target = net.outputs(batch[0], augmentation.target)
    total = _loss(target, batch)
    for helper in _drawn(augmentation, state, 2):
        out = net.outputs(batch[0], helper)
        weights = certainty(out.logits) if certain else None
        lesson = distillation(target.logits, out.logits.detach(), 3.0, weights)
        total = total + _loss(out, batch) + 0.7 * lesson / 2
    options = InPlaceOptions(weight=0.7, temperature=3.0, certainty=certain)
    given = replace(_with(parts, helpers=2), in_place=options)
    _assert_close(_run(net, batch, state, given), _gradients(net, total))


@pytest.mark.parametrize("all_learn", [False, True])
def test_an_outer_teacher_teaches_all_or_the_target_alone(
    all_learn: bool,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    soft = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    asked = []

    def teacher(images: Tensor, state: State) -> Tensor:
        asked.append((images is batch[0], state.step))
        return soft

    state = make_state(INDEX)
    target = net.outputs(batch[0], augmentation.target)
    (drawn,) = _drawn(augmentation, state, 1)
    helper = net.outputs(batch[0], drawn)
    total = 0.6 * _loss(target, batch) + 0.4 * distillation(target.logits, soft, 2.0)
    hard = _loss(helper, batch)
    total = total + (
        0.6 * hard + 0.4 * distillation(helper.logits, soft, 2.0) if all_learn else hard
    )
    options = DistillOptions(weight=0.4, temperature=2.0, helpers=all_learn)
    given = replace(parts, distill=options, teacher=teacher)
    _assert_close(_run(net, batch, state, given), _gradients(net, total))
    assert asked == [(True, INDEX)]


def test_target_alone_learns_from_a_teacher_too(
    micro: Architecture, batch: Batch, make_state: MakeState
) -> None:
    net = Network(micro, generator=torch.Generator().manual_seed(0)).double().train()
    soft = torch.zeros(8, 10, dtype=torch.float64)
    out = net.outputs(batch[0])
    total = 0.5 * _loss(out, batch) + 0.5 * distillation(out.logits, soft, 4.0)
    given = Parts(distill=DistillOptions(), teacher=lambda images, state: soft)
    _assert_close(_run(net, batch, make_state(), given), _gradients(net, total))


def test_netdistiller_is_its_formula(
    augmentation: Augmentation, net: Network, batch: Batch, make_state: MakeState
) -> None:
    """The largest network is the helper and the teacher, in one pass; no step widens or sorts."""
    sections = METHODS["netdistiller"].sections
    parts = Parts(
        augmentation,
        NetAugOptions(**sections["netaug"]),
        in_place=InPlaceOptions(**sections["in_place"]),
    )
    target = net.outputs(batch[0], augmentation.target)
    largest = net.outputs(batch[0], augmentation.largest)
    lesson = distillation(target.logits, largest.logits.detach(), 1.0, certainty(largest.logits))
    base = _gradients(net, _loss(target, batch) + lesson)
    aid = _gradients(net, _loss(largest, batch))
    product = sum((base[n] * aid[n]).sum() for n in base)
    share = torch.as_tensor(product / sum(base[n].square().sum() for n in base)).clamp(max=0)
    expected = {n: base[n] * (1 - share) + aid[n] for n in base}
    # Also late in training and at the beginning of an epoch.
    for step in (0, 90):
        _assert_close(_run(net, batch, make_state(step), parts), expected)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 2),
        ({"relational": RelationalOptions()}, 3),
        ({"relational": RelationalOptions(), "sampling": "largest"}, 2),
        ({"in_place": InPlaceOptions()}, 2),
        ({"in_place": InPlaceOptions(), "relational": RelationalOptions(), "helpers": 2}, 4),
    ],
)
def test_no_pass_is_made_twice(
    options: dict[str, Any],
    passes: int,
    parts: Parts,
    net: Network,
    batch: Batch,
    make_state: MakeState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Embeddings and logits are those of the one pass; accuracy is counted on the way."""
    made = []
    outputs = Network.outputs

    def counted(self: Network, *arguments: Any) -> Output:
        made.append(arguments[1])
        return outputs(self, *arguments)

    monkeypatch.setattr(Network, "outputs", counted)
    given = dict(options)
    own = {key: given.pop(key) for key in ("sampling", "helpers") if key in given}
    state = make_state(INDEX)
    _run(net, batch, state, replace(_with(parts, **own), **given))
    assert len(made) == passes
    assert set(state.observed) == {"top1_target", "top1_helper"}


def test_noise_is_a_function_of_seed_step_and_pass(
    parts: Parts, net: Network, batch: Batch, make_state: MakeState
) -> None:
    noisy = replace(parts, noise=Noise(dropout=0.5, drop_path=0.3))
    before = torch.get_rng_state()
    first = _run(net, batch, make_state(INDEX), noisy)
    assert torch.equal(torch.get_rng_state(), before)
    _assert_close(_run(net, batch, make_state(INDEX), noisy), first)
    quiet = _run(net, batch, make_state(INDEX), parts)
    other = _run(net, batch, make_state(INDEX, seed=1), noisy)
    name = "blocks.7.linear.weight"
    name = name if name in first else next(n for n in first if n.endswith("linear.weight"))
    assert not torch.allclose(first[name], quiet[name])
    assert not torch.allclose(first[name], other[name])


def test_tied_sampling_draws_once_a_stage(augmentation: Augmentation) -> None:
    """Rows of one stage choose the same place in their lists; stages choose by themselves."""
    space = augmentation.helpers
    seen: dict[str, set[tuple[int, ...]]] = {}
    for seed in range(60):
        arch = tied(space, random.Random(seed))
        values = space.parameters(space.path(arch))
        places: dict[tuple[str, str], set[float]] = {}
        for name, options in space.decisions.items():
            row, _, decision = name.rpartition(".")
            place = options.index(values[name]) / len(options)
            places.setdefault((row.partition(".")[0], decision), set()).add(place)
            seen.setdefault(name, set()).add((options.index(values[name]),))
        assert all(len(found) == 1 for found in places.values())
    assert all(len(seen[name]) == len(options) for name, options in space.decisions.items())


@pytest.mark.parametrize("relational", [False, True])
def test_cheaper_help_is_of_part_of_the_batch_and_smaller_images(
    relational: bool,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    state = make_state(INDEX)
    (drawn,) = _drawn(augmentation, state, 1)
    images, labels = batch
    small = F.interpolate(images[:4], (20, 20), mode="bilinear", antialias=True)
    target = net.outputs(images, augmentation.target)
    total = _loss(target, batch) + _loss(net.outputs(small, drawn), (small, labels[:4]))
    given = _with(parts, share=0.45, resolution=20)
    if relational:
        given = replace(given, relational=RelationalOptions())
        teacher = net.outputs(small, augmentation.largest).embedding
        total = total + relational_loss(teacher, target.embedding[:4])
    _assert_close(_run(net, batch, state, given), _gradients(net, total))


@pytest.mark.parametrize("in_place", [None, InPlaceOptions()])
def test_without_help_a_step_is_the_targets_own(
    in_place: InPlaceOptions | None,
    parts: Parts,
    augmentation: Augmentation,
    net: Network,
    batch: Batch,
    make_state: MakeState,
) -> None:
    """Every third step, and between a fifth and a half of training."""
    expected = _gradients(net, _loss(net.outputs(batch[0], augmentation.target), batch))
    given = replace(_with(parts, every=3, start=0.2, stop=0.5), in_place=in_place)
    net.zero_grad(set_to_none=True)
    helped = [
        step for step in range(0, 100, 1) if given.netaug.helps(step, make_state(step).progress)
    ]
    assert helped == list(range(21, 50, 3))
    for step in (0, 18, 22, 51):
        _assert_close(_run(net, batch, make_state(step), given), expected)
    found = _run(net, batch, make_state(21), given)
    assert any(not torch.allclose(found[name], expected[name]) for name in expected)


def test_tied_sampling_reaches_every_depth(micro: Architecture) -> None:
    """With two rows more a stage at most, none, one and two of them are drawn."""
    space = SearchSpace.around(micro, (1.0,), (1.0,), (0,), (0, 1, 2))
    depths: dict[str, set[int]] = {}
    for seed in range(60):
        values = space.parameters(space.path(tied(space, random.Random(seed))))
        there: Counter[str] = Counter()
        for name, present in values.items():
            there[name.partition(".")[0]] += bool(present)
        for stage, depth in there.items():
            depths.setdefault(stage, set()).add(depth)
    assert depths and all(found == {0, 1, 2} for found in depths.values())


def test_channels_are_not_sorted_while_nobody_trains_them(
    parts: Parts, net: Network, batch: Batch, make_state: MakeState
) -> None:
    sorted_in = _with(parts, sort_channels=True, start=0.2, stop=0.4)
    before = {name: p.clone() for name, p in net.named_parameters()}
    for step in (0, 10, 40):
        _run(net, batch, make_state(step), sorted_in)
        assert all(torch.equal(before[name], p) for name, p in net.named_parameters())
    _run(net, batch, make_state(20), sorted_in)
    assert not all(torch.equal(before[name], p) for name, p in net.named_parameters())


def test_a_second_phase_without_anything_larger_has_no_helpers(
    micro: Architecture, batch: Batch, make_state: MakeState
) -> None:
    """Else the target would be trained twice a step, and taught by itself."""
    wide = Augmentation.by_factors(micro, Factors((1.0, 2.0), (1.0,)))
    net = Network(wide.largest.canonical(), generator=torch.Generator().manual_seed(0)).double()
    given = Parts(wide, NetAugOptions(sort_channels=False), relational=RelationalOptions())
    expected = _gradients(net.train(), _loss(net.outputs(batch[0], wide.target), batch))
    _assert_close(_run(net, batch, make_state(60), given), expected)


def test_anchors_are_drawn_alike_on_all_workers(
    parts: Parts, net: Network, batch: Batch, make_state: MakeState
) -> None:
    few = replace(parts, relational=RelationalOptions(anchors=2, distance=0.0))
    first = _run(net, batch, make_state(INDEX), few)
    _assert_close(_run(net, batch, make_state(INDEX), few), first)
    whole = replace(parts, relational=RelationalOptions(anchors=None, distance=0.0))
    other = _run(net, batch, make_state(INDEX), whole)
    assert any(not torch.allclose(first[name], other[name]) for name in first)
