"""Batches of pictures with boxes keep the contract of training's batches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.detection import (
    AnnotatedImages,
    DetectionBatch,
    DetectionSet,
    DetectionView,
    calibration_batches,
    evaluation_batches,
    read_picture,
    to_picture,
    training_batches,
)
from nasaug.supernet import Network, load_target
from nasaug.training import Recipe, RunFolder, State, Workers, fit, reestimate_batch_norm

VIEW = DetectionView(48, workers=0)


def _same(first: Iterable[DetectionBatch], second: Iterable[DetectionBatch]) -> bool:
    def tensors(batches: Iterable[DetectionBatch]) -> list[Tensor]:
        return [
            tensor
            for images, (boxes, labels, indices) in batches
            for tensor in (images, *boxes, *labels, indices)
        ]

    one, other = tensors(first), tensors(second)
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_an_epoch_of_training_batches(scenes: DetectionSet) -> None:
    batches = training_batches(scenes, VIEW, 5, seed=0)
    found = list(batches.epoch(0))
    assert len(found) == len(batches) == 4
    for images, targets in found:
        assert images.shape == (5, 3, 48, 48)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert len(targets.boxes) == len(targets.labels) == 5
        for boxes, labels in zip(targets.boxes, targets.labels, strict=True):
            assert boxes.shape == (len(labels), 4)
            assert labels.dtype == torch.int64
    seen = torch.cat([targets.indices for _, targets in found])
    assert len(set(seen.tolist())) == 20
    other = torch.cat([targets.indices for _, targets in batches.epoch(1)])
    assert not torch.equal(seen, other)


@pytest.mark.parametrize("changes", [{}, {"in_memory": True}, {"workers": 2}])
def test_batches_follow_from_seed_epoch_and_index(
    scenes: DetectionSet, changes: dict[str, int]
) -> None:
    wanted = list(training_batches(scenes, VIEW, 5, seed=3).epoch(2))
    batches = training_batches(scenes, replace(VIEW, **changes), 5, seed=3)
    assert _same(batches.epoch(2), wanted)
    assert _same(batches.epoch(2, 3), wanted[3:])
    assert not _same(batches.epoch(1), wanted)
    assert not _same(training_batches(scenes, VIEW, 5, seed=4).epoch(2), wanted)


def test_two_workers_see_what_one_would(scenes: DetectionSet) -> None:
    whole = next(iter(training_batches(scenes, VIEW, 6, seed=3).epoch(2)))
    shares = [
        next(iter(training_batches(scenes, VIEW, 3, 3, Workers(rank, 2)).epoch(2)))
        for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([images for images, _ in shares]), whole[0])
    boxes = itertools.chain(*(targets.boxes for _, targets in shares))
    assert all(map(torch.equal, boxes, whole[1].boxes))


def test_evaluation_is_in_order_and_leads_back(scenes: DetectionSet) -> None:
    batches = evaluation_batches(scenes.train, VIEW, 7)
    assert len(batches) == 4
    seen = 0
    for images, targets in batches:
        for place, index in enumerate(targets.indices.tolist()):
            image = scenes.train[seen]
            assert index == seen
            boxes = to_picture(targets.boxes[place], 48, image.width, image.height)
            assert torch.allclose(boxes, image.boxes, atol=1e-3)
            assert torch.equal(targets.labels[place], image.labels)
            picture = read_picture(image.path, image.width, image.height).float() / 255
            shown = images[place] * torch.tensor(VIEW.std)[:, None, None]
            shown += torch.tensor(VIEW.mean)[:, None, None]
            assert torch.allclose(shown.mean((1, 2)), picture.mean((1, 2)), atol=0.02)
            seen += 1
    assert seen == 24


def test_crowds_and_if_asked_difficult_objects_are_not_learnt(scenes: DetectionSet) -> None:
    view = replace(VIEW, iou_crop=False, zoom_out=1.0)
    counts = scenes.train.first.diff()
    chosen = int(counts.argmax())
    image = scenes.train[chosen]
    crowd = torch.zeros(int(scenes.train.first[-1]), dtype=torch.bool)
    crowd[int(scenes.train.first[chosen])] = True
    total = len(image.labels)
    for marked, view_, left in (
        ({"crowd": crowd}, view, total - 1),
        ({"difficult": crowd}, view, total),
        ({"difficult": crowd}, replace(view, difficult=False), total - 1),
    ):
        data = replace(scenes, train=replace(scenes.train, **marked))
        found = {
            index: len(labels)
            for _, targets in training_batches(data, view_, 1, seed=0)
            for index, labels in zip(targets.indices.tolist(), targets.labels, strict=True)
        }
        assert found[chosen] == left
        evaluated = next(iter(evaluation_batches(data.train, view_, 24)))[1]
        assert len(evaluated.labels[chosen]) == total


def test_calibration_sees_a_fixed_subset(scenes: DetectionSet) -> None:
    batches = calibration_batches(scenes, VIEW, 10, batch_size=4)
    assert [len(images) for images, _ in batches] == [4, 4]
    assert _same(batches, calibration_batches(scenes, VIEW, 10, batch_size=4))
    assert [len(images) for images, _ in calibration_batches(scenes, VIEW, 3)] == [3]


def test_too_large_batches_are_refused(scenes: DetectionSet) -> None:
    with pytest.raises(ValueError, match="must be at most the 24 training images"):
        training_batches(scenes, VIEW, 25, seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named(scenes: DetectionSet, tmp_path: Path, workers: int) -> None:
    image = scenes.train[3]
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(image.path).read_bytes()[:1500])
    part = AnnotatedImages.of([scenes.train[0], replace(image, path=str(damaged))])
    with pytest.raises(ValueError, match=re.escape(f"image {damaged} cannot be read")):
        list(evaluation_batches(part, replace(VIEW, workers=workers)))
    with pytest.raises(ValueError, match=re.escape(f"image {damaged} cannot be read")):
        evaluation_batches(part, replace(VIEW, in_memory=True))


def test_the_training_loop_takes_them_as_they_are(scenes: DetectionSet, tmp_path: Path) -> None:
    """With a step of our own; the loop and batch norm look at no more than the images."""
    arch = load_target("micro_10k", 10)
    view = replace(VIEW, size=28)
    seen: list[list[int]] = []

    def step(net: Network, batch: DetectionBatch, state: State) -> dict[str, Tensor]:
        images, targets = batch
        seen.append(targets.indices.tolist())
        most = torch.stack(
            [labels[0] if len(labels) else labels.sum() for labels in targets.labels]
        )
        loss = state.loss(state.outputs(net, images).logits, most)
        loss.backward()
        return {"target": loss.detach()}

    net = Network(arch, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=2, batch_size=8, lr=0.01, warmup_epochs=0)
    batches: Any = training_batches(scenes, view, 8, seed=0)
    run = RunFolder(tmp_path / "run")
    fit(net, step, batches, recipe, run, seed=0)
    wanted = [targets.indices.tolist() for epoch in (0, 1) for _, targets in batches.epoch(epoch)]
    assert seen == wanted
    calibration: Any = calibration_batches(scenes, view, 8)
    assert reestimate_batch_norm(net, calibration) == 8
