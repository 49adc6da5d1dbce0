"""Soft labels kept on disk: they are the live teacher's, whichever batch asks, or none at all."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nasaug.supernet import Architecture, Network
from nasaug.training import (
    Batch,
    Batches,
    CachedTeacher,
    Dataset,
    ImageArray,
    Losses,
    OuterTeacher,
    Recipe,
    RunFolder,
    SoftLabels,
    State,
    View,
    Workers,
    distillation,
    fit,
    label_cache,
    reestimate_batch_norm,
    soft_labels,
    training_batches,
    ways_shown,
)
from nasaug.training.folders import ImagePaths
from nasaug.training.loaders import ArrayBatches
from nasaug.training.orders import Shuffled

MakeNoise = Callable[..., Dataset]
IMAGES, CLASSES = 50, 5
VIEW = View(28, 1, flip=False, crop=0.0)


class Sums(nn.Module):
    """Logits that do not depend, in their last bit, on which images share the batch."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        columns = x[:, 0].double().round(decimals=3).sum(1)[:, : 5 * CLASSES]
        return (self.scale * columns.reshape(len(x), 5, CLASSES).sum(1)).float()


def _teacher(scale: float = 0.1, identity: str = "sums") -> OuterTeacher:
    return OuterTeacher(Sums(scale), identity, 1)


@pytest.fixture
def noise(make_noise: MakeNoise) -> Dataset:
    return make_noise(IMAGES, classes=CLASSES)


@pytest.fixture
def labels(noise: Dataset, tmp_path: Path) -> SoftLabels:
    return soft_labels(_teacher(), noise, VIEW, tmp_path)


def _state(step: int, steps_per_epoch: int, accumulate: int = 1, part: int = 0) -> State:
    recipe = Recipe(accumulate=accumulate)
    return State(recipe, step, 10**6, steps_per_epoch, 0, nullcontext, list, part=part)


def _as_kept(logits: Tensor) -> Tensor:
    """What float16 makes of them once the largest is 0."""
    return (logits - logits.max(1, keepdim=True).values).half().float()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("soft-labels-*.safetensors"))


def _only_file(folder: Path) -> Path:
    (path,) = _files(folder)
    return path


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_kept_logits_are_the_live_ones_over_epochs(
    rank: int | None, noise: Dataset, labels: SoftLabels
) -> None:
    live = _teacher()
    group = Workers() if rank is None else Workers(rank, 2)
    batches = training_batches(noise, VIEW, 8, 3, group)
    cached = CachedTeacher(labels, batches)
    seen = set()
    for epoch in range(3):
        for index, (images, _) in enumerate(batches.epoch(epoch)):
            state = _state(epoch * len(batches) + index, len(batches))
            found = cached(images, state)
            assert torch.equal(found, _as_kept(live(images, state)))
            assert found.dtype == torch.float32
            seen |= {tuple(row) for row in found.tolist()}
    assert len(seen) >= IMAGES * 0.8  # it is not the same batch again and again


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_mirrored_images_have_labels_of_their_own(
    rank: int | None, noise: Dataset, tmp_path: Path
) -> None:
    view, live = replace(VIEW, flip=True), _teacher()
    labels = soft_labels(live, noise, view, tmp_path)
    assert labels.logits.shape == (2, IMAGES, CLASSES)
    group = Workers() if rank is None else Workers(rank, 2)
    batches = training_batches(noise, view, 8, 3, group)
    assert isinstance(batches, ArrayBatches)
    cached, mirrored = CachedTeacher(labels, batches, live=live), 0
    for epoch in range(3):
        for index, (images, _) in enumerate(batches.epoch(epoch)):
            state = _state(epoch * len(batches) + index, len(batches))
            assert torch.equal(cached(images, state), _as_kept(live(images, state)))
            mirrored += int(batches.mirrored(epoch, index).sum())
    shown = 3 * len(batches) * 8
    assert 0.35 * shown < mirrored < 0.65 * shown
    # A file of labels without mirrored ones is another, and of files nobody knows which are.
    assert soft_labels(live, noise, VIEW, tmp_path).ways == 1 and len(_files(tmp_path)) == 2
    assert ways_shown(noise, replace(view, crop=0.1)) == 0
    paths = ImagePaths(("a.png",), torch.zeros(1, dtype=torch.int64))
    assert ways_shown(replace(noise, train=paths), view) == 0


