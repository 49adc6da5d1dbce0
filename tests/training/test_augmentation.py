"""How images in memory are shown: shifted, mirrored, resized, normalised."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nasaug.training import Dataset, ImageArray, View, evaluation_batches, training_batches

MakeNoise = Callable[..., Dataset]
Pixels = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114])


def _moved(image: Pixels, down: int, right: int, mirrored: bool) -> Pixels:
    """`image` (C, H, W) moved by so many pixels, black where nothing is left, pixel by pixel."""
    size = image.shape[-1]
    result = np.zeros_like(image)
    for row, column in itertools.product(range(size), range(size)):
        source_row, source_column = row - down, column - right
        if 0 <= source_row < size and 0 <= source_column < size:
            result[:, row, column] = image[:, source_row, source_column]
    return result[:, :, ::-1] if mirrored else result


def _images(data: Dataset) -> Pixels:
    assert isinstance(data.train, ImageArray)
    return data.train.images.numpy()


def _shown(data: Dataset, view: View, epoch: int = 0) -> dict[int, Pixels]:
    """The training images of an epoch by number, in order, normalisation undone."""
    mean, std = np.array(data.mean)[:, None, None], np.array(data.std)[:, None, None]
    return {
        int(number): np.rint((image.numpy() * std + mean) * 255).astype(np.uint8)
        for images, numbers in training_batches(data, view, 32, seed=0).epoch(epoch)
        for image, number in zip(images, numbers, strict=True)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_shifted_and_mirrored_on_its_own(
    channels: int, make_noise: MakeNoise
) -> None:
    """A share of 0.125 of 12 pixels is 2 (1.5 rounded): 5 x 5 shifts, mirrored or not."""
    data = make_noise(128, channels, 12)
    moves = list(itertools.product(range(-2, 3), range(-2, 3), (False, True)))
    seen = []
    for number, image in _shown(data, View(12, channels)).items():
        own = _images(data)[number]
        (move,) = [move for move in moves if np.array_equal(_moved(own, *move), image)]
        seen.append(move)
    assert len(seen) == 128
    for values, expected in zip(zip(*seen, strict=True), (5, 5, 2), strict=True):
        assert len(set(values)) == expected
    assert len(set(seen)) > 40


def test_moves_are_those_of_the_batchs_own_generator(make_noise: MakeNoise) -> None:
    """Runs of earlier versions go on with the images that they would have seen: two draws a batch,
    all shifts and then all mirrorings."""
    data = make_noise(64, size=12)
    shown = _shown(data, View(12, 1), epoch=3)
    for batch, numbers in enumerate((list(shown)[:32], list(shown)[32:])):
        seed = random.Random(f"0/{(3, batch)}").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        down, right = 2 - torch.randint(0, 5, (2, 32, 1), generator=generator)[..., 0]
        mirrored = torch.rand((32, 1), generator=generator)[:, 0] < 0.5
        for number, *move in zip(numbers, down.tolist(), right.tolist(), mirrored, strict=True):
            assert np.array_equal(shown[number], _moved(_images(data)[number], *move))


def test_moves_differ_from_batch_to_batch_and_from_epoch_to_epoch(make_noise: MakeNoise) -> None:
    """Whether the images of each place in a batch are mirrored tells the batches apart."""
    data = make_noise(64, size=12)
    batches = []
    for epoch in (0, 1):
        shown = _shown(data, View(12, 1, crop=0.0), epoch)
        mirrored = [not np.array_equal(image, _images(data)[n]) for n, image in shown.items()]
        batches += [mirrored[:32], mirrored[32:]]
    assert len(set(map(tuple, batches))) == 4


@pytest.mark.parametrize("crop", [0.0, 0.04, 0.25])
def test_shift_stays_within_its_share_of_the_side(crop: float, make_noise: MakeNoise) -> None:
    data, reach = make_noise(64, size=12), round(crop * 12)
    moves = list(itertools.product(range(-reach, reach + 1), range(-reach, reach + 1)))
    for number, image in _shown(data, View(12, 1, flip=False, crop=crop)).items():
        own = _images(data)[number]
        assert any(np.array_equal(_moved(own, y, x, mirrored=False), image) for y, x in moves)


def test_flip_mirrors_about_half_of_the_images(make_noise: MakeNoise) -> None:
    data = make_noise(512, size=6)
    shown = _shown(data, View(6, 1, crop=0.0))
    mirrored = 0
    for number, image in shown.items():
        own = _images(data)[number]
        assert np.array_equal(image, own) or np.array_equal(image, own[:, :, ::-1])
        mirrored += not np.array_equal(image, own)
    assert 0.4 < mirrored / len(shown) < 0.6


def _evaluated(data: Dataset, view: View) -> NDArray[np.float32]:
    return torch.cat([x for x, _ in evaluation_batches(data, data.test, view)]).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_a_channel_at_a_time(channels: int, make_noise: MakeNoise) -> None:
    data = make_noise(8, channels, 12)
    mean, std = np.array(data.mean)[:, None, None], np.array(data.std)[:, None, None]
    expected = (_images(data) / 255 - mean) / std
    np.testing.assert_allclose(_evaluated(data, View(12, channels)), expected, atol=1e-5)


def test_grey_images_are_shown_alike_in_three_channels(make_noise: MakeNoise) -> None:
    data = make_noise(8, channels=1, size=12)
    grey, colour = (_evaluated(data, View(12, channels)) for channels in (1, 3))
    assert colour.shape == (8, 3, 12, 12)
    for channel in range(3):
        assert np.array_equal(colour[:, channel], grey[:, 0])


def test_colour_images_are_shown_in_one_channel_by_their_luma(make_noise: MakeNoise) -> None:
    data = make_noise(8, channels=3, size=12)
    luma = np.tensordot(_images(data) / 255, LUMA, axes=(1, 0))
    expected = (luma - LUMA @ data.mean) / (LUMA @ data.std)
    np.testing.assert_allclose(_evaluated(data, View(12, 1))[:, 0], expected, atol=1e-5)


def _bilinear(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(H, H) enlarged to (size, size): pixel centres aligned, edges continued."""
    positions = (np.arange(size) + 0.5) * len(image) / size - 0.5
    positions = positions.clip(0, len(image) - 1)
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(image) - 1)
    share = positions - low
    rows: NDArray[np.float64] = image[low] * (1 - share)[:, None] + image[high] * share[:, None]
    enlarged: NDArray[np.float64] = rows[:, low] * (1 - share) + rows[:, high] * share
    return enlarged


def test_images_are_enlarged_bilinearly(make_noise: MakeNoise) -> None:
    data = make_noise(4, size=12)
    plain = _evaluated(data, View(12, 1))
    expected = [_bilinear(image[0].astype(float), 20) for image in plain]
    np.testing.assert_allclose(_evaluated(data, View(20, 1))[:, 0], expected, atol=1e-4)


def test_shrunken_images_keep_what_is_between_the_pixels(make_noise: MakeNoise) -> None:
    """Antialiased: stripes, one row in four, become their mean and do not vanish."""
    data = make_noise(2, size=32)
    stripes = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    stripes[:, :, ::4] = 255
    data = replace(data, test=ImageArray(stripes, torch.arange(2)), mean=(0.0,), std=(1.0,))
    centre = _evaluated(data, View(8, 1))[:, :, 2:-2, 2:-2]
    np.testing.assert_allclose(centre, 0.25, atol=0.1)
