"""Pictures of two items: what they show, their labels, and that the parts share no item."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasaug.training import Dataset, ImageArray, load_dataset
from nasaug.training.pairs import in_pairs, pair_classes, partners

PAIRS = list(itertools.combinations(range(10), 2))


@pytest.fixture(scope="module")
def paired() -> Dataset:
    return load_dataset("fashion-mnist-mini-pairs")


def _arrays(data: Dataset) -> list[ImageArray]:
    parts = [data.train, data.validation, data.test]
    assert all(isinstance(part, ImageArray) for part in parts)
    return [part for part in parts if isinstance(part, ImageArray)]


def _items(count: int, each: int) -> tuple[Tensor, Tensor]:
    """`count` classes of `each` items in a random order, each 20 x 20 of one grey of its own."""
    order = torch.randperm(count * each, generator=torch.Generator().manual_seed(1))
    greys = (torch.arange(count * each) + 1).to(torch.uint8)[order]
    images = greys[:, None, None, None].expand(-1, 1, 20, 20).contiguous()
    return images, (torch.arange(count * each) % count)[order]


def test_parts_are_as_large_as_those_of_single_items(mini: Dataset, paired: Dataset) -> None:
    for one, two in zip(_arrays(mini), _arrays(paired), strict=True):
        assert two.images.shape == one.images.shape
        assert (two.images.dtype, two.labels.dtype) == (torch.uint8, torch.int64)
    assert paired.name == "fashion-mnist-mini-pairs"
    assert paired.digest() != mini.digest()


def test_classes_are_the_45_unordered_pairs(mini: Dataset, paired: Dataset) -> None:
    expected = [f"{mini.classes[a]} + {mini.classes[b]}" for a, b in PAIRS]
    assert list(paired.classes) == expected
    assert len(set(expected)) == 45
    assert "Trouser + Bag" in expected


def test_pairs_are_balanced_to_one_picture(paired: Dataset) -> None:
    for part, even in zip(_arrays(paired), (180, 20, 2000 / 45), strict=True):
        counts = part.labels.bincount(minlength=45)
        assert abs(counts - even).max() < 1


def test_every_picture_is_its_item_and_another_of_its_part_moved_apart(
    mini: Dataset, paired: Dataset
) -> None:
    """By search: some item of the part, moved against the picture's own item, explains it all.

    So no picture holds anything of an item of another part.
    """
    for one, two in zip(_arrays(mini), _arrays(paired), strict=True):
        for i in (0, len(one) // 2, len(one) - 1):
            classes = set(PAIRS[two.labels[i]])
            (other,) = classes - {int(one.labels[i])}
            found = _explanations(two.images[i, 0], one.images[i, 0], one.images[:, 0])
            assert {int(one.labels[j]) for j in found} == {other}


def _explanations(picture: Tensor, item: Tensor, others: Tensor) -> list[int]:
    """Which of `others` (N, H, W) give `picture` with `item`, both moved in opposite directions."""
    found: list[int] = []
    for down, right in itertools.product(range(-7, 8), repeat=2):
        first = _moved_by_hand(item[None], down, right)
        if (first > picture).any():
            continue
        both = torch.maximum(first, _moved_by_hand(others, -down, -right))
        found += (both == picture).all((1, 2)).nonzero()[:, 0].tolist()
    return found


def _moved_by_hand(images: Tensor, down: int, right: int) -> Tensor:
    rolled = images.roll((down, right), (1, 2))
    rows, columns = torch.arange(28) - down, torch.arange(28) - right
    inside = (((rows >= 0) & (rows < 28))[:, None]) & ((columns >= 0) & (columns < 28))
    return rolled * inside


def test_items_lie_5_to_7_of_28_pixels_off_the_middle_on_opposite_sides() -> None:
    images = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 14, 14] = torch.tensor([100, 200]).repeat(200)[:, None]
    labels = torch.tensor([0, 1]).repeat(200)
    pictures, _ = in_pairs(images, labels, 2)
    seen = {}
    for grey in (100, 200):
        found = (pictures[:, 0] == grey).nonzero()
        assert found[:, 0].tolist() == list(range(400))
        seen[grey] = found[:, 1:] - 14
    assert torch.equal(seen[100], -seen[200])
    distances = seen[100].float().norm(dim=1)
    assert 4.3 < distances.min() < 5.1 and 6.8 < distances.max() < 7.8  # Rounded to whole pixels.
    quadrants = Counter(map(tuple, seen[100].sign().tolist()))
    assert min(quadrants[down, right] for down in (-1, 1) for right in (-1, 1)) > 40


def test_the_brighter_item_is_seen_where_they_overlap() -> None:
    images, labels = _items(2, 1)
    pictures, _ = in_pairs(images, labels, 2)
    for picture in pictures:
        assert set(picture.unique().tolist()) == {0, 1, 2}
        assert picture[0, 8:12, 8:12].eq(2).all()


@settings(max_examples=60, deadline=None)
@given(classes=st.integers(2, 12), each=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_partners_are_a_permutation_balanced_to_one_that_leaves_no_class_alone(
    classes: int, each: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(classes * each, generator=generator)
    labels = (torch.arange(classes * each) % classes)[order]
    partner = partners(labels, classes, generator)
    assert partner.sort().values.tolist() == list(range(classes * each))
    assert (labels != labels[partner]).all()
    met = zip(labels.tolist(), labels[partner].tolist(), strict=True)
    counts = Counter(frozenset(pair) for pair in met)
    both = [counts[frozenset(pair)] for pair in itertools.combinations(range(classes), 2)]
    assert max(both) - min(both) <= 1


def test_partners_are_drawn_at_random_from_the_other_class() -> None:
    labels = torch.arange(2).repeat(500)
    draws = [partners(labels, 2, torch.Generator().manual_seed(seed)) for seed in range(2)]
    assert (draws[0] == draws[1]).float().mean() < 0.05
    order = np.corrcoef(np.arange(1000), draws[0].numpy())[0, 1]
    assert abs(order) < 0.2  # Six standard errors.


def test_pictures_are_the_same_every_time(paired: Dataset) -> None:
    again = load_dataset("fashion-mnist-mini-pairs")
    torch.manual_seed(3)
    for one, two in zip(_arrays(paired), _arrays(again), strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)


def test_pictures_do_not_depend_on_torchs_own_generator() -> None:
    images, labels = _items(3, 5)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = in_pairs(images, labels, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = in_pairs(images, labels, 3)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_test_pictures_do_not_depend_on_the_share_of_the_validation_part(paired: Dataset) -> None:
    other = load_dataset("fashion-mnist-mini-pairs", validation=0.25)
    assert (len(other.train), len(other.validation)) == (6750, 2250)
    assert torch.equal(_arrays(other)[2].images, _arrays(paired)[2].images)


def test_a_long_tail_is_made_over_the_pairs() -> None:
    data = load_dataset("fashion-mnist-mini-pairs", imbalance=10)
    counts = data.train.labels.bincount(minlength=45)
    assert (int(counts[0]), int(counts[44])) == (180, 18)
    assert data.test.labels.bincount(minlength=45).min() >= 44


def test_unequal_classes_are_refused() -> None:
    images, labels = _items(3, 4)
    words = "equally many items of every class, but there are 3 to 4; use a complete"
    with pytest.raises(ValueError, match=words):
        in_pairs(images[labels.argsort()][1:], labels.sort().values[1:], 3)


def test_class_without_an_item_is_refused() -> None:
    images, labels = _items(3, 4)
    with pytest.raises(ValueError, match="there are 0 to 4"):
        in_pairs(images, labels, 4)


def _write_idx(folder: Path, part: str, images: Tensor, labels: Tensor) -> None:
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim])
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = array.to(torch.uint8).numpy().tobytes()
        (folder / f"{part}-{kind}-ubyte").write_bytes(head + sizes + content)


def test_full_set_is_paired_from_its_files(mini: Dataset, tmp_path: Path) -> None:
    few = _arrays(mini)[2]
    _write_idx(tmp_path, "train", few.images[:, 0], few.labels)
    _write_idx(tmp_path, "t10k", few.images[:, 0], few.labels)
    data = load_dataset("fashion-mnist-pairs", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 2000)
    images, labels = in_pairs(few.images, few.labels, 10)
    assert torch.equal(_arrays(data)[2].images, images)
    assert torch.equal(data.test.labels, labels)
    assert data.classes == pair_classes(mini.classes)


def test_incomplete_files_are_refused_naming_the_set(mini: Dataset, tmp_path: Path) -> None:
    few = _arrays(mini)[2]
    _write_idx(tmp_path, "train", few.images[:, 0], few.labels)
    _write_idx(tmp_path, "t10k", few.images[:-1, 0], few.labels[:-1])
    words = re.escape("fashion-mnist-pairs: pictures of two items need equally many items")
    with pytest.raises(ValueError, match=f"{words}.* 199 to 200"):
        load_dataset("fashion-mnist-pairs", tmp_path)


def test_missing_files_are_refused_saying_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fashion-mnist was not found.*--data-dir") as caught:
        load_dataset("fashion-mnist-pairs", tmp_path)
    assert str(tmp_path) in str(caught.value)
