"""The detector as a network: shapes, slices, exports, costs, and what cannot be built."""

from __future__ import annotations

import random

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from nasaug.detection import (
    Detector,
    DetectorOptions,
    count_detector_with_fvcore,
    detector_macs,
)
from nasaug.detection.layout import layout_of
from nasaug.supernet import Network, SearchSpace, load_target, params
from nasaug.training import reestimate_batch_norm

CLASSES = ("cat", "dog", "bird")
SMALL = DetectorOptions(size=64, extra=(32, 16), aspect_ratios=(2.0,))


def pictures(count: int = 2, size: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.around(
        load_target("micro_10k", len(CLASSES), resolution=64, in_channels=3),
        width=(1.0, 1.5, 2.0),
        expand=(1.0, 2.0),
        extra_depth=(0, 1),
    )


def test_every_anchor_has_its_logits_and_offsets() -> None:
    arch = load_target("mbv2_tiny")
    detector = Detector(arch, CLASSES, DetectorOptions(size=160)).eval()
    with torch.no_grad():
        said = detector(pictures(2, 160))
    # 10 x 10 and 5 x 5 of the backbone; 3 x 3, 2 x 2 and 1 x 1 of extra layers; 6 anchors each.
    count = 6 * (100 + 25 + 9 + 4 + 1)
    assert said.logits.shape == (2, count, 4)
    assert said.offsets.shape == (2, count, 4)
    assert detector.anchors.shape == (count, 4)


def test_anchors_stand_where_their_features_are() -> None:
    """By a detector whose heads look at one picture's place: its features are 0 but at a cell."""
    detector = Detector(load_target("micro_10k"), CLASSES, SMALL, generator=seeded(0))
    maps = detector.layout().sides
    assert maps == (16, 8, 4, 2)
    side, column, row = 16, 5, 11
    first = torch.zeros(1, detector.scores[0].depthwise.weight.shape[0], side, side)
    first[0, :, row, column] = 1.0
    head = detector.scores[0].eval()
    said = head(first, detector.layout().scores[0])
    ground = head(torch.zeros_like(first), detector.layout().scores[0])
    moved = (said - ground).abs().sum(1)[0]
    assert (moved[row - 1 : row + 2, column - 1 : column + 2] > 0).all()
    assert moved.count_nonzero() == 9
    places = SMALL.anchors_a_place
    start = (row * side + column) * places
    centres = detector.anchors.view(-1, 2, 2).mean(1)[start : start + places]
    step = 64 / side
    expected = torch.tensor([(column + 0.5) * step, (row + 0.5) * step])
    assert torch.allclose(centres, expected.expand(places, 2))


def test_anchors_are_torchvisions() -> None:
    options = DetectorOptions(size=96, smallest=0.15, largest=0.8, aspect_ratios=(2.0, 3.0))
    detector = Detector(load_target("micro_10k"), CLASSES, options)
    sides = detector.layout().sides
    generator = DefaultBoxGenerator([[2, 3] for _ in sides], min_ratio=0.15, max_ratio=0.8)
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    theirs = generator(ImageList(torch.zeros(1, 3, 96, 96), [(96, 96)]), maps)[0]
    assert torch.equal(detector.anchors, theirs)


def test_a_sub_networks_detector_is_its_export(space: SearchSpace) -> None:
    detector = Detector(space.largest, CLASSES, SMALL, generator=seeded(0))
    own = detector.backbone.blocks[0].conv.norm
    reestimate_batch_norm(detector, [(pictures(8, seed=3), None)])
    assert own.running_mean.abs().sum() > 0
    detector.eval()
    rng = random.Random(0)
    widths = set()
    for sub in [space.target, space.largest, *(space.sample(rng) for _ in range(6))]:
        small = detector.export(sub)
        with torch.no_grad():
            mine, theirs = detector(pictures(), sub), small(pictures())
        assert torch.equal(mine.logits, theirs.logits)
        assert torch.equal(mine.offsets, theirs.offsets)
        assert small.arch == sub
        assert small.macs() == detector.macs(sub)
        assert small.params == sum(p.numel() for p in small.parameters())
        widths.add(small.scores[0].depthwise.weight.shape[0])
        storage = {p.data_ptr() for p in detector.parameters()}
        assert not storage & {p.data_ptr() for p in small.parameters()}
    assert len(widths) > 1


def test_the_targets_heads_are_the_first_channels_of_the_wide_ones(space: SearchSpace) -> None:
    detector = Detector(space.largest, CLASSES, SMALL, generator=seeded(0))
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    said = detector(pictures(), space.target)
    (said.logits.sum() + said.offsets.sum()).backward()
    width = detector.layout(space.target).scores[0][0].in_channels
    for heads in (detector.scores, detector.boxes):
        gradient = heads[0].predict.weight.grad
        assert gradient.shape[1] > width
        assert gradient[:, :width].abs().sum() > 0
        assert gradient[:, width:].abs().sum() == 0
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())


