"""Races on recorded answers: what is dropped, what must not be, and how many images it takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from scipy.stats import binomtest
from torch import Tensor

from nasaug.search import Answers, InheritedAccuracy, PairedRace, racing, search
from nasaug.supernet import Architecture, Network, SearchSpace
from nasaug.training import Batch, reestimate_batch_norm


class Record:
    """Recorded margins, a row a network; an image is right where its margin is above 0.

    `asked[arch]` (N,) counts how often an image was asked for.
    """

    def __init__(self, archs: list[Architecture], margins: Any) -> None:
        self.margins = dict(zip(archs, torch.tensor(margins, dtype=torch.float64), strict=True))
        self.asked = {arch: torch.zeros(len(one)) for arch, one in self.margins.items()}

    def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers:
        margins = self.margins[arch]
        chosen = torch.arange(len(margins)) if chosen is None else chosen
        self.asked[arch][chosen] = 1
        return Answers(margins[chosen] > 0, margins[chosen])

    def __call__(self, arch: Architecture) -> float:
        return float(self.answers(arch).right.double().mean())

    def images(self) -> int:
        return int(sum(float(one.sum()) for one in self.asked.values()))


@pytest.fixture(scope="module")
def archs(space: SearchSpace) -> list[Architecture]:
    rng = random.Random(0)
    return [space.sample(rng).canonical() for _ in range(400)]


def _similar(seed: int, networks: int, images: int, worse: float = 0.0) -> Any:
    """Margins of networks that find the same images hard; about 0.8 of the answers are right.

    Each network but the first is worse by up to `worse` in all its margins.
    """
    rng = np.random.default_rng(seed)
    ease = 1.7 + 2 * rng.standard_normal(images)
    noise = 0.5 * rng.standard_normal((networks, images))
    shift = -worse * rng.random((networks, 1))
    shift[0] = 0
    return ease + noise + shift


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(8, 300), st.sampled_from([0.0, 0.1, 0.5]))
def test_what_is_certain_never_changes_the_final_choice(
    archs: list[Architecture], seed: int, images: int, worse: float
) -> None:
    """With confidence 1 no candidate is dropped that would have been as good as the incumbent."""
    record = Record(archs[:25], _similar(seed, 25, images, worse))
    race, best = PairedRace(record, confidence=1), archs[0]
    for arch in archs[1:25]:
        interim = race(arch, [best])
        if interim is not None:
            assert record(arch) < record(best)
            assert 0 <= interim <= record(best)
        elif record(arch) > record(best):
            best = arch
    assert record(best) == max(record(arch) for arch in archs[:25])


@pytest.mark.parametrize("seed", range(40))
def test_bound_drops_as_soon_as_no_answer_can_help(
    seed: int, archs: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all ways in which nine images could go on, deciding after each of them."""
    monkeypatch.setattr(racing, "LEAST_STEP", 1)
    margins = np.random.default_rng(seed).standard_normal((2, 9)) + 0.4
    record = Record(archs[:2], margins)
    incumbent, candidate = archs[:2]
    dropped = PairedRace(record, confidence=1)(candidate, [incumbent]) is not None
    seen = record.asked[candidate].bool().numpy()
    right = margins > 0

    def may_reach(known: Any) -> bool:
        """Whether some completion of the known answers is as good as the incumbent."""
        free = int((~known).sum())
        return any(
            right[1][known].sum() + sum(rest) >= right[0].sum()
            for rest in product((0, 1), repeat=free)
            if all(one <= 1 for one in rest)
        )

    assert dropped == (not may_reach(seen))
    if dropped:
        # The last image seen decided: without it there was still a way.
        last = seen.copy()
        last[_order(margins[0])[seen.sum() - 1]] = False
        assert may_reach(last) or seen.sum() == 1
    else:
        # The last image is left to the judge.
        assert seen.sum() == 8


