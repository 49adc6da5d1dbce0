"""Batches: which images in which order, alike for arrays and for files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.training import (
    Batch,
    Dataset,
    ImageArray,
    View,
    Workers,
    calibration_batches,
    evaluation_batches,
    training_batches,
)
from nasaug.training.folders import ImagePaths

COUNT = 26
# Two decoding processes are too many for a machine of one core, which torch says.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def arrays(make_noise: Callable[..., Dataset]) -> Dataset:
    return make_noise(COUNT, channels=3, size=16)


@pytest.fixture(scope="module")
def image_files(
    tmp_path_factory: pytest.TempPathFactory, write_image: Callable[..., Path], arrays: Dataset
) -> Dataset:
    folder = tmp_path_factory.mktemp("images")
    paths = tuple(str(write_image(folder / f"{i}.png", seed=i)) for i in range(COUNT))
    part = ImagePaths(paths, torch.arange(COUNT))
    return replace(arrays, train=part, validation=part, test=part)


@pytest.fixture(params=["arrays", "image_files"])
def data(request: pytest.FixtureRequest) -> Dataset:
    """Images in memory, and in files; the label of an image is its number."""
    found: Dataset = request.getfixturevalue(request.param)
    return found


def _view(workers: int = 0, flip: bool = True, crop: float = 0.125, **options: Any) -> View:
    return View(16, 3, flip=flip, crop=crop, workers=workers, **options)


# What training images may go through beyond shifts and flips.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rand_augment": {"rand_augment": True},
    "auto_augment": {"auto_augment": True},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "everything": {"rand_augment": True, "mixup": 0.4, "cutmix": 1.0},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def _equal(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(x, other_x) and torch.equal(y, other_y)
        for (x, y), (other_x, other_y) in zip(some, others, strict=True)
    )


def _labels(batches: list[Batch]) -> list[int]:
    return torch.cat([y for _, y in batches]).tolist()


@each_option
def test_batch_is_a_function_of_seed_epoch_and_index(
    data: Dataset, options: dict[str, Any]
) -> None:
    """What was drawn before, here or anywhere, does not matter."""
    first = training_batches(data, _view(**options), 8, seed=1)
    epochs = [list(first.epoch(epoch)) for epoch in range(3)]
    torch.manual_seed(77)
    second = training_batches(data, _view(**options), 8, seed=1)
    assert _equal(list(second.epoch(2)), epochs[2])
    assert _equal(list(second.epoch(0)), epochs[0])


def test_epochs_and_seeds_differ_in_order_and_in_augmentation(data: Dataset) -> None:
    base = list(training_batches(data, _view(), 13, seed=1).epoch(0))
    for seed, epoch in ((1, 1), (2, 0)):
        other = list(training_batches(data, _view(), 13, seed).epoch(epoch))
        assert sorted(_labels(other)) == sorted(_labels(base))
        assert _labels(other) != _labels(base)
        by_label = {int(y): image for x, ys in base for image, y in zip(x, ys, strict=True)}
        same = [
            torch.equal(image, by_label[int(y)])
            for x, ys in other
            for image, y in zip(x, ys, strict=True)
        ]
        assert not all(same)


@each_option
def test_loading_leaves_torchs_generator_alone(data: Dataset, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in training_batches(data, _view(**options), 8, seed=1):
        assert torch.equal(torch.get_rng_state(), before)
    list(evaluation_batches(data, data.test, _view(**options)))
    assert torch.equal(torch.get_rng_state(), before)


@each_option
def test_start_skips_exactly_so_many_batches(data: Dataset, options: dict[str, Any]) -> None:
    batches = training_batches(data, _view(**options), 5, seed=0)
    whole = list(batches.epoch(1))
    for start in range(len(whole) + 1):
        assert _equal(list(batches.epoch(1, start)), whole[start:])


def test_iterating_gives_the_first_epoch(data: Dataset) -> None:
    batches = training_batches(data, _view(), 5, seed=0)
    assert _equal(list(batches), list(batches.epoch(0)))


def test_epoch_shows_each_image_at_most_once_in_whole_batches(data: Dataset) -> None:
    batches = training_batches(data, _view(), 8, seed=0)
    epoch = list(batches.epoch(0))
    assert [len(y) for _, y in epoch] == [8, 8, 8]
    assert len(batches) == 3
    assert len(set(_labels(epoch))) == 24
    # Which images are left out changes with the epoch.
    left_out = [set(range(COUNT)) - set(_labels(list(batches.epoch(e)))) for e in range(4)]
    assert len(set(map(frozenset, left_out))) > 1


@pytest.mark.parametrize(
    "options", [{}, {"flip": False, "crop": 0.0}, OPTIONS["everything"]], ids=lambda o: ", ".join(o)
)
def test_number_of_decoding_processes_changes_nothing(
    image_files: Dataset, options: dict[str, Any]
) -> None:
    """Also when an epoch is broken off, and when it begins in the middle."""
    here = training_batches(image_files, _view(0, **options), 4, seed=0)
    there = training_batches(image_files, _view(2, **options), 4, seed=0)
    assert _equal(list(there.epoch(0)), list(here.epoch(0)))
    next(there.epoch(1))
    assert _equal(list(there.epoch(2, 3)), list(here.epoch(2, 3)))


@pytest.mark.parametrize("size", [2, 4])
@each_option
def test_workers_of_a_group_see_together_what_one_worker_would(
    data: Dataset, options: dict[str, Any], size: int
) -> None:
    """Each image shifted, mirrored, changed and mixed alike; no worker repeats another's draws."""
    view = _view(**options)
    whole = list(training_batches(data, view, 8, seed=4).epoch(1))
    group = [Workers(rank, size) for rank in range(size)]
    parts = [list(training_batches(data, view, 8 // size, 4, member).epoch(1)) for member in group]
    joined = [
        (torch.cat([x for x, _ in batch]), torch.cat([y for _, y in batch]))
        for batch in zip(*parts, strict=True)
    ]
    assert _equal(joined, whole)


@pytest.mark.parametrize(("batch", "size"), [(27, 1), (14, 2), (7, 4)])
def test_batch_larger_than_the_training_part_is_refused(
    data: Dataset, batch: int, size: int
) -> None:
    with pytest.raises(ValueError, match=f"at most the 26 training images.*{batch} x {size}"):
        training_batches(data, _view(), batch, 0, Workers(0, size))


def test_batch_of_the_whole_training_part_is_one_an_epoch(data: Dataset) -> None:
    (batch,) = training_batches(data, _view(), COUNT, seed=0).epoch(0)
    assert sorted(batch[1].tolist()) == list(range(COUNT))


def test_evaluation_shows_all_images_in_order(data: Dataset) -> None:
    batches = evaluation_batches(data, data.test, _view(), batch_size=10)
    shown = list(batches)
    assert [len(y) for _, y in shown] == [10, 10, 6]
    assert len(batches) == 3
    assert _labels(shown) == list(range(COUNT))
    assert _equal(list(batches), shown)


@each_option
def test_only_training_images_are_augmented(data: Dataset, options: dict[str, Any]) -> None:
    view, plain = _view(**options), _view(flip=False, crop=0.0)
    for part in (data.train, data.test):
        shown = list(evaluation_batches(data, part, view))
        assert _equal(shown, list(evaluation_batches(data, part, plain)))
    calibration = list(calibration_batches(data, view, 12, 4))
    assert _equal(calibration, list(calibration_batches(data, plain, 12, 4)))


@pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["auto_augment"]], ids=str)
def test_order_tells_which_images_a_batch_shows(data: Dataset, options: dict[str, Any]) -> None:
    """By their numbers in the training part, which here are the labels."""
    batches = training_batches(data, _view(**options), 8, seed=2)
    for epoch in (0, 3):
        shown = [y.tolist() for _, y in batches.epoch(epoch)]
        assert [chosen.tolist() for chosen in batches.order.indices(epoch)] == shown


def _unchanged(data: Dataset, batches: list[Batch]) -> bool:
    """Whether the images are as evaluation shows them."""
    plain = torch.cat([x for x, _ in evaluation_batches(data, data.train, _view())])
    return all(torch.equal(plain[y], x) for x, y in batches)


def test_calibration_is_a_fixed_random_subset_of_the_training_part(data: Dataset) -> None:
    first = list(calibration_batches(data, _view(), images=12, batch_size=4))
    torch.manual_seed(9)
    assert _equal(list(calibration_batches(data, _view(), images=12, batch_size=4)), first)
    assert [len(y) for _, y in first] == [4, 4, 4]
    labels = _labels(first)
    assert len(set(labels)) == 12
    assert labels != sorted(labels)
    assert _unchanged(data, first)


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [(14, 4, [4, 4, 4]), (3, 4, [3]), (1000, 10, [10, 10]), (1000, 128, [26])],
)
def test_calibration_leaves_out_a_smaller_last_batch_unless_it_is_the_only_one(
    arrays: Dataset, images: int, batch: int, sizes: list[int]
) -> None:
    batches = calibration_batches(arrays, _view(), images, batch)
    assert [len(y) for _, y in batches] == sizes


def test_calibration_never_sees_the_other_parts(arrays: Dataset) -> None:
    empty = ImageArray(torch.zeros(0, 3, 16, 16, dtype=torch.uint8), torch.zeros(0).long())
    alone = replace(arrays, validation=empty, test=empty)
    assert _unchanged(arrays, list(calibration_batches(alone, _view(), 20)))


@each_option
def test_images_are_float_and_channels_last(data: Dataset, options: dict[str, Any]) -> None:
    view = _view(**options)
    loaded = [
        evaluation_batches(data, data.test, view),
        calibration_batches(data, view, 8),
        training_batches(data, view, 8, seed=0),
    ]
    for batches in loaded:
        images, labels = next(iter(batches))
        mixed = view.mixes and batches is loaded[-1]
        assert images.dtype == torch.float32
        assert labels.dtype == (torch.float32 if mixed else torch.int64)
        assert labels.shape == ((len(images), COUNT) if mixed else (len(images),))
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_unaugmented_training_shows_the_images_of_evaluation(data: Dataset) -> None:
    assert _unchanged(data, list(training_batches(data, _view(flip=False, crop=0.0), 8, 0)))
    assert not _unchanged(data, list(training_batches(data, _view(), 8, 0)))