@pytest.mark.parametrize("name", ["micro_10k", "mbv3_w035", "resnet50"])
def test_macs_are_fvcores(name: str) -> None:
    arch = load_target(name)
    detector = Detector(arch, CLASSES, DetectorOptions(size=64)).eval()
    macs = detector.macs()
    assert macs.total == count_detector_with_fvcore(detector, 64, 3)
    assert macs == detector_macs(arch, 3, detector.options)
    # The parts, apart: the heads' and extra layers' modules hooked away from the whole.
    layout = detector.layout()
    rows = Network(arch.with_classes(3))
    rows.keep_rows(layout.rows[-1] + 1)

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = rows

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return self.rows.feature_maps(x, layout.rows)

    assert macs.backbone == count_detector_with_fvcore(Backbone().eval(), 64, 3)
    assert min(macs) > 0


def test_heads_macs_by_hand() -> None:
    """One map of 8 channels at 16 x 16, no extra layer, 4 anchors a place, 3 classes."""
    options = DetectorOptions(size=32, strides=(2,), extra=(), aspect_ratios=(2.0,))
    arch = load_target("micro_10k")
    macs = detector_macs(arch, 3, options)
    depthwise = 16 * 16 * 8 * 9
    assert macs.heads == 2 * depthwise + 16 * 16 * 8 * (4 * 4 + 4 * 4)
    assert macs.extra == 0
    # stem: 3 x 3 x 3 to 8 channels; depthwise 3 x 3 and 1 x 1 to 8.
    assert macs.backbone == 16 * 16 * (27 * 8 + 9 * 8 + 8 * 8)


def test_parameters_are_the_backbones_and_the_layouts() -> None:
    arch = load_target("micro_10k", 3)
    detector = Detector(arch, CLASSES, SMALL)
    classifier = (arch.widths_in[-1] + 1) * 3
    assert detector.params == params(arch) - classifier + layout_of(arch, 3, SMALL).params


def test_extra_layers_end_where_a_map_is_one_pixel() -> None:
    arch = load_target("micro_10k")
    assert layout_of(arch, 3, DetectorOptions(size=32)).sides == (8, 4, 2, 1)
    with pytest.raises(ValueError) as error:
        Detector(arch, CLASSES, DetectorOptions(size=32, extra=(64, 32, 16)))
    assert str(error.value) == (
        "extra must have at most 2 widths for pictures of 32 x 32, where the map is 1 x 1 then, "
        "but got [64, 32, 16]"
    )


def test_fresh_weights_follow_the_generator() -> None:
    first, again, other = (
        Detector(load_target("micro_10k"), CLASSES, SMALL, generator=seeded(seed)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if name.endswith(".weight") and ".norm." not in name]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    heads = torch.cat([first[n].flatten() for n in drawn if not n.startswith("backbone")])
    assert heads.std() == pytest.approx(0.03, rel=0.05)


def test_one_class_is_enough() -> None:
    detector = Detector(load_target("micro_10k"), ("item",), SMALL, generator=seeded(0)).eval()
    with torch.no_grad():
        said = detector.export()(pictures(1))
        (found,) = detector.detections(detector(pictures(1)))
    assert said.logits.shape[2] == 2
    assert len(found.scores) > 0 and not found.labels.any()


@pytest.mark.parametrize("classes", [(), ("cat", "cat")])
def test_classes_that_are_none(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        Detector(load_target("micro_10k"), classes)
    assert str(error.value) == (
        f"classes must be different names, at least one, but got {[*classes]}"
    )


def test_a_network_that_does_not_contain_the_other() -> None:
    detector = Detector(load_target("micro_3k", 3), CLASSES, SMALL)
    with pytest.raises(ValueError, match="micro_3k does not contain micro_10k"):
        detector(pictures(), load_target("micro_10k", 3, resolution=64, in_channels=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smallest": 0.9, "largest": 0.5}, "smallest must be below largest, but got 0.9 and 0.5"),
        (
            {"aspect_ratios": (2.0, 1.0)},
            "aspect_ratios must be above 1, as the inverse of each and 1 itself are there anyway, "
            "but got [2.0, 1.0]",
        ),
        (
            {"extra": (64, 31)},
            "extra must be even widths of at least 2 channels, but got [64, 31]",
        ),
        ({"size": 16}, "greater than or equal to 32"),
        ({"match_iou": 1.0}, "less than 1"),
        ({"scale": 2}, "Extra inputs are not permitted"),
    ],
)
def test_options_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        DetectorOptions.model_validate(values)
    assert message in str(error.value)
