"""Boxes follow what is drawn in them; squares and pictures lead back to each other."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from nasaug.detection import DetectionView, SquareTransform, normalised, to_picture
from nasaug.detection.crop import QuickIoUCrop

# No distortion of colours, so that markers are found by their colour.
PLAIN = DetectionView(160, photometric=False)
NOTHING = replace(PLAIN, zoom_out=1.0, iou_crop=False, flip=False)
COLOURS = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8)


def _picture(width: int, height: int, boxes: Tensor) -> Tensor:
    """Green ground with a block of its own colour for each box of whole pixels."""
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    picture[1] = 128
    for (x0, y0, x1, y1), colour in zip(boxes.int().tolist(), COLOURS, strict=False):
        picture[:, y0:y1, x0:x1] = colour[:, None, None]
    return picture


def _marker(image: Tensor, label: int) -> list[int]:
    """The edges of the block of a colour: where it is more than half of a pixel."""
    other = 2 - 2 * label
    mask = (image[2 * label].int() > 127) & (image[other].int() < 100) & (image[1] < 64)
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    assert len(rows), "the marker is nowhere to be seen"
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@st.composite
def _pictures(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A picture of two blocks, one in its left and one in its right half, of 12 to 40 pixels."""
    width, height = draw(st.integers(100, 220)), draw(st.integers(60, 200))
    boxes = []
    for left, right in ((0, width // 2), (width // 2, width)):
        across, down = draw(st.integers(12, 40)), draw(st.integers(12, 40))
        x, y = draw(st.integers(left, right - across)), draw(st.integers(0, height - down))
        boxes.append([x, y, x + across, y + down])
    found = torch.tensor(boxes, dtype=torch.float32)
    return _picture(width, height, found), found


@settings(max_examples=60, deadline=None)
@given(
    sample=_pictures(), seed=st.integers(0, 2**62), name=st.sampled_from(["all", "zoom", "crop"])
)
def test_boxes_follow_their_blocks(sample: tuple[Tensor, Tensor], seed: int, name: str) -> None:
    view = {
        "all": PLAIN,
        "zoom": replace(NOTHING, zoom_out=4.0),
        "crop": replace(NOTHING, iou_crop=True, flip=True),
    }[name]
    picture, boxes = sample
    image, moved, labels = SquareTransform(view, augments=True)(
        picture, boxes, torch.arange(2), seed
    )
    assert image.shape == (3, 160, 160)
    assert moved.dtype == torch.float32
    assert len(moved) == len(labels) >= 1
    for box, label in zip(moved.tolist(), labels.tolist(), strict=True):
        assert 0 <= box[0] < box[2] <= 160
        assert 0 <= box[1] < box[3] <= 160
        assert np.allclose(box, _marker(image, label), atol=1.5), (box, _marker(image, label))


def test_an_object_at_the_edge_is_kept_however_its_box_is_rounded() -> None:
    """39 x (160 / 39) is above 160 in float32."""
    picture = torch.zeros(3, 39, 33, dtype=torch.uint8)
    box = torch.tensor([[7.0, 27, 19, 39], [20, 3, 33, 20]])
    _, moved, labels = SquareTransform(NOTHING, augments=True)(picture, box, torch.arange(2), 0)
    assert labels.tolist() == [0, 1]
    assert moved[:, 2:].max() <= 160


@settings(max_examples=40, deadline=None)
@given(sample=_pictures(), size=st.integers(32, 320))
def test_squares_lead_back_to_pictures(sample: tuple[Tensor, Tensor], size: int) -> None:
    picture, boxes = sample
    view = replace(PLAIN, size=size)
    image, moved, labels = SquareTransform(view, augments=False)(picture, boxes, torch.arange(2))
    assert image.shape == (3, size, size)
    assert labels.tolist() == [0, 1]
    height, width = picture.shape[1:]
    assert torch.allclose(to_picture(moved, size, width, height), boxes, atol=1e-3)


def test_predictions_beyond_the_square_are_cut_off_at_the_picture() -> None:
    boxes = torch.tensor([[-8.0, 10.0, 80.0, 400.0]])
    assert to_picture(boxes, 160, 320, 80).tolist() == [[0, 5, 160, 80]]


def test_the_seed_alone_decides_and_torchs_generator_stays() -> None:
    boxes = torch.tensor([[10.0, 10, 50, 50], [60, 20, 90, 60]])
    picture = _picture(120, 90, boxes)
    transform = SquareTransform(DetectionView(64), augments=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    shown = [transform(picture, boxes, torch.arange(2), seed) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(shown[0], shown[1], strict=True))
    assert not torch.equal(shown[0][0], shown[2][0])
    assert boxes.tolist() == [[10, 10, 50, 50], [60, 20, 90, 60]]


def test_pictures_without_objects() -> None:
    picture, none = _picture(100, 80, torch.zeros(0, 4)), torch.zeros(0, 4)
    transform = SquareTransform(DetectionView(64), augments=True)
    for seed in range(20):
        image, boxes, labels = transform(picture, none, torch.zeros(0, dtype=torch.int64), seed)
        assert image.shape == (3, 64, 64)
        assert boxes.shape == (0, 4)
        assert len(labels) == 0


def test_objects_that_come_out_too_small_are_left_out() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100], [10, 10, 13, 60]])
    picture = torch.zeros(3, 100, 100, dtype=torch.uint8)
    view = replace(NOTHING, size=50, smallest=2.0)
    _, kept, labels = SquareTransform(view, augments=True)(picture, boxes, torch.arange(2))
    assert labels.tolist() == [0]
    assert kept.tolist() == [[0, 0, 50, 50]]


