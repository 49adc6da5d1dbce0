"""A teacher's predictions of all training images, worked out once and kept on disk.

Where every epoch shows each training image alike, so does the teacher see it; a forward pass of the
larger network at every step becomes a look-up.

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

from nasaug.training.datasets import Dataset
from nasaug.training.distributed import ALONE, Workers, wait_for_all
from nasaug.training.files import write_atomically
from nasaug.training.fit import Watch
from nasaug.training.loaders import evaluation_batches
from nasaug.training.orders import Order
from nasaug.training.state import State
from nasaug.training.teachers import OuterTeacher
from nasaug.training.views import View

log = logging.getLogger(__name__)
FORMAT = 1
METADATA = "soft_labels"
LOWEST = torch.finfo(torch.float16).min
# Largest difference of a probability between what is kept and what the teacher says in training.
TOLERANCE = 0.02


@dataclass(frozen=True)
class SoftLabels:
    """logits (images, classes) float16 by the image's place in the training part; the largest of
    an image is 0."""

    logits: Tensor

    def of(self, images: Tensor) -> Tensor:
        """int64 (N,) -> logits (N, classes), float32."""
        return self.logits[images].float()


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

    Raises: ValueError for a view that augments, or a teacher whose logits are not finite; OSError
        if the folder cannot be written.
    """
    if not view.fixed:
        raise ValueError(
            "soft labels can be kept only where every epoch shows each image alike; switch flip, "
            "crop and every other augmentation off, or do not keep them"
        )
    key = _key(teacher, data, view)
    path = folder / f"soft-labels-{key}.safetensors"
    if not group.first:
        wait_for_all(group)
    logits = _kept(path, key, (len(data.train), len(data.classes)))
    if logits is None:
        logits = _worked_out(teacher, data, view, watch)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = json.dumps({"key": key, "content": _digest(logits)})
        write_atomically(path, safetensors.torch.save({"logits": logits}, {METADATA: metadata}))
    if group.first:
        wait_for_all(group)
    return SoftLabels(logits)


class CachedTeacher:
    """A `Teacher` that looks its logits up: by which images the loader's `order` put in the batch.

    The order is this worker's own, so its batches are too. With `live`, the teacher itself, the
    first batch that is asked for is compared with what it says.

    Raises: ValueError for an order of another number of images; in training, where the first batch
        shows that the images are not those of the labels, or not shown as they were.
    """

    def __init__(self, labels: SoftLabels, order: Order, live: OuterTeacher | None = None) -> None:
        if len(labels.logits) != order.images:
            raise ValueError(
                f"soft labels must be those of the {order.images} images in training, but are of "
                f"{len(labels.logits)}"
            )
        self._labels, self._order, self._live = labels, order, live
        self._epoch = -1
        self._batches: list[Tensor] = []

    def __call__(self, images: Tensor, state: State) -> Tensor:
        """images (N, C, R, R) -> logits (N, classes), float32, the largest of an image 0."""
        if state.epoch != self._epoch:
            self._epoch, self._batches = state.epoch, self._order.indices(state.epoch)
        logits = self._labels.of(self._batches[state.batch]).to(images.device)
        assert len(logits) == len(images), "the order is not that of the loader"
        if self._live is not None:
            self._compare(logits, self._live.logits(images))
            self._live = None
        return logits

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
    }
    return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()


def _worked_out(teacher: OuterTeacher, data: Dataset, view: View, watch: Watch | None) -> Tensor:
    total, done = len(data.train), 0
    kept = torch.empty(total, len(data.classes), dtype=torch.float16)
    for images, _ in evaluation_batches(data, data.train, view):
        logits = teacher.logits(images)
        if not logits.isfinite().all():
            raise ValueError(
                f"the teacher's logits must be finite, but are not for the training images {done} "
                f"to {done + len(logits) - 1}: its weights are bad"
            )
        kept[done : done + len(logits)] = _rounded(logits)
        done += len(logits)
        if watch is not None:
            watch(done, total, {})
    assert done == total
    return kept


def _rounded(logits: Tensor) -> Tensor:
    """As they are kept; what float16 cannot hold is as unlikely as it can say."""
    moved = logits - logits.max(1, keepdim=True).values
    return moved.clamp(min=LOWEST).to(torch.float16).cpu()


def _kept(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
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


def _read(path: Path, key: str, shape: tuple[int, int]) -> Tensor:
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