def _order(margins: Any) -> list[int]:
    """The nearest eighth, then the wrong ones, then the right ones, each nearest first."""
    nearest = sorted(range(len(margins)), key=lambda i: abs(margins[i]))
    first = max(1, len(margins) // 8)
    rest = nearest[first:]
    return [
        *nearest[:first],
        *(i for i in rest if margins[i] <= 0),
        *(i for i in rest if margins[i] > 0),
    ]


@pytest.mark.parametrize("images", [9, 64, 333])
def test_images_are_met_in_the_incumbents_order(images: int, archs: list[Architecture]) -> None:
    margins = _similar(1, 2, images)
    asked: list[list[int]] = []

    class Watched(Record):
        def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers:
            if chosen is not None:
                asked.append(chosen.tolist())
            return super().answers(arch, chosen)

    PairedRace(Watched(archs[:2], margins), confidence=1)(archs[1], [archs[0]])
    order = _order(margins[0])
    assert asked == [order[: len(one)] for one in asked]
    assert len(asked[0]) == max(1, images // 8)
    assert all(len(b) - len(a) == 32 for a, b in pairwise(asked))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("gained", [0, 1, 3])
@pytest.mark.parametrize("lost", range(0, 16, 3))
def test_first_look_is_the_sign_test(
    gained: int, lost: int, confidence: float, archs: list[Architecture]
) -> None:
    """Of 320 images the first look sees 40 that the incumbent half gets right; the rest agrees."""
    incumbent = np.concatenate([np.tile([0.1, -0.1], 20), np.full(240, 5.0), np.full(40, -5.0)])
    candidate = incumbent.copy()
    candidate[np.flatnonzero(incumbent == 0.1)[:lost]] = -1
    candidate[np.flatnonzero(incumbent == -0.1)[:gained]] = 1
    record = Record(archs[:2], np.stack([incumbent, candidate]))
    interim = PairedRace(record, confidence)(archs[1], [archs[0]])
    unlikely = False
    if gained + lost:
        test = binomtest(gained, gained + lost, 0.5, alternative="less")
        unlikely = test.pvalue <= 1 - confidence
    if unlikely:
        assert interim is not None and record.asked[archs[1]].sum() == 40
    else:
        assert record.asked[archs[1]].sum() > 40


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_one_as_good_is_dropped_no_more_often_than_allowed(
    confidence: float, archs: list[Architecture]
) -> None:
    """Pairs of equal quality, of which half are at least as good by chance."""
    dropped = as_good = 0
    for seed in range(600):
        record = Record(archs[:2], _similar(seed, 2, 400))
        if record(archs[1]) < record(archs[0]):
            continue
        as_good += 1
        dropped += PairedRace(record, confidence)(archs[1], [archs[0]]) is not None
    assert as_good > 250
    assert dropped <= (1 - confidence) * as_good


@pytest.mark.parametrize(("confidence", "share"), [(1.0, 0.5), (0.95, 0.4)])
def test_a_sequence_of_candidates_costs_a_part_of_the_images(
    confidence: float, share: float, archs: list[Architecture]
) -> None:
    record = Record(archs[:100], _similar(5, 100, 1000, worse=0.3))
    race, best = PairedRace(record, confidence), archs[0]
    for arch in archs[1:100]:
        if race(arch, [best]) is None:
            best = max(best, arch, key=record)
    assert 0 < record.images() < share * 100 * 1000


def test_interim_accuracy_is_near_the_whole_one(archs: list[Architecture]) -> None:
    record = Record(archs, _similar(7, 400, 2000, worse=0.4))
    race = PairedRace(record)
    errors = []
    for arch in archs[1:]:
        interim = race(arch, [archs[0]])
        if interim is not None:
            errors.append((interim, record(arch)))
    found, whole = np.array(errors).T
    assert len(errors) > 200
    assert abs(float((found - whole).mean())) < 0.01
    assert float(np.corrcoef(found, whole)[0, 1]) > 0.8
    assert (found <= record(archs[0])).all()


def test_outcome_depends_on_the_candidate_and_the_best_incumbent_only(
    archs: list[Architecture],
) -> None:
    margins = _similar(11, 12, 500)
    best = sorted(archs[:12], key=Record(archs[:12], margins))[6]

    def outcomes(candidates: list[Architecture], others: list[Architecture]) -> dict[Any, Any]:
        race = PairedRace(Record(archs[:12], margins))
        return {arch: race(arch, [best, *others]) for arch in candidates if arch != best}

    first = outcomes(archs[:12], [])
    assert outcomes(archs[:12][::-1], archs[3:5]) == first
    assert {None} < {*first.values()}


def test_changing_the_incumbent_changes_the_reference(archs: list[Architecture]) -> None:
    margins = np.stack([np.full(80, 1.0), np.full(80, -1.0), np.full(80, 1.0)])
    race = PairedRace(Record(archs[:3], margins))
    assert race(archs[1], [archs[0]]) is not None
    assert race(archs[2], [archs[1]]) is None
    assert race(archs[1], [archs[2], archs[0]]) is not None


def test_without_an_incumbent_nothing_is_judged(archs: list[Architecture]) -> None:
    record = Record(archs[:1], [[1.0, -1.0]])
    assert PairedRace(record)(archs[0], []) is None
    assert record.images() == 0


@pytest.mark.parametrize("images", [1, 2, 7])
def test_few_images_do(images: int, archs: list[Architecture]) -> None:
    margins = np.stack([np.full(images, 1.0), np.full(images, -1.0), np.zeros(images)])
    race = PairedRace(Record(archs[:3], margins), confidence=1)
    assert race(archs[0], [archs[1]]) is None
    assert race(archs[1], [archs[2]]) is None


@pytest.mark.parametrize("confidence", [0.5, 1.01, -1, float("nan")])
def test_confidence_out_of_range_is_refused(confidence: float, archs: list[Architecture]) -> None:
    with pytest.raises(ValueError, match=r"confidence must be above 0\.5 and at most 1"):
        PairedRace(Record(archs[:1], [[1.0]]), confidence)


def test_race_in_a_search_finds_the_same_best_with_fewer_images(space: SearchSpace) -> None:
    """The same candidates in the same order; those pruned have an interim accuracy."""
    ease = 1.7 + 2 * np.random.default_rng(0).standard_normal(600)

    class Lazy(Record):
        def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers:
            arch = arch.canonical()
            if arch not in self.margins:
                rng = np.random.default_rng(space.path(arch))
                noise = 0.5 * rng.standard_normal(600) - 0.3 * rng.random()
                self.margins[arch] = torch.tensor(ease + noise)
                self.asked[arch] = torch.zeros(600)
            return super().answers(arch, chosen)

    def run(race: Callable[[Record], Any]) -> tuple[Any, Record]:
        judge = Lazy([], np.zeros((0, 0)))
        limits = space.source.dearest // 2
        study = search(
            space, judge, limits, InMemoryStorage(), "random", 60, race=race(judge), seed=3
        )
        return study, judge

    alone, judged = run(lambda judge: None)
    raced, judge = run(lambda judge: PairedRace(judge, confidence=1))
    assert raced.best_params == alone.best_params
    assert raced.best_value == alone.best_value
    assert [t.params for t in raced.trials] == [t.params for t in alone.trials]
    assert judged.images() == 60 * 600
    assert judge.images() < 60 * 600 / 2
    pruned = [t for t in raced.trials if t.state == TrialState.PRUNED]
    assert len(pruned) > 40
    for trial in pruned:
        assert alone.trials[trial.number].value < alone.best_value
        assert abs(trial.intermediate_values[0] - alone.trials[trial.number].value) < 0.06


def test_network_that_survives_reads_every_image_once(tiny_space: SearchSpace) -> None:
    generator = torch.Generator().manual_seed(0)
    net = Network(tiny_space.largest, generator=generator)
    pixels = torch.randn(160, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (160,), generator=generator)
    calibration: list[Batch] = [(pixels[:32], labels[:32])]
    # Something to be right about: what the largest network says to three images of four.
    teacher = net.export()
    reestimate_batch_norm(teacher, calibration)
    with torch.inference_mode():
        labels[40:] = teacher.eval()(pixels[40:]).argmax(1)

    def select(chosen: Tensor) -> list[Batch]:
        return [(pixels[chosen], labels[chosen])]

    rng, whole = random.Random(0), {}
    for arch in {tiny_space.sample(rng).canonical() for _ in range(30)}:
        whole[arch] = InheritedAccuracy(net, calibration, [(pixels, labels)])(arch)
    judge = InheritedAccuracy(net, calibration, [(pixels, labels)], select)
    race, best = PairedRace(judge, confidence=1), min(whole, key=lambda arch: whole[arch])
    judge(best)
    dropped = 0
    for arch in sorted(set(whole) - {best}, key=lambda arch: arch.to_json()):
        before = judge.spent.validation
        if race(arch, [best]) is None:
            assert judge(arch) == whole[arch]
            assert judge.spent.validation == before + 160
            best = max(best, arch, key=lambda one: whole[one])
        else:
            dropped += 1
            assert whole[arch] < whole[best]
            assert judge.spent.validation < before + 160
    assert whole[best] == max(whole.values())
    assert 0 < dropped < len(whole) - 1
    assert judge.spent.calibration == 32 * len(whole)
