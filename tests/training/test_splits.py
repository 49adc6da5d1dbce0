"""Held-out shares, few images and long tails: how many images of each class, and which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.training import Dataset, ImageArray, imbalanced, load_dataset
from nasaug.training.folders import ImagePaths
from nasaug.training.splits import at_most, stratified_split


def _part(labels: list[int]) -> ImagePaths:
    """Paths that tell the images apart."""
    return ImagePaths(tuple(f"{i}.png" for i in range(len(labels))), torch.tensor(labels))


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(lambda c: sum(map(bool, c))),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_split_holds_out_a_share_of_every_class(counts: list[int], share: float, seed: int) -> None:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    if all(n < 2 for n in counts):
        with pytest.raises(ValueError, match="one image only"):
            stratified_split(labels, share)
        return
    kept, held = stratified_split(labels, share)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    for c, n in enumerate(counts):
        expected = min(max(1, round(share * n)), n - 1) if n else 0
        assert int((labels[held] == c).sum()) == expected


@pytest.mark.parametrize("ratio", [1.0, 2.0, 10.0, 100.0])
def test_class_c_keeps_its_share_of_the_long_tail(mini: Dataset, ratio: float) -> None:
    """810 images of each of ten classes: 810 ratio^(-c / 9)."""
    tail = imbalanced(mini.train, ratio)
    expected = [round(810 * ratio ** (-c / 9)) for c in range(10)]
    assert tail.labels.bincount().tolist() == expected
    assert (expected[0], expected[9]) == (810, round(810 / ratio))


def test_ratio_of_one_keeps_all(mini: Dataset) -> None:
    assert imbalanced(mini.train, 1) is mini.train


def test_at_least_one_image_of_each_class_is_kept() -> None:
    tail = imbalanced(_part([0, 1, 2] * 20), 1e9)
    assert tail.labels.bincount().tolist() == [20, 1, 1]


def test_classes_of_unequal_size_each_keep_a_share_of_their_own() -> None:
    tail = imbalanced(_part([0] * 10 + [1] * 80 + [2] * 40), 4)
    assert tail.labels.bincount().tolist() == [10, 40, 10]


def test_same_images_are_kept_every_time_and_a_longer_tail_keeps_some_of_them() -> None:
    part = _part([i % 4 for i in range(200)])
    kept = {ratio: imbalanced(part, ratio).paths for ratio in (2.0, 7.0, 50.0)}
    torch.manual_seed(12)
    assert imbalanced(part, 7.0).paths == kept[7.0]
    assert set(kept[50.0]) < set(kept[7.0]) < set(kept[2.0]) < set(part.paths)
    for paths in kept.values():
        numbers = [int(path.removesuffix(".png")) for path in paths]
        assert numbers == sorted(numbers)
    # Not just the first ones.
    last = [int(path.removesuffix(".png")) for path in kept[50.0] if int(path[:-4]) % 4 == 3]
    assert last != [3]


@pytest.mark.parametrize("ratio", [0.99, 0, -1, float("inf"), float("nan")])
def test_ratio_below_one_is_refused(ratio: float) -> None:
    with pytest.raises(
        ValueError, match=f"imbalance is how many times.*at least 1, but got {ratio}"
    ):
        imbalanced(_part([0, 1]), ratio)
    with pytest.raises(ValueError, match="imbalance is how many times"):
        load_dataset("fashion-mnist-mini", imbalance=ratio)


def test_only_the_training_part_of_a_data_set_is_imbalanced(mini: Dataset) -> None:
    tail = load_dataset("fashion-mnist-mini", imbalance=20)
    assert isinstance(tail.train, ImageArray) and isinstance(mini.validation, ImageArray)
    assert isinstance(tail.validation, ImageArray)
    assert tail.train.labels.bincount().tolist() == [round(810 * 20 ** (-c / 9)) for c in range(10)]
    assert tail.train.images.shape == (len(tail.train), 1, 28, 28)
    assert torch.equal(tail.validation.images, mini.validation.images)
    assert torch.equal(tail.test.labels, mini.test.labels)
    assert tail.digest() != mini.digest()


def test_image_files_are_imbalanced_alike(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for part, count in (("train", 10), ("val", 4), ("test", 4)):
        for label in ("a", "b", "c"):
            for number in range(count):
                write_image(tmp_path / part / label / f"{number}.png")
    data = load_dataset(f"imagefolder:{tmp_path}", imbalance=9)
    assert data.train.labels.bincount().tolist() == [10, 3, 1]
    assert data.validation.labels.bincount().tolist() == [4, 4, 4]
    assert data.test.labels.bincount().tolist() == [4, 4, 4]


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    few=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_at_most_so_many_of_each_class_are_kept(counts: list[int], few: int) -> None:
    part = _part([c for c, n in enumerate(counts) for _ in range(n)])
    kept = at_most(part, few)
    expected = torch.tensor([min(n, few) for n in counts])
    assert torch.equal(kept.labels.bincount(minlength=len(counts)), expected)
    numbers = [int(path.removesuffix(".png")) for path in kept.paths]
    assert numbers == sorted(numbers)
    assert torch.equal(part.labels[torch.tensor(numbers)], kept.labels)


def test_more_of_each_class_keep_what_fewer_keep_and_not_just_the_first() -> None:
    part = _part([i % 4 for i in range(200)])
    kept = {few: at_most(part, few).paths for few in (2, 7, 30, 50)}
    torch.manual_seed(12)
    assert at_most(part, 7).paths == kept[7]
    assert set(kept[2]) < set(kept[7]) < set(kept[30]) < set(kept[50]) == set(part.paths)
    assert kept[2] != part.paths[:8]


@pytest.mark.parametrize("few", [0, -3])
def test_less_than_one_image_of_each_class_is_refused(few: int) -> None:
    with pytest.raises(ValueError, match=f"per_class is how many.* but got {few}; .*at least 1"):
        at_most(_part([0, 1]), few)
    with pytest.raises(ValueError, match="per_class is how many"):
        load_dataset("fashion-mnist-mini", per_class=few)


def test_only_the_training_part_of_a_data_set_is_few(mini: Dataset) -> None:
    few = load_dataset("fashion-mnist-mini", per_class=20)
    assert few.train.labels.bincount().tolist() == [20] * 10
    assert isinstance(few.validation, ImageArray) and isinstance(mini.validation, ImageArray)
    assert torch.equal(few.validation.images, mini.validation.images)
    assert len(few.test) == 2000
    tail = load_dataset("fashion-mnist-mini", per_class=20, imbalance=4)
    assert tail.train.labels.bincount().tolist() == [round(20 * 4 ** (-c / 9)) for c in range(10)]
