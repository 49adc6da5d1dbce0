"""Policies and mixing: what they make of images and labels, against their definitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from nasaug.training import Batch, Dataset, ImageArray, View, training_batches
from nasaug.training.folders import ImagePaths
from nasaug.training.orders import Shuffled
from nasaug.training.policies import by_itself, image_policy

MakeNoise = Callable[..., Dataset]
PLAIN = View(16, 3, flip=False, crop=0.0, workers=0)
POLICIES = {"rand_augment": v2.RandAugment, "auto_augment": v2.AutoAugment}
COUNT = 24


@pytest.fixture(scope="module")
def arrays(make_noise: MakeNoise) -> Dataset:
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


def _pixels(images: Tensor, data: Dataset) -> Tensor:
    """uint8 images, normalisation undone."""
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    return ((images * std + mean) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", POLICIES)
def test_each_image_in_memory_goes_through_the_policy_by_itself(name: str, arrays: Dataset) -> None:
    """With draws of its own, by its place in the global batch."""
    batches = training_batches(arrays, replace(PLAIN, **{name: True}), 8, seed=5)
    assert isinstance(arrays.train, ImageArray) and isinstance(batches.order, Shuffled)
    changed = 0
    for index, (images, labels) in enumerate(batches.epoch(2)):
        for place, number in enumerate(labels.tolist()):
            own = arrays.train.images[number]
            torch.manual_seed(batches.order.draw_seed("policy", 2, index, place))
            expected = POLICIES[name]()(own)
            assert torch.equal(_pixels(images, arrays)[place], expected)
            changed += not torch.equal(own, expected)
    assert changed > COUNT / 2


@pytest.mark.parametrize("name", POLICIES)
def test_each_image_file_goes_through_the_policy_after_crop_and_flip(
    name: str, image_files: Dataset
) -> None:
    view = replace(PLAIN, flip=True, crop=0.1, **{name: True})
    batches = training_batches(image_files, view, 8, seed=5)
    assert isinstance(image_files.train, ImagePaths)
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(16),
            v2.ColorJitter(brightness=32 / 255, saturation=0.5),
            v2.RandomHorizontalFlip(),
            POLICIES[name](),
            v2.ToImage(),
        ]
    )
    for images, labels in batches.epoch(1):
        for image, number in zip(_pixels(images, image_files), labels.tolist(), strict=True):
            with Image.open(image_files.train.paths[number]) as file:
                torch.manual_seed(batches.order.draw_seed(1, number))
                assert torch.equal(image, reference(file.convert("RGB")))


@pytest.mark.parametrize("name", POLICIES)
def test_grey_images_go_through_the_policies_as_grey_colours_do(name: str) -> None:
    """Every operation occurs: there are 14 in pairs, or 25 pairs, and 400 draws."""
    policy = image_policy(View(16, 1, **{name: True}))
    assert policy is not None
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (400, 1, 16, 16), dtype=torch.uint8, generator=generator)
    seeds = range(400)
    changed = by_itself(policy, grey, seeds)
    assert (changed.shape, changed.dtype) == (grey.shape, torch.uint8)
    coloured = by_itself(policy, grey.expand(-1, 3, -1, -1), seeds).int()
    # Luma rounds, by a level or two; thresholds after it turn a level into many, in a few images.
    away = (coloured - changed.int()).abs().flatten(1).amax(1)
    assert int((away <= 3).sum()) > 390
    assert int((changed != grey).flatten(1).any(1).sum()) > 280


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_small_images_of_any_channels_are_shown_through_a_policy(
    name: str, channels: int, make_noise: MakeNoise
) -> None:
    data = make_noise(32, channels, 28)
    for shown in (1, 3):
        view = View(28, shown, **{name: True})
        images, _ = next(iter(training_batches(data, view, 32, seed=0)))
        assert images.shape == (32, shown, 28, 28)
        assert images.isfinite().all()


def _mixed(data: Dataset, epochs: int = 1, batch: int = 6, **alphas: float) -> list[Batch]:
    batches = training_batches(data, replace(PLAIN, **alphas), batch, seed=3)
    return [found for epoch in range(epochs) for found in batches.epoch(epoch)]


def _unmixed(data: Dataset, epochs: int = 1, batch: int = 6) -> list[Batch]:
    batches = training_batches(data, PLAIN, batch, seed=3)
    return [found for epoch in range(epochs) for found in batches.epoch(epoch)]


def _own_share(soft: Tensor, labels: Tensor) -> float:
    """lambda, read from the labels, which are those of the image and of the one before it."""
    shares = soft[torch.arange(len(labels)), labels]
    others = soft[torch.arange(len(labels)), labels.roll(1)]
    assert torch.allclose(soft.sum(1), torch.ones(len(labels)))
    assert torch.allclose(shares + others, torch.ones(len(labels)))
    assert torch.equal(shares, shares[:1].expand(len(labels)))
    return float(shares[0])


def test_mixup_is_a_mean_of_two_images_and_of_their_labels(data: Dataset) -> None:
    for (mixed, soft), (images, labels) in zip(
        _mixed(data, 3, mixup=1.0), _unmixed(data, 3), strict=True
    ):
        share = _own_share(soft, labels)
        expected = share * images + (1 - share) * images.roll(1, 0)
        assert torch.allclose(mixed, expected, atol=1e-5)


def test_cutmix_is_a_rectangle_of_another_image_and_its_share_of_the_label(data: Dataset) -> None:
    areas = set()
    for (mixed, soft), (images, labels) in zip(
        _mixed(data, 3, cutmix=1.0), _unmixed(data, 3), strict=True
    ):
        own = (mixed == images).all(1)
        other = (mixed == images.roll(1, 0)).all(1)
        assert (own | other).all()
        # Noise: pixels that two images share are few, and none are shared by all six.
        cut = ~own.all(0)
        rows, columns = cut.any(1).nonzero().flatten(), cut.any(0).nonzero().flatten()
        if len(rows):
            assert cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        share = _own_share(soft, labels)
        assert share == pytest.approx(1 - float(cut.float().mean()), abs=1e-6)
        areas.add(int(cut.sum()))
    assert len(areas) > 4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float, make_noise: MakeNoise) -> None:
    data = make_noise(64, size=2, classes=0)
    view = View(2, 1, flip=False, crop=0.0, mixup=alpha)
    batches = training_batches(data, view, 2, seed=0)
    plain = training_batches(data, replace(view, mixup=0.0), 2, seed=0)
    shares = [
        _own_share(soft, labels)
        for epoch in range(10)
        for (_, soft), (_, labels) in zip(batches.epoch(epoch), plain.epoch(epoch), strict=True)
    ]
    assert len(shares) == 320
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_with_both_a_batch_is_mixed_by_the_one_or_the_other(data: Dataset) -> None:
    kinds = []
    for (mixed, soft), (images, labels) in zip(
        _mixed(data, 8, mixup=1.0, cutmix=1.0), _unmixed(data, 8), strict=True
    ):
        share = _own_share(soft, labels)
        blended = share * images + (1 - share) * images.roll(1, 0)
        cut = (mixed == images).all(1) | (mixed == images.roll(1, 0)).all(1)
        kinds.append("cut" if cut.all() else "blended")
        assert kinds[-1] == "cut" or torch.allclose(mixed, blended, atol=1e-5)
    assert 8 <= kinds.count("cut") <= 24


def test_batch_of_one_image_is_mixed_with_itself(data: Dataset) -> None:
    for (mixed, soft), (images, labels) in zip(
        _mixed(data, batch=1, mixup=1.0, cutmix=1.0), _unmixed(data, batch=1), strict=True
    ):
        assert torch.allclose(mixed, images, atol=1e-5)
        assert torch.allclose(soft, torch.eye(COUNT)[labels], atol=1e-6)


def test_fixed_is_what_shows_every_epoch_alike() -> None:
    moving: dict[str, Any] = {
        "flip": True,
        "crop": 0.1,
        "rand_augment": True,
        "auto_augment": True,
        "mixup": 0.2,
        "cutmix": 1.0,
    }
    assert PLAIN.fixed
    for name, value in moving.items():
        assert not replace(PLAIN, **{name: value}).fixed
    assert not View(16, 3).fixed and not View(16, 3).only_mirrors
    assert replace(PLAIN, flip=True).only_mirrors and not PLAIN.only_mirrors


@pytest.mark.parametrize("name", [*POLICIES, "mixup", "cutmix"])
def test_what_is_not_fixed_differs_from_epoch_to_epoch(name: str, data: Dataset) -> None:
    value = True if name in POLICIES else 1.0
    batches = training_batches(data, replace(PLAIN, **{name: value}), COUNT, seed=0)
    plain = training_batches(data, PLAIN, COUNT, seed=0)
    epochs = [next(batches.epoch(epoch))[0] for epoch in range(3)]
    own = [next(plain.epoch(epoch)) for epoch in range(3)]
    by_number = [x[y.argsort()] for x, (_, y) in zip(epochs, own, strict=True)]
    for some, others in itertools.combinations(by_number, 2):
        assert not torch.equal(some, others)
    assert np.array_equal(*(x[y.argsort()].numpy() for x, y in own[:2]))


def test_two_policies_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rand_augment and auto_augment are both on.*switch one"):
        View(16, 3, rand_augment=True, auto_augment=True)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("alpha", [-0.1, float("inf"), float("nan")])
def test_alpha_that_makes_no_distribution_is_refused(name: str, alpha: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is the alpha of a Beta.*got {alpha}"):
        View(16, 3, **{name: alpha})