def test_kept_logits_are_the_live_ones_after_resuming_in_mid_epoch(
    noise: Dataset, labels: SoftLabels
) -> None:
    batches = training_batches(noise, VIEW, 8, 3)
    cached = CachedTeacher(labels, batches)
    for index, (images, _) in enumerate(batches.epoch(2, start=4), 4):
        state = _state(2 * len(batches) + index, len(batches))
        assert torch.equal(cached(images, state), _as_kept(_teacher()(images, state)))


def test_kept_logits_are_the_live_ones_when_a_step_has_several_batches(
    noise: Dataset, labels: SoftLabels
) -> None:
    batches = training_batches(noise, VIEW, 8, 3)
    cached = CachedTeacher(labels, batches)
    steps = len(batches) // 2
    assert steps == 3
    for epoch in range(2):
        for index, (images, _) in enumerate(batches.epoch(epoch)):
            step, part = divmod(index, 2)
            state = _state(epoch * steps + step, steps, accumulate=2, part=part)
            assert torch.equal(cached(images, state), _as_kept(_teacher()(images, state)))


def _differences(
    batches: Batches, cached: CachedTeacher, live: OuterTeacher, found: list[float]
) -> Any:
    """A step that learns from what is kept, and writes down how far that is from the teacher."""

    def step(net: Network, batch: Batch, state: State) -> Losses:
        images, _ = batch
        soft = cached(images, state)
        found.append(float((soft.softmax(1) - live(images, state).softmax(1)).abs().max()))
        loss = distillation(net(images), soft, 2.0)
        loss.backward()
        return {"target": loss.detach()}

    return step


def test_a_run_that_is_resumed_learns_from_the_teacher_of_its_images(
    make_noise: MakeNoise, micro: Architecture, tmp_path: Path
) -> None:
    """The real loop, stopped in mid-epoch; a network of ours as teacher."""
    noise = make_noise(40, classes=10)
    net = Network(micro, generator=torch.Generator().manual_seed(7))
    batches = training_batches(noise, VIEW, 8, 0)
    reestimate_batch_norm(net, batches)
    with torch.no_grad():
        list(net.parameters())[-2].mul_(20)
    teacher = OuterTeacher(net, "teacher", 1)
    labels = soft_labels(teacher, noise, VIEW, tmp_path)
    assert float(labels.of(torch.arange(40)).softmax(1).std(0).max()) > 0.01

    recipe = Recipe(epochs=2, warmup_epochs=0, batch_size=8, checkpoint_every=2)
    found: list[float] = []

    def stop(step: int, steps: int, values: Mapping[str, float]) -> None:
        if step == 7:
            raise KeyboardInterrupt

    student = Network(micro, generator=torch.Generator().manual_seed(8))
    run = RunFolder(tmp_path / "run")
    for resume in (False, True):
        cached = CachedTeacher(labels, batches, live=teacher)
        step = _differences(batches, cached, teacher, found)
        try:
            fit(student, step, batches, recipe, run, resume=resume, watch=None if resume else stop)
        except KeyboardInterrupt:
            assert not resume
    assert len(found) == 7 + 4  # from the checkpoint after step 6 on
    assert max(found) < 2e-4


def test_rounding_moves_no_probability_by_much() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes, scale, shift in ((10, 3.0, 0.0), (1000, 5.0, 10.0), (1000, 30.0, -100.0)):
        logits = shift + scale * torch.randn(400, classes, generator=generator)
        kept = label_cache._rounded(logits).float()
        for temperature in (1.0, 4.0):
            moved = (kept / temperature).softmax(1) - (logits / temperature).softmax(1)
            assert float(moved.abs().max()) < 2e-4
            assert float(distillation(kept, logits, temperature)) < 1e-5
        assert torch.equal(kept.argmax(1), logits.argmax(1))


def test_logits_beyond_float16_are_kept_as_its_lowest() -> None:
    kept = label_cache._rounded(torch.tensor([[1e6, 0.0, -1e30], [3e38, 1.0, 2.0]]))
    assert kept.isfinite().all()
    assert torch.equal(kept.float().softmax(1), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))


