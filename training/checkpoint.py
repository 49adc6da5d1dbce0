"""Checkpoints: tensors in safetensors, facts in JSON, no pickle.

A checkpoint is `step-N.safetensors` and then `step-N.json`, which holds the digest of both; one
without its JSON does not exist. The two newest are kept, so that a damaged one costs the time
back to the one before it and no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from nasaug.training.files import read_json_object, write_atomically, write_json

log = logging.getLogger(__name__)
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write checkpoint `step` and drop all but the newest two. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    # Channels-last weights are written in their logical order; the reader restores the layout.
    data = safetensors.torch.save({name: t.detach().contiguous() for name, t in tensors.items()})
    write_atomically(folder / f"step-{step:09}.safetensors", data)
    description = {"step": step, "facts": dict(facts)}
    digest = _digest(data, description)
    write_json(folder / f"step-{step:09}.json", {**description, "blake2b": digest})
    for old in _names(folder)[:-KEPT]:
        (folder / f"{old}.json").unlink(missing_ok=True)
        (folder / f"{old}.safetensors").unlink(missing_ok=True)


def load_newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; a damaged one is named in a warning. None if there is none.

    Raises: ValueError if there are checkpoints, but all are damaged.
    """
    names = _names(folder)
    for name in reversed(names):
        try:
            return _read(folder, name)
        except (OSError, ValueError, KeyError) as error:
            log.warning("checkpoint %s is damaged (%s)", folder / name, error)
    if names:
        raise ValueError(
            f"all checkpoints in {folder} are damaged; remove the folder to start again"
        )
    return None


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("step-*.json"))


def _read(folder: Path, name: str) -> Checkpoint:
    description = read_json_object(folder / f"{name}.json")
    data = (folder / f"{name}.safetensors").read_bytes()
    if description.pop("blake2b") != _digest(data, description):
        raise ValueError("its digest does not match")
    return Checkpoint(description["step"], safetensors.torch.load(data), description["facts"])


def _digest(data: bytes, description: Mapping[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True)
    return hashlib.blake2b(data + text.encode()).hexdigest()
