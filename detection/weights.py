"""A trained detector as one safetensors file: weights, and what is needed to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from nasaug.detection.detector import Detector
from nasaug.detection.options import DetectorOptions
from nasaug.supernet import Architecture
from nasaug.training import read_described, write_atomically

# Another key than that of networks for classes, so that neither is taken for the other.
METADATA = "nasaug-detector"
COLOURS = {1: "grey", 3: "colour"}


def save_detector(path: Path, detector: Detector, facts: Mapping[str, Any] | None = None) -> None:
    """Write `detector`, with `facts` of one's own beside what it is. Raises: OSError."""
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    text = json.dumps(
        {
            "architecture": detector.arch.to_dict(),
            "classes": list(detector.classes),
            "options": detector.options.model_dump(mode="json"),
            "facts": dict(facts or {}),
        }
    )
    write_atomically(path, safetensors.torch.save(tensors, {METADATA: text}))


def load_detector(path: Path, target: Architecture | None = None) -> Detector:
    """The detector that `save_detector` wrote, in eval mode.

    `target` is what it must be on, whatever the resolution and the classes.

    Raises: ValueError for a file that is damaged, holds no detector, or one on another network;
        FileNotFoundError.
    """
    described, tensors = _read(path)
    try:
        options = DetectorOptions.model_validate(described["options"])
        arch = Architecture.from_dict(described["architecture"])
        detector = Detector(arch, described["classes"], options, init=None)
        detector.load_state_dict(tensors)
    except (ValidationError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {_in_a_line(error)}") from None
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own description ({error})") from None
    if target is not None and not _alike(detector.arch, target):
        same = detector.arch.in_channels == target.in_channels
        theirs, ours = (
            arch.name if same else f"{arch.name} for {COLOURS[arch.in_channels]} pictures"
            for arch in (detector.arch, target)
        )
        raise ValueError(
            f"{path} holds a detector on {theirs}, not on {ours}; name the target that it is on, "
            "or other weights"
        )
    return detector.eval()


def holds_detector(path: Path) -> bool:
    """Whether `path` is a file that `save_detector` wrote, as far as its beginning says."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return METADATA in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def read_detector_facts(path: Path) -> dict[str, Any]:
    """The facts that `save_detector` was given. Raises: as `load_detector`."""
    described, _ = _read(path)
    facts: dict[str, Any] = described["facts"]
    return facts


def _alike(one: Architecture, other: Architecture) -> bool:
    """The same rows for the same channels, but for the classifier."""
    rows = [arch.canonical().rows[:-1] for arch in (one, other)]
    return rows[0] == rows[1] and one.in_channels == other.in_channels


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_described(
        path,
        METADATA,
        {"architecture", "classes", "options"},
        "detector; nasaug detect train makes one, and starts from a network for classes with "
        "--init",
    )


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())
