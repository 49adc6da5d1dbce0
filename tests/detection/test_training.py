"""Training a detector: steps, the one loop, what is found after it, its weights on disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nasaug.detection import (
    DetectionBatch,
    Detections,
    DetectionSet,
    DetectionView,
    Detector,
    DetectorOptions,
    Helpers,
    Targets,
    calibration_batches,
    detect,
    detection_step,
    evaluation_batches,
    in_picture,
    judge_detections,
    load_detector,
    read_detector_facts,
    save_detector,
    training_batches,
)
from nasaug.supernet import Architecture, Network, SearchSpace, load_target
from nasaug.training import (
    Recipe,
    RunFolder,
    State,
    fit,
    load_weights,
    reestimate_batch_norm,
    save_weights,
)

OPTIONS = DetectorOptions(size=64, extra=(32, 16), aspect_ratios=(2.0,))
RECIPE = Recipe(epochs=1, batch_size=8, lr=0.05, warmup_epochs=0, label_smoothing=0.0)


@pytest.fixture(scope="module")
def target() -> Architecture:
    return load_target("micro_3k", 10, resolution=64, in_channels=3)


@pytest.fixture(scope="module")
def helpers(target: Architecture) -> Helpers:
    wide = SearchSpace.around(target, width=(1.0, 2.0), expand=(1.0, 2.0))
    narrow = SearchSpace.between(target, wide.largest, width=(1.0,), expand=(1.0, 2.0))
    return Helpers(wide, narrow, alpha=0.5)


@pytest.fixture(scope="module")
def view() -> DetectionView:
    return DetectionView(64, workers=0, in_memory=True, zoom_out=1.0)


def fresh(arch: Architecture, scenes: DetectionSet, seed: int = 0) -> Detector:
    generator = torch.Generator().manual_seed(seed)
    return Detector(arch, scenes.classes, OPTIONS, generator=generator)


def state_at(step: int, steps: int = 10) -> State:
    return State(RECIPE, step, steps, 5, 0, nullcontext, list)


@pytest.fixture(scope="module")
def batch(scenes: DetectionSet, view: DetectionView) -> DetectionBatch:
    return next(training_batches(scenes, view, 6, 0).epoch(0))


def test_the_targets_step_is_its_loss(
    target: Architecture, scenes: DetectionSet, batch: DetectionBatch
) -> None:
    detector, other = fresh(target, scenes), fresh(target, scenes)
    state = state_at(0)
    losses = detection_step(target)(detector, batch, state)
    parts = other.losses(other(batch[0]), batch[1].boxes, batch[1].labels)
    loss = parts["boxes"] + parts["classes"]
    loss.backward()
    assert set(losses) == {"target", "boxes", "classes"}
    assert losses["target"].item() == loss.item() > 0
    assert state.macs == 6 * detector.macs().total
    for (name, mine), theirs in zip(detector.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize(("step", "wide"), [(0, True), (4, True), (5, False)])
def test_with_helpers_the_gradients_add_up(
    scenes: DetectionSet, batch: DetectionBatch, helpers: Helpers, step: int, wide: bool
) -> None:
    """L(target) + alpha L(helper), by autograd on the sum of both; wide until half of training."""
    own, largest = helpers.wide.target, helpers.wide.largest
    detector, other = fresh(largest, scenes), fresh(largest, scenes)
    state = state_at(step)
    losses = detection_step(own, helpers)(detector, batch, state)
    space = helpers.wide if wide else helpers.narrow
    helper = space.sample(random.Random(f"0/step/{step}"))
    totals = []
    for sub in (own, helper):
        parts = other.losses(other(batch[0], sub), batch[1].boxes, batch[1].labels)
        totals.append(parts["boxes"] + parts["classes"])
    (totals[0] + 0.5 * totals[1]).backward()
    assert losses["target"].item() == pytest.approx(totals[0].item(), rel=1e-6)
    assert losses["helper"].item() == pytest.approx(totals[1].item(), rel=1e-6)
    assert state.macs == 6 * (detector.macs(own).total + detector.macs(helper).total)
    for mine, theirs in zip(detector.parameters(), other.parameters(), strict=True):
        expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        found = torch.zeros_like(mine) if mine.grad is None else mine.grad
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_second_phase_with_nothing_wider_has_the_target_alone(
    target: Architecture, scenes: DetectionSet, batch: DetectionBatch, helpers: Helpers
) -> None:
    alone = SearchSpace.around(target, (1.0,), (1.0,), kernel_growth=(0,), extra_depth=(0,))
    step = detection_step(helpers.wide.target, Helpers(helpers.wide, alone, width_until=0.0))
    losses = step(fresh(helpers.wide.largest, scenes), batch, state_at(0))
    assert set(losses) == {"target", "boxes", "classes"}


def test_a_batch_without_objects_trains(scenes: DetectionSet, target: Architecture) -> None:
    none = Targets([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2, torch.arange(2))
    losses = detection_step(target)(
        fresh(target, scenes), (torch.randn(2, 3, 64, 64), none), state_at(0)
    )
    assert losses["target"].item() == 0


Fit = Callable[..., Detector]


@pytest.fixture
def train(scenes: DetectionSet, view: DetectionView, helpers: Helpers, tmp_path: Path) -> Fit:
    def call(name: str, epochs: int = 2, resume: bool = False, stop: int | None = None) -> Detector:
        def watch(step: int, steps: int, values: object) -> None:
            if step == stop:
                raise KeyboardInterrupt

        return fit(
            fresh(helpers.wide.largest, scenes),
            detection_step(helpers.wide.target, helpers),
            training_batches(scenes, view, 8, 0),
            RECIPE.model_copy(update={"epochs": epochs, "checkpoint_every": 1, "ema": 0.5}),
            RunFolder(tmp_path / name),
            watch=watch,
            resume=resume,
        )

    return call


def test_a_training_that_was_stopped_ends_in_the_same_weights(train: Fit) -> None:
    whole = train("whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        train("parts", stop=4)
    resumed = train("parts", resume=True).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_finds_what_it_was_shown(scenes: DetectionSet) -> None:
    """A few pictures by heart: mAP rises from nothing to far above it."""
    few = scenes.train.subset(range(4))
    data = DetectionSet("few", scenes.classes, scenes.category_ids, few, few, few)
    view = DetectionView(
        64, workers=0, in_memory=True, zoom_out=1, iou_crop=False, flip=False, photometric=False
    )
    target = load_target("micro_10k", 10, resolution=64, in_channels=3)
    detector = fresh(target, scenes)

    def score(detector: Detector) -> float:
        exported = detector.export()
        reestimate_batch_norm(exported, calibration_batches(data, view, 4))
        found = detect(exported, evaluation_batches(few, view), few)
        return judge_detections(found, few, scenes.classes).mean_ap

    step, optimizer = detection_step(target), torch.optim.Adam(detector.parameters(), 5e-3)
    before = score(detector)
    batches = training_batches(data, view, 4, 0)
    for epoch in range(60):
        for batch in batches.epoch(epoch):
            optimizer.zero_grad()
            step(detector, batch, state_at(0))
            optimizer.step()
    assert before < 0.1
    assert score(detector) > 0.7


def test_detections_are_in_the_pictures_own_order_and_pixels(scenes: DetectionSet) -> None:
    part = scenes.test
    view = DetectionView(64, workers=0)
    detector = fresh(load_target("micro_3k"), scenes)
    assert detector.training
    found = detect(detector, evaluation_batches(part, view, 2), part)
    assert detector.training
    assert len(found) == len(part)
    for index, own in enumerate(found):
        (images, targets) = next(iter(evaluation_batches(part.subset([index]), view, 1)))
        assert targets.indices.tolist() == [0]
        with torch.no_grad():
            square = detector.eval().detections(detector(images))[0]
        width, height = part.sizes[index].tolist()
        scale = torch.tensor([width, height, width, height]) / 64
        assert torch.allclose(own.boxes, square.boxes * scale, atol=1e-3)
        assert own.boxes.max() > 64
    detector.train()


def test_boxes_are_stretched_back_by_side() -> None:
    square = Detections(torch.tensor([[16.0, 16, 32, 64]]), torch.tensor([0.5]), torch.tensor([1]))
    found = in_picture(square, 64, 128, 32)
    assert found.boxes.tolist() == [[32.0, 8.0, 64.0, 32.0]]


def test_weights_are_the_same_after_a_round_trip(scenes: DetectionSet, tmp_path: Path) -> None:
    detector = fresh(load_target("micro_3k"), scenes).eval()
    path = tmp_path / "weights.safetensors"
    save_detector(path, detector, {"data": "scenes"})
    loaded = load_detector(path, load_target("micro_3k", 1000, resolution=224))
    assert (loaded.classes, loaded.options) == (detector.classes, detector.options)
    assert loaded.arch == detector.arch
    assert not loaded.training
    assert read_detector_facts(path) == {"data": "scenes"}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(detector(x), loaded(x), strict=True):
            assert torch.equal(mine, theirs)


def test_weights_of_another_target(scenes: DetectionSet, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_detector(path, fresh(load_target("micro_3k"), scenes))
    with pytest.raises(ValueError) as error:
        load_detector(path, load_target("micro_10k"))
    assert str(error.value) == (
        f"{path} holds a detector on micro_3k, not on micro_10k; name the target that it is on, or "
        "other weights"
    )


def test_a_network_for_classes_is_no_detector_and_the_other_way_round(
    scenes: DetectionSet, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, Network(load_target("micro_3k")))
    with pytest.raises(ValueError, match="holds no detector; nasaug detect train makes one"):
        load_detector(path)
    save_detector(path, fresh(load_target("micro_3k"), scenes))
    with pytest.raises(ValueError, match="holds no nasaug network"):
        load_weights(path)


def described(path: Path, text: str) -> None:
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}, {"nasaug-detector": text}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged: its metadata is unreadable"),
        ("3", "is damaged: its metadata is unreadable"),
        ('{"classes": []}', "is damaged: its metadata is unreadable (architecture is missing)"),
        (
            '{"architecture": {}, "classes": ["a"], "options": {"size": 3}, "facts": {}}',
            "is damaged: 1 validation error",
        ),
        (
            '{"architecture": {}, "classes": ["a"], "options": {}, "facts": {}}',
            "is damaged: an architecture must be a table",
        ),
        (
            '{"architecture": {}, "classes": ["a"], "options": {}, "facts": 3}',
            "(facts is missing)",
        ),
    ],
)
def test_damaged_weights(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    described(path, text)
    with pytest.raises(ValueError) as error:
        load_detector(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_files_that_are_no_weights(scenes: DetectionSet, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load_detector(path)
    save_detector(path, fresh(load_target("micro_3k"), scenes))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}, metadata))
    with pytest.raises(ValueError, match="does not fit its own description"):
        load_detector(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": -1.0}, "alpha must be at least 0, but got -1.0"),
        ({"width_until": 1.5}, "width_until must be from 0 to 1, but got 1.5"),
    ],
)
def test_helpers_out_of_range(helpers: Helpers, values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Helpers(helpers.wide, helpers.narrow, **values)
    assert str(error.value) == message


def test_helpers_of_two_targets(helpers: Helpers) -> None:
    other = SearchSpace.around(load_target("micro_10k"), width=(1.0,), expand=(1.0, 2.0))
    with pytest.raises(ValueError) as error:
        Helpers(helpers.wide, other)
    assert str(error.value) == (
        "wide and narrow must be around one target, but are around micro_3k and micro_10k"
    )
