"""The inherited accuracy image by image: the same in pieces as at once, and no image twice."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasaug.search import InheritedAccuracy
from nasaug.search.inherited import REMEMBERED
from nasaug.supernet import Architecture, Network, SearchSpace
from nasaug.training import Batch, evaluate, reestimate_batch_norm

IMAGES, CALIBRATION = 60, 32


def _images(count: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (count,), generator=generator)


PIXELS, LABELS = _images(IMAGES, 3)
CALIBRATIONS = [_images(CALIBRATION // 2, 1), _images(CALIBRATION // 2, 2)]
VALIDATION = [(PIXELS[:37], LABELS[:37]), (PIXELS[37:], LABELS[37:])]


class Selected:
    """Batches of seven of the chosen images; `shown` are all indices asked for."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def __call__(self, chosen: Tensor) -> Iterator[Batch]:
        self.shown += chosen.tolist()
        for part in chosen.split(7):
            yield PIXELS[part], LABELS[part]


@pytest.fixture(scope="module")
def supernet(tiny_space: SearchSpace) -> Network:
    generator = torch.Generator().manual_seed(0)
    return Network(tiny_space.largest, generator=generator).double()


@pytest.fixture
def select() -> Selected:
    return Selected()


@pytest.fixture
def judge(supernet: Network, select: Selected) -> InheritedAccuracy:
    return InheritedAccuracy(supernet, CALIBRATIONS, VALIDATION, select)


def _logits(supernet: Network, arch: Architecture) -> Tensor:
    alone = supernet.export(arch)
    reestimate_batch_norm(alone, CALIBRATIONS)
    with torch.inference_mode():
        return alone.eval()(PIXELS)


def test_answers_are_those_of_the_reestimated_export(
    judge: InheritedAccuracy, supernet: Network, tiny_space: SearchSpace
) -> None:
    for arch in (tiny_space.target, tiny_space.largest):
        logits, found = _logits(supernet, arch), judge.answers(arch)
        assert found.right.tolist() == (logits.argmax(1) == LABELS).tolist()
        for row, label, margin in zip(logits, LABELS, found.margins, strict=True):
            others = [float(one) for place, one in enumerate(row) if place != label]
            assert float(margin) == pytest.approx(float(row[label]) - max(others), abs=1e-5)
        assert (found.margins[found.right] > 0).all()
        assert (found.margins[~found.right] < 0).all()
        assert found.right.any() and not found.right.all()


def test_without_a_race_it_is_what_evaluate_says_and_reads_no_image_twice(
    judge: InheritedAccuracy, supernet: Network, select: Selected, tiny_space: SearchSpace
) -> None:
    alone = supernet.export(tiny_space.largest)
    reestimate_batch_norm(alone, CALIBRATIONS)
    assert judge(tiny_space.largest) == evaluate(alone, VALIDATION)["top1"]
    assert (judge.spent.calibration, judge.spent.validation) == (CALIBRATION, IMAGES)
    assert judge.spent.total == CALIBRATION + IMAGES
    assert judge(tiny_space.largest) == evaluate(alone, VALIDATION)["top1"]
    assert judge.spent.total == CALIBRATION + IMAGES
    assert select.shown == []


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(IMAGES)), st.lists(st.integers(1, IMAGES), max_size=4))
def test_in_pieces_it_is_the_same_and_every_image_is_read_once(
    supernet: Network, tiny_space: SearchSpace, order: list[int], stops: list[int]
) -> None:
    select = Selected()
    judge = InheritedAccuracy(supernet, CALIBRATIONS, VALIDATION, select)
    whole = InheritedAccuracy(supernet, CALIBRATIONS, VALIDATION).answers(tiny_space.target)
    places = torch.tensor(order)
    for count, stop in enumerate(stops, 1):
        found = judge.answers(tiny_space.target, places[:stop])
        assert torch.equal(found.right, whole.right[places[:stop]])
        torch.testing.assert_close(found.margins, whole.margins[places[:stop]])
        assert judge.spent.validation == max(stops[:count])
    assert judge(tiny_space.target) == int(whole.right.sum()) / IMAGES
    assert judge.spent.validation == IMAGES
    assert judge.spent.calibration == CALIBRATION
    assert sorted(select.shown) == (list(range(IMAGES)) if stops else [])


def test_an_image_asked_for_twice_at_once_is_read_once(
    judge: InheritedAccuracy, tiny_space: SearchSpace
) -> None:
    found = judge.answers(tiny_space.target, torch.tensor([5, 2, 5]))
    assert found.margins[0] == found.margins[2] != found.margins[1]
    assert judge.spent.validation == 2


def test_candidates_do_not_disturb_each_other(
    judge: InheritedAccuracy, supernet: Network, tiny_space: SearchSpace
) -> None:
    """Coming back to one means exporting it again, which is counted."""
    half = torch.arange(0, IMAGES, 2)
    judge.answers(tiny_space.target, half)
    judge.answers(tiny_space.largest, half)
    assert judge.spent.calibration == 2 * CALIBRATION
    for arch in (tiny_space.target, tiny_space.largest):
        right = _logits(supernet, arch).argmax(1) == LABELS
        assert judge(arch) == int(right.sum()) / IMAGES
    assert judge.spent.validation == 2 * IMAGES
    assert judge.spent.calibration == 4 * CALIBRATION


def test_the_oldest_answers_are_forgotten(space: SearchSpace) -> None:
    wide = InheritedAccuracy(
        Network(space.largest, generator=torch.Generator().manual_seed(0)).double(),
        [_images(2, 1)],
        [(PIXELS[:2], LABELS[:2])],
    )
    rng = random.Random(0)
    first, *others = [space.sample(rng) for _ in range(REMEMBERED + 1)]
    for arch in (first, *others[:-1]):
        wide(arch)
    before = wide.spent.total
    wide(first)
    assert wide.spent.total == before
    wide(others[-1])
    wide(others[0])
    assert wide.spent.total == before + 8


def test_a_part_needs_a_way_to_select_it(supernet: Network, tiny_space: SearchSpace) -> None:
    judge = InheritedAccuracy(supernet, CALIBRATIONS, VALIDATION)
    with pytest.raises(ValueError, match="give InheritedAccuracy `select`"):
        judge.answers(tiny_space.target, torch.tensor([1]))


def test_there_must_be_images(supernet: Network, space: SearchSpace) -> None:
    judge = InheritedAccuracy(supernet, CALIBRATIONS, [])
    with pytest.raises(ValueError, match="not one image to evaluate on"):
        judge(space.target)
    with pytest.raises(ValueError, match="does not contain"):
        judge(space.largest)
