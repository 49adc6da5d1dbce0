"""Outer teachers: networks trained before, whose predictions a student learns (Hinton et al.).

A teacher is one of our own runs, or a classifier of torchvision or timm with weights that the user
names. Nothing is downloaded unless the name of published weights asks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasaug.training.libraries import LIBRARIES
from nasaug.training.run import RunFolder, load_weights
from nasaug.training.state import State

# (images (N, C, R, R), state) -> logits (N, classes), float32, without a gradient.
Teacher = Callable[[Tensor, State], Tensor]
CPU = torch.device("cpu")
KINDS = "a run's folder, a weights file of nasaug, torchvision:NAME@WEIGHTS or timm:NAME@WEIGHTS"


class OuterTeacher:
    """A fixed network that is shown the student's images as they are, in eval mode.

    `identity` tells networks apart that have equal weights. A network that reads 3 channels is
    given images of 1 channel three times over. `macs` are those of one image, once it was tried.
    """

    def __init__(self, net: nn.Module, identity: str, in_channels: int) -> None:
        self.identity = identity
        self.in_channels = in_channels
        self.macs = 0
        net.to(memory_format=torch.channels_last)
        self._net = net.eval().requires_grad_(False)

    def __call__(self, images: Tensor, state: State) -> Tensor:
        """As `logits`, in the run's precision."""
        state.macs += self.macs * len(images)
        with state.autocast():
            return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """images (N, 1 or in_channels, R, R) -> logits (N, classes), float32, no gradient."""
        if images.shape[1] < self.in_channels:
            images = images.expand(-1, self.in_channels, -1, -1)
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            logits: Tensor = self._net(images)
        return logits.float()

    def digest(self) -> str:
        """Tells teachers apart: by identity, and by every tensor's name, type, shape and bytes."""
        digest = hashlib.blake2b(self.identity.encode(), digest_size=16)
        for name, tensor in self._net.state_dict().items():
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def load_teacher(
    spec: str,
    classes: int,
    in_channels: int,
    resolution: int,
    device: torch.device = CPU,
) -> OuterTeacher:
    """The teacher that `spec` names, for images of `in_channels` at `resolution` (pixels).

    spec: the folder of a run of ours, its `weights.safetensors`, or `LIBRARY:NAME@WEIGHTS` with a
    classifier of torchvision or timm. WEIGHTS is a file of a state dict (safetensors, or torch's,
    read without running code in it), or the name of published weights, which are then downloaded
    unless the library has them: for torchvision such as IMAGENET1K_V2 or DEFAULT, for timm
    `pretrained`.

    Raises: ValueError saying what does not fit: an unknown name, weights that are missing, damaged
        or of another network, another number of classes, images that it cannot read.
    """
    library, colon, rest = spec.partition(":")
    if colon and library in LIBRARIES:
        name, _, weights = rest.partition("@")
        if not weights:
            raise ValueError(
                f"a teacher needs weights, but {spec!r} names none; add @ and a file, or "
                f"@{LIBRARIES[library].published} to download published ones"
            )
        net = LIBRARIES[library].load(name, weights, classes)
        teacher = OuterTeacher(net.to(device), f"{library}:{name}", in_channels=3)
    else:
        teacher = _own(spec, classes, in_channels, device)
    _try(teacher, spec, classes, in_channels, resolution, device)
    return teacher


def _own(spec: str, classes: int, in_channels: int, device: torch.device) -> OuterTeacher:
    """A network of ours."""
    path = Path(spec)
    if path.is_dir():
        path = RunFolder(path, writes=False).weights
        if not path.is_file():
            raise ValueError(
                f"{spec!r} has no {path.name}, so it cannot teach; name a run that has finished"
            )
    if not path.is_file():
        raise ValueError(f"{spec!r} is no teacher: neither a folder nor a file; name {KINDS}")
    net = load_weights(path)
    arch = net.arch
    if arch.num_classes != classes:
        raise ValueError(
            f"a teacher must have the data's {classes} classes, but {spec} has {arch.num_classes}; "
            "train one on this data"
        )
    if arch.in_channels == 1 and in_channels != 1:
        raise ValueError(
            f"a teacher must read the images as they are, {in_channels} channels, but {spec} "
            "reads 1; train one on 3 channels"
        )
    return OuterTeacher(
        net.to(device), json.dumps(arch.to_dict(), sort_keys=True), arch.in_channels
    )


def _try(
    teacher: OuterTeacher,
    spec: str,
    classes: int,
    in_channels: int,
    resolution: int,
    device: torch.device,
) -> None:
    """Show it one image. Raises: ValueError."""
    image = torch.zeros(1, in_channels, resolution, resolution, device=device)
    try:
        with FlopCounterMode(display=False) as counter:
            logits = teacher.logits(image)
    except Exception as error:  # a foreign network may raise anything, often an AssertionError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"teacher {spec} cannot read images of {resolution} x {resolution} pixels "
            f"({reason}); train at a resolution that it can read, or choose another teacher"
        ) from error
    teacher.macs = counter.get_total_flops() // 2
    if tuple(logits.shape) != (1, classes):
        raise ValueError(
            f"a teacher must give (1, {classes}) logits for one image, but {spec} gave "
            f"{tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        raise ValueError(f"teacher {spec} gives {logits.max():.0f} for logits: its weights are bad")
