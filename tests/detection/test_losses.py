"""Losses and detections against torchvision's SSD: the same heads, anchors and objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from nasaug.detection import DetectorOptions
from nasaug.detection.losses import Predicted, detection_losses, matched
from nasaug.detection.prediction import detections_of

SIZE, CLASSES, IMAGES = 320, 5, 4
Scene = tuple[Predicted, list[Tensor], list[Tensor], Tensor]


@pytest.fixture(scope="module")
def ssd() -> Any:
    """torchvision's SSDLite; of its numbers those that our defaults have otherwise are set."""
    model = ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        score_thresh=0.01,
        nms_thresh=0.45,
        detections_per_img=200,
        topk_candidates=400,
    )
    return model.eval()


@pytest.fixture(scope="module")
def anchors(ssd: Any) -> Tensor:
    maps = [torch.zeros(1, 1, side, side) for side in (20, 10, 5, 3, 2, 1)]
    pictures = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])
    found: Tensor = ssd.anchor_generator(pictures, maps)[0]
    return found


def scene(anchors: Tensor, seed: int, spread: float = 2.0) -> Scene:
    """Random heads and objects; the last image has no object, the first two at one place."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(IMAGES, len(anchors), CLASSES + 1, generator=generator)
    offsets = torch.randn(IMAGES, len(anchors), 4, generator=generator)
    boxes, labels = [], []
    for count in (3, 1, 7, 0):
        corners = torch.rand(count, 2, 2, generator=generator) * SIZE
        first, last = corners.amin(1), corners.amax(1) + 4
        boxes.append(torch.cat([first, last], 1))
        labels.append(torch.randint(CLASSES, (count,), generator=generator))
    boxes[0][1] = boxes[0][0]
    return Predicted(logits.requires_grad_(), offsets.requires_grad_()), boxes, labels, anchors


def theirs(ssd: Any, given: Scene) -> dict[str, Tensor]:
    predicted, boxes, labels, anchors = given
    none = torch.full((len(anchors),), -1)
    of_boxes = [ssd.proposal_matcher(box_iou(own, anchors)) if len(own) else none for own in boxes]
    # torchvision counts the ground as class 0, as the data there do too.
    targets = [
        {"boxes": own, "labels": names + 1} for own, names in zip(boxes, labels, strict=True)
    ]
    heads = {"bbox_regression": predicted.offsets, "cls_logits": predicted.logits}
    losses: dict[str, Tensor] = ssd.compute_loss(targets, heads, [anchors] * IMAGES, of_boxes)
    return losses


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_their_gradients_are_torchvisions(ssd: Any, anchors: Tensor, seed: int) -> None:
    mine, other = scene(anchors, seed), scene(anchors, seed)
    own = detection_losses(*mine, DetectorOptions(size=SIZE))
    expected = theirs(ssd, other)
    assert own["boxes"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-6)
    assert own["classes"].item() == pytest.approx(expected["classification"].item(), rel=1e-6)
    sum(own.values()).backward()  # type: ignore[union-attr]
    sum(expected.values()).backward()  # type: ignore[union-attr]
    for a, b in zip(mine[0], other[0], strict=True):
        assert b.grad.abs().sum() > 0
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-8)


def test_images_without_any_object_teach_nothing(ssd: Any, anchors: Tensor) -> None:
    predicted, _, _, _ = scene(anchors, 0)
    none = [torch.zeros(0, 4)] * IMAGES
    labels = [torch.zeros(0, dtype=torch.int64)] * IMAGES
    own = detection_losses(predicted, none, labels, anchors, DetectorOptions(size=SIZE))
    assert {name: loss.item() for name, loss in own.items()} == {"boxes": 0.0, "classes": 0.0}
    sum(own.values()).backward()  # type: ignore[union-attr]
    assert predicted.logits.grad is not None and not predicted.logits.grad.any()
    assert predicted.offsets.grad is not None and not predicted.offsets.grad.any()


def test_an_object_that_no_anchor_fits_has_the_nearest() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [22, 20, 42, 40]])
    tiny, fitting = [1.0, 1, 3, 3], [21.0, 20, 41, 40]
    of_boxes = matched(anchors, torch.tensor([tiny, fitting]), 0.5)
    assert of_boxes.tolist() == [0, 1, 1]
    # Above the overlap that either has with it (19 / 21), the best alone is kept.
    assert matched(anchors, torch.tensor([tiny, fitting]), 0.95).tolist() == [0, 1, -1]


def test_hard_negatives_by_hand() -> None:
    """One object, four anchors on the ground; of these the worst two are taught."""
    anchors = torch.tensor([[0.0, 0, 10, 10]] + [[20.0 * i, 50, 20 * i + 10, 60] for i in range(4)])
    ground = torch.tensor([0.0, 3.0, 1.0, 2.0, 0.5])
    logits = torch.stack([ground, torch.zeros(5)], 1)[None]
    predicted = Predicted(logits, torch.zeros(1, 5, 4))
    options = DetectorOptions(negatives=2)
    box, label = [torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([0])]
    own = detection_losses(predicted, box, label, anchors, options)
    entropy = torch.nn.functional.softplus(-ground)
    # The object's own is at equal logits; those of 1 and 0.5 are the surest to be wrong.
    expected = torch.log(torch.tensor(2.0)) + entropy[2] + entropy[4]
    assert own["classes"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert own["boxes"].item() == 0.0


def test_smoothing_is_cross_entropys() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    logits = torch.tensor([[[0.3, -0.2, 1.0]]])
    predicted = Predicted(logits, torch.zeros(1, 1, 4))
    box, label = [torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([1])]
    own = detection_losses(predicted, box, label, anchors, DetectorOptions(), 0.1)
    log = logits[0, 0].log_softmax(0)
    assert own["classes"].item() == pytest.approx((-0.9 * log[2] - 0.1 * log.mean()).item())


@pytest.mark.parametrize("spread", [0.5, 2.0, 3.5])
def test_detections_are_torchvisions(ssd: Any, anchors: Tensor, spread: float) -> None:
    predicted, _, _, _ = scene(anchors, 7, spread)
    heads = {"bbox_regression": predicted.offsets, "cls_logits": predicted.logits}
    with torch.no_grad():
        expected = ssd.postprocess_detections(heads, [anchors] * IMAGES, [(SIZE, SIZE)] * IMAGES)
        found = detections_of(predicted, anchors, DetectorOptions(size=SIZE))
    assert len(found) == IMAGES
    for mine, other in zip(found, expected, strict=True):
        assert len(mine.scores) > 0
        assert torch.equal(mine.boxes, other["boxes"])
        assert torch.equal(mine.scores, other["scores"])
        assert torch.equal(mine.labels, other["labels"] - 1)


def test_every_number_of_the_options_decides(ssd: Any, anchors: Tensor) -> None:
    predicted, _, _, _ = scene(anchors, 3)
    usual = DetectorOptions(size=SIZE)

    def found(**other: float) -> list[int]:
        options = usual.model_copy(update=other)
        with torch.no_grad():
            return [len(own.scores) for own in detections_of(predicted, anchors, options)]

    assert found() == [200] * IMAGES
    assert found(detections=7) == [7] * IMAGES
    assert found(candidates=1) == [CLASSES] * IMAGES
    assert max(found(min_score=0.999)) < 200
    assert max(found(nms_iou=0.01)) < 200


def test_nothing_is_found_where_no_score_is_high_enough(anchors: Tensor) -> None:
    logits = torch.zeros(1, len(anchors), 3)
    logits[..., 0] = 20.0
    predicted = Predicted(logits, torch.zeros(1, len(anchors), 4))
    (found,) = detections_of(predicted, anchors, DetectorOptions(size=SIZE))
    assert found.boxes.shape == (0, 4) and found.labels.dtype == torch.int64
