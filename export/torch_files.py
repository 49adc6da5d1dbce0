"""PyTorch without nasaug: a readable module with its weights, and torch.export's program."""

from __future__ import annotations

import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from nasaug.export.model import Model, Runner
from nasaug.export.source import module_of


def write_torch(model: Model, path: Path) -> None:
    """NAME.py and NAME.safetensors; `path` is without an ending."""
    path.with_suffix(".py").write_text(model.text, encoding="utf-8")
    # Not save_file: what that writes nobody else may read.
    path.with_suffix(".safetensors").write_bytes(safetensors.torch.save(dict(model.tensors)))


def open_torch_module(path: Path, threads: int) -> Runner:
    """The module as it was written, with the weights that it loads by itself.

    `threads` are torch's own, set for the whole process by whoever measures.
    """
    place = path.with_suffix(".py")
    module = module_of(place.read_text(encoding="utf-8"), place)
    net: nn.Module = module.load()
    return net


def write_pt2(model: Model, path: Path) -> None:
    """NAME.pt2, for batches of any size."""
    batch = torch.export.Dim("batch", min=1)
    # An example of one image would be taken for a constant.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own internals while it traces
        program = torch.export.export(model.net, (model.example(2),), dynamic_shapes=({0: batch},))
        torch.export.save(program, path.with_suffix(".pt2"))


def open_pt2(path: Path, threads: int) -> Runner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(path.with_suffix(".pt2")).module()
