"""The formats by name: what each writes, how it is run again, and how far it may be from the
network that was evaluated.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from nasaug.export.executorch_file import open_executorch, quantise_executorch, write_executorch
from nasaug.export.litert_file import open_litert, write_litert
from nasaug.export.model import Calibration, Method, Model, Runner
from nasaug.export.onnx_file import open_onnx, quantise_onnx, write_onnx
from nasaug.export.torch_files import open_pt2, open_torch_module, write_pt2, write_torch
from nasaug.supernet import did_you_mean

INT8 = "-int8"  # what the name of an int8 version ends with


@dataclass(frozen=True)
class Format:
    """`write(model, path)` and `quantise(model, path, calibration)` write `path` with each of
    `endings`, `open(path, threads)` is what runs it.

    `tolerance`: the largest difference of a logit from the evaluated network's, in standard
    deviations of these logits from image to image; sums in another order come to some 1e-6.
    `ranges`: how `quantise` takes them from images, the ways that can be chosen or its own one.
    `extra`: which optional dependencies it needs; `modules` are theirs, `versions` what a card
    tells the release of. `batch`: whether it takes several images at once.
    """

    write: Callable[[Model, Path], None]
    open: Callable[[Path, int], Runner]
    endings: tuple[str, ...]
    tolerance: float = 1e-4
    quantise: Callable[[Model, Path, Calibration], None] | None = None
    ranges: tuple[str, ...] = ()
    extra: str | None = None
    modules: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    batch: bool = True

    def files(self, path: Path) -> list[Path]:
        """What is written at `path`."""
        return [path.with_name(path.name + ending) for ending in self.endings]


FORMATS: dict[str, Format] = {
    "torch": Format(write_torch, open_torch_module, (".py", ".safetensors")),
    "onnx": Format(
        write_onnx,
        open_onnx,
        (".onnx",),
        quantise=quantise_onnx,
        ranges=get_args(Method),
        extra="onnx",
        modules=("onnx", "onnxruntime"),
        versions=("onnx", "onnxruntime"),
    ),
    "pt2": Format(write_pt2, open_pt2, (".pt2",)),
    "executorch": Format(
        write_executorch,
        open_executorch,
        (".pte",),
        quantise=quantise_executorch,
        ranges=("histogram",),
        extra="executorch",
        modules=("executorch", "torchao"),
        versions=("executorch", "torchao"),
        batch=False,
    ),
    "litert": Format(
        write_litert,
        open_litert,
        (".tflite",),
        extra="litert",
        modules=("litert_torch", "ai_edge_litert"),
        versions=("litert-torch", "ai-edge-litert"),
        batch=False,
    ),
}


def open_format(name: str) -> Format:
    """Raises: ValueError for an unknown format, and one whose packages are not installed."""
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}: {did_you_mean(name, FORMATS)}")
    found = FORMATS[name]
    missing = [module for module in found.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"format {name} needs more packages: pip install 'nasaug[{found.extra}]' "
            f"({missing[0]} is not installed)"
        )
    return found