def test_labels_are_worked_out_once(noise: Dataset, tmp_path: Path) -> None:
    net = Sums(0.1)
    teacher = OuterTeacher(net, "sums", 1)
    told: list[tuple[int, int]] = []
    first = soft_labels(
        teacher, noise, VIEW, tmp_path, watch=lambda done, total, _: told.append((done, total))
    )
    assert told[-1] == (IMAGES, IMAGES)
    assert first.logits.dtype == torch.float16
    assert tuple(first.logits.shape) == (1, IMAGES, CLASSES)
    calls = net.calls
    again = soft_labels(teacher, noise, VIEW, tmp_path)
    assert net.calls == calls > 0
    assert torch.equal(first.logits, again.logits)
    assert _only_file(tmp_path).stat().st_mode & 0o777 == 0o644


def test_the_same_labels_make_the_same_file(noise: Dataset, tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        soft_labels(_teacher(), noise, VIEW, tmp_path / name / "deeper")
        contents.append(_only_file(tmp_path / name / "deeper").read_bytes())
    assert contents[0] == contents[1]


def test_each_teacher_data_set_and_view_has_labels_of_its_own(
    noise: Dataset, make_noise: MakeNoise, tmp_path: Path
) -> None:
    assert isinstance(noise.train, ImageArray)
    other_pixel = noise.train.images.clone()
    other_pixel[3, 0, 5, 5] += 1
    colours = OuterTeacher(Sums(0.1), "sums", 3)
    cases: list[tuple[OuterTeacher, Dataset, View]] = [
        (_teacher(), noise, VIEW),
        (_teacher(0.2), noise, VIEW),
        (_teacher(identity="other"), noise, VIEW),
        (_teacher(), replace(noise, train=replace(noise.train, images=other_pixel)), VIEW),
        (_teacher(), replace(noise, mean=(0.4,)), VIEW),
        (_teacher(), noise, replace(VIEW, resolution=32)),
        (colours, noise, replace(VIEW, in_channels=3)),
    ]
    for count, (teacher, data, view) in enumerate(cases, 1):
        soft_labels(teacher, data, view, tmp_path)
        assert len(_files(tmp_path)) == count
    soft_labels(*cases[0], tmp_path)
    assert len(_files(tmp_path)) == len(cases)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    """As if the file of another key had been copied over it."""
    logits = safetensors.torch.load_file(path)["logits"]
    text = json.dumps({"key": "other", "content": label_cache._digest(logits)})
    safetensors.torch.save_file({"logits": logits}, path, {label_cache.METADATA: text})


def _other_shape(path: Path) -> None:
    logits = safetensors.torch.load_file(path)["logits"][:, :-1].contiguous()
    key = path.stem.removeprefix("soft-labels-")
    text = json.dumps({"key": key, "content": label_cache._digest(logits)})
    safetensors.torch.save_file({"logits": logits}, path, {label_cache.METADATA: text})


def _without_metadata(path: Path) -> None:
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)