def test_grey_networks_see_luma() -> None:
    picture = torch.zeros(3, 40, 40, dtype=torch.uint8)
    picture[1] = 200
    view = replace(NOTHING, size=20, mean=(0.5,), std=(0.25,))
    boxes, labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    image, _, _ = SquareTransform(view, augments=False)(picture, boxes, labels)
    assert image.unique().tolist() == [int(0.587 * 200)]
    shown = normalised(image[None], view)
    assert shown.shape == (1, 1, 20, 20)
    assert float(shown[0, 0, 0, 0]) == pytest.approx((117 / 255 - 0.5) / 0.25)


def test_colours_are_normalised_by_channel() -> None:
    view = DetectionView(2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    images = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    wanted = torch.tensor([0.2, 0.0, -0.8])
    assert torch.allclose(normalised(images, view)[0, :, 1, 1], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1 pixel, but got 0"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "mean and std must have one number each, or"),
        ({"mean": (0.5,)}, "mean and std must have one number each, or three"),
        ({"std": (0.1, 0.0, 0.1)}, "deviations above 0"),
        ({"zoom_out": 0.5}, "zoom_out is how many times wider .* but got 0.5; 1 switches it off"),
        ({"zoom_out": float("inf")}, "zoom_out is how many times wider"),
        ({"smallest": 0.5}, "smallest must be at least 1 pixel, but got 0.5"),
        ({"workers": -1}, "workers must be at least 0, but got -1"),
    ],
)
def test_bad_views(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionView(**{"size": 160, **options})  # type: ignore[arg-type]


class _Draws:
    """In place of torch's generator: one trial's numbers, then the option to crop nothing."""

    def __init__(self, option: int, numbers: list[float]) -> None:
        self._options, self._numbers = [option, 6], list(numbers)

    def randint(self, *_: object, **__: object) -> Tensor:
        return torch.tensor(self._options.pop(0))

    def rand(self, *size: int) -> Tensor:
        count = int(np.prod(size))
        drawn, self._numbers = self._numbers[:count], self._numbers[count:]
        return torch.tensor(drawn).reshape(size)


def test_a_trial_is_judged_as_torchvision_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.tensor([[10.0, 20, 60, 70], [90, 30, 120, 90]])
    sample = BoundingBoxes(boxes, format="XYXY", canvas_size=(100, 150))
    image = torch.zeros(3, 100, 150, dtype=torch.uint8)
    rng = random.Random(0)
    cropped = 0
    for _ in range(1000):
        option, numbers = rng.randrange(6), [rng.random() for _ in range(4)]
        found = []
        for crop in (QuickIoUCrop(trials=1), v2.RandomIoUCrop(trials=1)):
            draws = _Draws(option, numbers)
            with monkeypatch.context() as patch:
                patch.setattr(torch, "rand", draws.rand)
                patch.setattr(torch, "randint", draws.randint)
                params = crop.make_params([image, sample])
            inside = params.pop("is_within_crop_area", torch.zeros(0))
            found.append((params, inside.tolist()))
        assert found[0] == found[1]
        cropped += bool(found[0][0])
    assert 200 < cropped < 800


def test_the_first_good_trial_of_a_round_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three, the first is too wide for its height and the others would do."""
    sample = BoundingBoxes([[10, 10, 90, 90]], format="XYXY", canvas_size=(100, 100))
    trials = [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
    draws = _Draws(0, [number for trial in trials for number in trial])
    monkeypatch.setattr(torch, "rand", draws.rand)
    monkeypatch.setattr(torch, "randint", draws.randint)
    params = QuickIoUCrop(trials=3).make_params([sample])
    assert params.pop("is_within_crop_area").tolist() == [True]
    assert params == {"left": 0, "top": 35, "width": 65, "height": 65}
