"""Batches: which images in which order, alike for arrays and for files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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


def _view(workers: int = 0, flip: bool = True, crop: float = 0.125) -> View:
    return View(16, 3, flip=flip, crop=crop, workers=workers)


def _equal(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(x, other_x) and torch.equal(y, other_y)
        for (x, y), (other_x, other_y) in zip(some, others, strict=True)
    )


def _labels(batches: list[Batch]) -> list[int]:
    return torch.cat([y for _, y in batches]).tolist()


def test_batch_is_a_function_of_seed_epoch_and_index(data: Dataset) -> None:
    """What was drawn before, here or anywhere, does not matter."""
    first = training_batches(data, _view(), 8, seed=1)
    epochs = [list(first.epoch(epoch)) for epoch in range(3)]
    torch.manual_seed(77)
    second = training_batches(data, _view(), 8, seed=1)
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


def test_loading_leaves_torchs_generator_alone(arrays: Dataset) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(training_batches(arrays, _view(), 8, seed=1))
    assert torch.rand(1) == expected


def test_start_skips_exactly_so_many_batches(data: Dataset) -> None:
    batches = training_batches(data, _view(), 5, seed=0)
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


@pytest.mark.parametrize("augmented", [True, False])
def test_number_of_decoding_processes_changes_nothing(
    image_files: Dataset, augmented: bool
) -> None:
    """Also when an epoch is broken off, and when it begins in the middle."""
    crop = 0.125 if augmented else 0.0
    here = training_batches(image_files, _view(0, augmented, crop), 4, seed=0)
    there = training_batches(image_files, _view(2, augmented, crop), 4, seed=0)
    assert _equal(list(there.epoch(0)), list(here.epoch(0)))
    next(there.epoch(1))
    assert _equal(list(there.epoch(2, 3)), list(here.epoch(2, 3)))


def test_workers_of_a_group_partition_a_global_batch(data: Dataset) -> None:
    """Side by side they are the batch of one worker, twice as large."""
    view = _view(flip=False, crop=0.0)
    whole = list(training_batches(data, view, 8, seed=4).epoch(1))
    parts = [list(training_batches(data, view, 4, 4, Workers(rank, 2)).epoch(1)) for rank in (0, 1)]
    joined = [
        (torch.cat([x, other_x]), torch.cat([y, other_y]))
        for (x, y), (other_x, other_y) in zip(*parts, strict=True)
    ]
    assert _equal(joined, whole)


def test_workers_of_a_group_augment_each_image_file_as_one_worker_would(
    image_files: Dataset,
) -> None:
    whole = list(training_batches(image_files, _view(), 8, seed=4).epoch(1))
    for rank in (0, 1):
        part = list(training_batches(image_files, _view(), 4, 4, Workers(rank, 2)).epoch(1))
        mine = slice(4 * rank, 4 * rank + 4)
        assert _equal(part, [(x[mine], y[mine]) for x, y in whole])


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


def test_images_are_float_and_channels_last(data: Dataset) -> None:
    loaded = [
        training_batches(data, _view(), 8, seed=0),
        evaluation_batches(data, data.test, _view()),
        calibration_batches(data, _view(), 8),
    ]
    for batches in loaded:
        images, labels = next(iter(batches))
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_unaugmented_training_shows_the_images_of_evaluation(data: Dataset) -> None:
    assert _unchanged(data, list(training_batches(data, _view(flip=False, crop=0.0), 8, 0)))
    assert not _unchanged(data, list(training_batches(data, _view(), 8, 0)))