def _broken_metadata(path: Path) -> None:
    logits = safetensors.torch.load_file(path)["logits"]
    safetensors.torch.save_file({"logits": logits}, path, {label_cache.METADATA: "[1"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "SafetensorError"),
        (_flip, "its digest does not match"),
        (_empty, "SafetensorError"),
        (_foreign, "of another teacher or other images"),
        (_other_shape, r"torch.float16 \(1, 49, 5\)"),
        (_without_metadata, "KeyError"),
        (_broken_metadata, "JSONDecodeError"),
    ],
)
def test_damaged_or_foreign_labels_are_worked_out_again_with_a_warning(
    damage: Callable[[Path], None],
    reason: str,
    noise: Dataset,
    labels: SoftLabels,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = _only_file(tmp_path)
    whole, expected = path.read_bytes(), labels.logits.clone()
    damage(path)
    assert path.read_bytes() != whole
    with caplog.at_level(logging.WARNING):
        found = soft_labels(_teacher(), noise, VIEW, tmp_path)
    assert torch.equal(found.logits, expected)
    assert path.read_bytes() == whole
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert re.search(reason, record.getMessage())


def test_an_interrupted_write_leaves_no_labels(
    noise: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        soft_labels(_teacher(), noise, VIEW, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "moving",
    [{"crop": 0.1}, {"rand_augment": True}, {"auto_augment": True},
     {"mixup": 0.2}, {"cutmix": 1.0}],
    ids=lambda moving: next(iter(moving)),
)  # fmt: skip
def test_augmented_images_have_no_kept_labels(
    moving: dict[str, Any], noise: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"where every epoch shows each image alike, or mirrored"):
        soft_labels(_teacher(), noise, replace(VIEW, **moving), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_finite_are_not_kept(noise: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"are not for the training images 0 to 49: its weights"):
        soft_labels(_teacher(float("nan")), noise, VIEW, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_several_workers_works_them_out_while_the_others_wait(
    noise: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process: what the second does while it waits is the first's work."""
    first, second = Sums(0.1), Sums(0.1)
    happened: list[str] = []

    def waited(group: Workers) -> None:
        happened.append(f"{group.rank} waits, {len(_files(tmp_path))} files, {second.calls} calls")
        if not group.first:
            soft_labels(OuterTeacher(first, "sums", 1), noise, VIEW, tmp_path, group=Workers(0, 2))

    monkeypatch.setattr(label_cache, "wait_for_all", waited)
    found = soft_labels(OuterTeacher(second, "sums", 1), noise, VIEW, tmp_path, group=Workers(1, 2))
    assert happened == ["1 waits, 0 files, 0 calls", "0 waits, 1 files, 0 calls"]
    assert (first.calls > 0, second.calls) == (True, 0)
    monkeypatch.undo()
    assert torch.equal(found.logits, soft_labels(_teacher(), noise, VIEW, tmp_path).logits)


def test_the_order_of_an_epoch_is_worked_out_once(
    noise: Dataset, labels: SoftLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = training_batches(noise, VIEW, 8, 3)
    asked: list[int] = []
    indices = Shuffled.indices

    def counted(self: Shuffled, epoch: int) -> list[Tensor]:
        asked.append(epoch)
        return indices(self, epoch)

    monkeypatch.setattr(Shuffled, "indices", counted)
    cached = CachedTeacher(labels, batches)
    for step in range(2 * len(batches)):
        cached(torch.zeros(8, 1, 28, 28), _state(step, len(batches)))
    assert asked == [0, 1]


def test_labels_and_order_are_of_the_same_images(labels: SoftLabels, make_noise: MakeNoise) -> None:
    batches = training_batches(make_noise(48, classes=CLASSES), VIEW, 8, 3)
    with pytest.raises(ValueError, match=r"those of the 48 images in training, but are of 50"):
        CachedTeacher(labels, batches)


def test_labels_are_kept_in_as_many_ways_as_the_loader_shows(
    noise: Dataset, labels: SoftLabels, tmp_path: Path
) -> None:
    mirroring = replace(VIEW, flip=True)
    both = soft_labels(_teacher(), noise, mirroring, tmp_path)
    for kept, view in ((labels, mirroring), (both, VIEW)):
        with pytest.raises(ValueError, match=f"but {kept.ways} ways are kept"):
            CachedTeacher(kept, training_batches(noise, view, 8, 3))


@pytest.mark.parametrize(
    ("view", "seed"),
    [(replace(VIEW, flip=True), 3), (replace(VIEW, crop=0.2), 3), (VIEW, 4)],
    ids=["flip", "crop", "another order"],
)
def test_images_that_are_not_those_of_the_labels_are_found_out(
    view: View, seed: int, noise: Dataset, labels: SoftLabels
) -> None:
    """Views that the caller calls fixed by mistake, and the order of another seed."""
    batches = training_batches(noise, view, 8, seed)
    supposed = training_batches(noise, VIEW, 8, 3)
    cached = CachedTeacher(labels, supposed, live=_teacher())
    with pytest.raises(ValueError, match=r"not as they were when their soft labels .* differs by"):
        cached(next(iter(batches))[0], _state(0, len(batches)))


def test_only_the_first_batch_is_compared(noise: Dataset, labels: SoftLabels) -> None:
    batches, net = training_batches(noise, VIEW, 8, 3), Sums(0.1)
    cached = CachedTeacher(labels, batches, live=OuterTeacher(net, "sums", 1))
    for index, (images, _) in enumerate(batches):
        cached(images, _state(index, len(batches)))
    assert net.calls == 1
