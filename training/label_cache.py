"""A teacher's predictions of all training images, worked out once and kept on disk.

Where every epoch shows each training image alike, or as it is or mirrored, so does the teacher see
it; a forward pass of the larger network at every step becomes a look-up.

Kept are the logits as float16, the largest of an image moved to 0: softmax does not see the move,
and rounding, which grows with a number's size, then falls on the classes that matter least.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nasaug.training.datasets import Dataset, ImageArray
from nasaug.training.distributed import ALONE, Workers, wait_for_all
from nasaug.training.files import write_atomically
from nasaug.training.fit import Watch
from nasaug.training.loaders import ArrayBatches, Batches, evaluation_batches
from nasaug.training.state import State
from nasaug.training.teachers import OuterTeacher
from nasaug.training.views import View

log = logging.getLogger(__name__)
FORMAT = 2
METADATA = "soft_labels"
LOWEST = torch.finfo(torch.float16).min
# Largest difference of a probability between what is kept and what the teacher says in training.
TOLERANCE = 0.02


@dataclass(frozen=True)
class SoftLabels:
    """logits (ways, images, classes) float16 by the image's place in the training part, as it is
    and, where there are two ways, mirrored; the largest of an image is 0."""

    logits: Tensor

    @property
    def ways(self) -> int:
        """In how many ways the images are shown."""
        return len(self.logits)

    def of(self, images: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """int64 (N,), bool (N,) -> logits (N, classes), float32. None: no image is mirrored."""
        ways = 0 if mirrored is None else mirrored.long()
        return self.logits[ways, images].float()


def ways_shown(data: Dataset, view: View) -> int:
    """In how many ways epochs show a training image: one, or two where one in memory may be
    mirrored; 0 where there are more, or it is not known which."""
    if view.fixed:
        return 1
    return 2 if view.only_mirrors and isinstance(data.train, ImageArray) else 0


def soft_labels(
    teacher: OuterTeacher,
    data: Dataset,
    view: View,
    folder: Path,
    *,
    group: Workers = ALONE,
    watch: Watch | None = None,
) -> SoftLabels:
    """The teacher's logits of the training images as `view` shows them, from `folder` if they are
    there, else worked out and put there.

    The file's name is a digest of the teacher's weights, the data and the view. Of several workers
    the first works them out while the others wait. `watch(done, images, {})` tells how far it is.

    Raises: ValueError for a view that moves or changes images, or a teacher whose logits are not
        finite; OSError if the folder cannot be written.
    """
    ways = ways_shown(data, view)
    if ways == 0:
        raise ValueError(
            "soft labels can be kept only where every epoch shows each image alike, or mirrored "
            "where images are in memory; switch crop and every other augmentation off (and flip, "
            "for image files), or do not keep them"
        )
    key = _key(teacher, data, view)
    path = folder / f"soft-labels-{key}.safetensors"
    if not group.first:
        wait_for_all(group)
    logits = _kept(path, key, (ways, len(data.train), len(data.classes)))
    if logits is None:
        logits = _worked_out(teacher, data, view, ways, watch)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = json.dumps({"key": key, "content": _digest(logits)})
        write_atomically(path, safetensors.torch.save({"logits": logits}, {METADATA: metadata}))
    if group.first:
        wait_for_all(group)
    return SoftLabels(logits)


class CachedTeacher:
    """A `Teacher` that looks its logits up: by which images are in the loader's batch, and which of
    them it mirrors.

    The loader is this worker's own. With `live`, the teacher itself, the
    first batch that is asked for is compared with what it says.

    Raises: ValueError for a loader of another number of images; in training, where the first batch
        shows that the images are not those of the labels, or not shown as they were.
    """

    def __init__(
        self, labels: SoftLabels, batches: Batches, live: OuterTeacher | None = None
    ) -> None:
        images = batches.order.images
        if labels.logits.shape[1] != images:
            raise ValueError(
                f"soft labels must be those of the {images} images in training, but are of "
                f"{labels.logits.shape[1]}"
            )
        mirrors = isinstance(batches, ArrayBatches) and batches.mirrors
        if labels.ways != 1 + mirrors:
            raise ValueError(
                "soft labels must be kept of mirrored images too where, and only where, the loader "
                f"mirrors images in memory, but {labels.ways} ways are kept"
            )
        self._labels, self._batches, self._live = labels, batches, live
        self._epoch = -1
        self._chosen: list[Tensor] = []

    def __call__(self, images: Tensor, state: State) -> Tensor:
        """images (N, C, R, R) -> logits (N, classes), float32, the largest of an image 0."""
        if state.epoch != self._epoch:
            self._epoch, self._chosen = state.epoch, self._batches.order.indices(state.epoch)
        logits = self._labels.of(self._chosen[state.batch], self._mirrored(state))
        logits = logits.to(images.device)
        assert len(logits) == len(images), "the order is not that of the loader"
        if self._live is not None:
            self._compare(logits, self._live.logits(images))
            self._live = None
        return logits

    def _mirrored(self, state: State) -> Tensor | None:
        if self._labels.ways == 1:
            return None
        assert isinstance(self._batches, ArrayBatches)  # checked above
        return self._batches.mirrored(state.epoch, state.batch)

    def _compare(self, kept: Tensor, live: Tensor) -> None:
        difference = float((kept.softmax(1) - live.softmax(1)).abs().max())
        if not difference <= TOLERANCE:
            raise ValueError(
                "the images in training are not as they were when their soft labels were worked "
                f"out: a probability differs by {difference:.3f}, more than {TOLERANCE}; remove "
                "the kept labels, or do not keep them"
            )


def _key(teacher: OuterTeacher, data: Dataset, view: View) -> str:
    described = {
        "format": FORMAT,
        "teacher": teacher.digest(),
        "data": data.digest(),
        "mean": data.mean,
        "std": data.std,
        "resolution": view.resolution,
        "in_channels": view.in_channels,
        "mirrored": view.flip,
    }
    return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()


def _worked_out(
    teacher: OuterTeacher, data: Dataset, view: View, ways: int, watch: Watch | None
) -> Tensor:
    total, done = len(data.train), 0
    kept = torch.empty(ways, total, len(data.classes), dtype=torch.float16)
    for images, _ in evaluation_batches(data, data.train, view):
        after = done + len(images)
        for way, shown in enumerate((images, images.flip(-1))[:ways]):
            logits = teacher.logits(shown)
            if not logits.isfinite().all():
                raise ValueError(
                    "the teacher's logits must be finite, but are not for the training images "
                    f"{done} to {after - 1}: its weights are bad"
                )
            kept[way, done:after] = _rounded(logits)
        done = after
        if watch is not None:
            watch(done, total, {})
    assert done == total
    return kept


def _rounded(logits: Tensor) -> Tensor:
    """As they are kept; what float16 cannot hold is as unlikely as it can say."""
    moved = logits - logits.max(1, keepdim=True).values
    return moved.clamp(min=LOWEST).to(torch.float16).cpu()


def _kept(path: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    """What the file holds, or None; a damaged or foreign one is named in a warning."""
    if not path.exists():
        return None
    try:
        return _read(path, key, shape)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        log.warning(
            "the soft labels in %s cannot be used (%s: %s) and are worked out again",
            path, type(error).__name__, error,
        )  # fmt: skip
        return None


def _read(path: Path, key: str, shape: tuple[int, ...]) -> Tensor:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {})[METADATA])
        logits: Tensor = file.get_tensor("logits")
    if metadata["key"] != key:
        raise ValueError("it is of another teacher or other images")
    if logits.dtype != torch.float16 or tuple(logits.shape) != shape:
        raise ValueError(f"it holds {logits.dtype} {tuple(logits.shape)}")
    if metadata["content"] != _digest(logits):
        raise ValueError("its digest does not match")
    return logits


def _digest(logits: Tensor) -> str:
    return hashlib.blake2b(logits.view(torch.uint8).numpy().data, digest_size=16).hexdigest()
