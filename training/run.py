"""A run is a folder.

`config.yaml` (resolved), `metrics.jsonl` (a line a measurement), `checkpoint/`, and at the end
`weights.safetensors` (the exported target) and `result.json`.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from nasaug.supernet import Architecture, Network
from nasaug.training.files import (
    append_line,
    read_json_object,
    write_atomically,
    write_json,
)

METADATA = "nasaug"
FORMAT = 1
"""Of weights files. It grows when older releases could not read what is written; files of before it
was written are of format 1 too."""


class RunFolder:
    """Paths and records of one run. Only the first worker of a distributed run writes.

    `mirror(step, values)` is given all metrics too, where set.

    Raises: OSError if the folder cannot be made or written.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.mirror: Callable[[int, Mapping[str, Any]], object] | None = None
        if writes:
            path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoint"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def log_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        if self.writes:
            append_line(self.path / "metrics.jsonl", json.dumps({"step": step, **values}))
            if self.mirror is not None:
                self.mirror(step, values)

    def metrics(self) -> list[dict[str, Any]]:
        """The measurements so far, whole lines only."""
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget_metrics_after(self, step: int) -> None:
        """Drop what was measured after the checkpoint that a run resumes from."""
        if self.writes:
            kept = [json.dumps(row) for row in self.metrics() if row["step"] <= step]
            write_atomically(self.path / "metrics.jsonl", "".join(line + "\n" for line in kept))

    def write_result(self, result: Mapping[str, Any]) -> None:
        if self.writes:
            write_json(self.path / "result.json", result)

    def result(self) -> dict[str, Any]:
        return read_json_object(self.path / "result.json")


def save_weights(path: Path, net: Network, facts: Mapping[str, Any] | None = None) -> None:
    """A network as safetensors. The file's metadata hold its architecture, `facts`, the format and
    the release of nasaug that wrote it."""
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    # One key, since safetensors writes several in a random order: equal weights are equal files.
    text = json.dumps(
        {
            "format": FORMAT,
            "nasaug": importlib.metadata.version("nasaug"),
            "architecture": net.arch.to_dict(),
            "facts": dict(facts or {}),
        }
    )
    write_atomically(path, safetensors.torch.save(tensors, {METADATA: text}))


def load_weights(path: Path) -> Network:
    """The network that `save_weights` wrote, in eval mode.

    Raises: ValueError for a file that is damaged or was not written by it; FileNotFoundError.
    """
    metadata, tensors = _read(path)
    try:
        arch = Architecture.from_dict(metadata["architecture"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    net = Network(arch, init=None)
    if any(".transforms." in name for name in tensors):
        net.learn_kernel_transforms()
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own architecture ({error})") from None
    return net.eval()


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `save_weights` was given. Raises: as `load_weights`."""
    metadata, _ = _read(path)
    facts: dict[str, Any] = metadata["facts"]
    return facts


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    described, tensors = read_described(
        path, METADATA, {"architecture"}, "nasaug network: its metadata has no architecture"
    )
    written = described.get("format", 1)
    if type(written) is not int or written < 1:
        raise ValueError(f"{path} is damaged: its format is {written!r}")
    if written > FORMAT:
        raise ValueError(
            f"{path} is of format {written}, written by nasaug {described.get('nasaug')}, but this "
            f"nasaug reads up to format {FORMAT}; install that release or a newer one"
        )
    return described, tensors


def read_described(
    path: Path, key: str, needed: set[str], what: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a safetensors file says of itself under `key`, JSON with `needed` and facts, and its
    tensors. Raises: ValueError for another kind of file (`what` it should be) or a damaged one.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from None
    if key not in metadata:
        ours = [other for other in metadata if other.startswith(METADATA)]
        raise ValueError(f"{path} holds no {what}{''.join(f'; it is a {one}' for one in ours)}")
    try:
        described = json.loads(metadata[key])
        lacking = (needed | {"facts"}) - set(described)
        if lacking or not isinstance(described["facts"], dict):
            raise ValueError(f"{min(lacking, default='facts')} is missing")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its metadata is unreadable ({error})") from None
    return described, tensors
