"""ONNX: the graph of `nasaug.devices.onnx_graph` with the network's weights, and its int8 version.

int8 is ONNX Runtime's static quantisation, QDQ: weights symmetric with a scale a channel,
activations affine with one scale a tensor, from the ranges on real images (Jacob et al., CVPR 2018,
Section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasaug.export.model import Calibration, Model, Runner, hushed

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[np.float32]


def write_onnx(model: Model, path: Path) -> None:
    """NAME.onnx: image (batch, channels, R, R) -> logits (batch, classes), for any batch."""
    path.with_suffix(".onnx").write_bytes(_checked(_graph(model)))


def open_onnx(path: Path, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path.with_suffix(".onnx"), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"image": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


def quantise_onnx(model: Model, path: Path, calibration: Calibration) -> None:
    """NAME.onnx in int8; `path` is that of the int8 version, without an ending."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    graph = _graph(model)
    add_pre_process_metadata(graph)  # the shapes are inferred, the norms folded
    goal = path.with_suffix(".onnx")
    with hushed():
        quantize_static(
            graph,
            goal,
            _Reader(calibration.batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[calibration.method],
            # Otherwise the histograms' methods keep all activations of all images in memory.
            extra_options={"CalibStridedMinMax": 1},
        )
    made = onnx.load(goal)
    del made.graph.value_info[:]  # shapes that any reader infers, as large as a tiny network
    goal.write_bytes(_checked(made))


def _graph(model: Model) -> ModelProto:
    import onnx

    from nasaug.devices.onnx_graph import chain_model

    arch, tensors = model.folded.arch, model.folded.tensors

    def weights(name: str, shape: tuple[int, ...]) -> Array:
        values: Array = tensors[name].numpy()
        assert values.shape == shape, name
        return values

    data = chain_model(
        arch.rows, arch.in_channels, arch.resolution, weights, batch="batch", output="logits"
    )
    return onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)


def _checked(made: ModelProto) -> bytes:
    """What onnx.checker accepts, as a file's content."""
    import onnx

    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


class _Reader:
    """A CalibrationDataReader: batches one by one, or a range of them."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches
        self._at, self._stop = 0, len(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._at, self._stop = start_index, end_index

    def get_next(self) -> Mapping[str, Any] | None:
        if self._at >= self._stop:
            return None
        self._at += 1
        return {"image": self._batches[self._at - 1].contiguous().numpy()}
