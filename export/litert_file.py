"""LiteRT (TensorFlow Lite), by Google's own converter from PyTorch: one image at a time, channels
before pixels as in PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from nasaug.export.model import Model, Runner, hushed, one_by_one


def write_litert(model: Model, path: Path) -> None:
    """NAME.tflite: (1, channels, R, R) -> (1, classes)."""
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter's own internals
        import litert_torch

        litert_torch.convert(model.net, (model.example(1),)).export(path.with_suffix(".tflite"))


def open_litert(path: Path, threads: int) -> Runner:
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(model_path=str(path.with_suffix(".tflite")), num_threads=threads)
        made.allocate_tensors()
    (read,), (written,) = made.get_input_details(), made.get_output_details()

    def run(image: Tensor) -> Tensor:
        made.set_tensor(read["index"], image.numpy())
        made.invoke()
        return torch.from_numpy(made.get_tensor(written["index"]))  # a copy

    return one_by_one(run)
