"""Rows as ONNX graphs, built from their leaves, as torch's exporter writes the exported network:
batch norm folded into the convolution before it, means as ReduceMean.

Built with `onnx.helper`: milliseconds a row, where torch.onnx.export of one row took 0.2 s, and a
space has hundreds of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nasaug.supernet import Linear, Row
from nasaug.supernet.leaves import (
    ConvLeaf,
    GlobalAvgPoolLeaf,
    Leaf,
    LinearLeaf,
    MaxPoolLeaf,
    SqueezeLeaf,
)

# Not the newest that onnx can write: an ONNX Runtime refuses what is newer than itself.
OPSET, IR_VERSION = 17, 8
Array = NDArray[np.float32]
Shape = Sequence[int | str]
Weights = Callable[[str, tuple[int, ...]], Array]


def random_weights(name: str, shape: tuple[int, ...]) -> Array:
    """The same numbers at every call, of a size that keeps activations near 1."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
    return np.resize(_noise(), shape) / np.float32(max(1, fan_in) ** 0.5)


def chain_model(
    rows: Sequence[Row],
    in_channels: int,
    size: int,
    weights: Weights = random_weights,
    batch: int | str = 1,
    output: str = "result",
) -> bytes:
    """An ONNX model: image (batch, in_channels, size, size) -> result of `rows` one after the
    other, called `output`. A `batch` that is a word, such as "batch", may be any number.

    `weights(name, shape)` is asked for tensors by the names that they have in a Network of the same
    rows; convolutions have a bias, what is left of their batch norm.
    """
    graph = _Graph(weights)
    result, width, side = "image", in_channels, size
    for index, row in enumerate(rows):
        result = graph.add_row(row, width, result, f"blocks.{index}")
        for leaf in row.leaves(width):
            side = leaf.out_size(side)
        width = row.out_channels(width)
    is_flat = isinstance(rows[-1], Linear)
    shape = [batch, width] if is_flat else [batch, width, side, side]
    return graph.model(result, [batch, in_channels, size, size], shape, output)


def empty_model() -> bytes:
    """An ONNX model: one number in, the same one out."""
    return _Graph(random_weights).model("image", [1, 1, 1, 1], [1, 1, 1, 1], "result")


class _Graph:
    """The nodes and tensors of one model. The `add` functions return the name of the output."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}

    def model(self, result: str, shape_in: Shape, shape_out: Shape, output: str) -> bytes:
        self._node("Identity", [result], output)
        graph = helper.make_graph(
            self._nodes,
            "rows",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape_in)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape_out)],
            list(self._tensors.values()),
        )
        made: ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="nasaug",
        )
        return bytes(made.SerializeToString())

    def add_row(self, row: Row, in_channels: int, x: str, name: str) -> str:
        """The leaves in sequence, and the residual addition."""
        y = x
        for leaf in row.leaves(in_channels):
            y = self._add_leaf(leaf, y, f"{name}.{leaf.name}")
        if not row.residual:
            return y
        shortcut = row.shortcut(in_channels)
        if shortcut is not None:
            x = self._add_leaf(shortcut, x, f"{name}.{shortcut.name}")
        y = self._node("Add", [y, x], f"{name}.sum")
        return self._node("Relu", [y], f"{name}.act") if row.kind == "bottleneck" else y

    def _add_leaf(self, leaf: Leaf, x: str, name: str) -> str:
        if isinstance(leaf, ConvLeaf):
            return self._add_conv(leaf, x, name)
        if isinstance(leaf, SqueezeLeaf):
            return self._add_squeeze(leaf, x, name)
        if isinstance(leaf, LinearLeaf):
            flat = self._node("Flatten", [x], f"{name}.flat")
            weight = self._tensor(f"{name}.weight", (leaf.out_channels, leaf.in_channels))
            bias = self._tensor(f"{name}.bias", (leaf.out_channels,))
            return self._node("Gemm", [flat, weight, bias], f"{name}.out", transB=1)
        if isinstance(leaf, MaxPoolLeaf):
            return self._node("MaxPool", [x], f"{name}.out", **_window(leaf.kernel, leaf.stride))
        assert isinstance(leaf, GlobalAvgPoolLeaf)
        return self._node("ReduceMean", [x], f"{name}.out", axes=[2, 3], keepdims=1)

    def _add_conv(self, leaf: ConvLeaf, x: str, name: str) -> str:
        shape = (leaf.out_channels, leaf.in_channels // leaf.groups, leaf.kernel, leaf.kernel)
        weight = self._tensor(f"{name}.weight", shape)
        bias = self._tensor(f"{name}.bias", (leaf.out_channels,))
        window = _window(leaf.kernel, leaf.stride)
        y = self._node("Conv", [x, weight, bias], f"{name}.out", group=leaf.groups, **window)
        if leaf.act == "relu6":
            bounds = [self._constant("zero", 0.0), self._constant("six", 6.0)]
            return self._node("Clip", [y, *bounds], f"{name}.act")
        if leaf.act == "none":
            return y
        kind = {"relu": "Relu", "hardswish": "HardSwish"}[leaf.act]
        return self._node(kind, [y], f"{name}.act")

    def _add_squeeze(self, leaf: SqueezeLeaf, x: str, name: str) -> str:
        scale = self._node("ReduceMean", [x], f"{name}.mean", axes=[2, 3], keepdims=1)
        reduce = ConvLeaf("reduce", leaf.channels, leaf.squeeze, act="relu")
        scale = self._add_conv(reduce, scale, f"{name}.reduce")
        restore = ConvLeaf("restore", leaf.squeeze, leaf.channels)
        scale = self._add_conv(restore, scale, f"{name}.restore")
        scale = self._node("HardSigmoid", [scale], f"{name}.gate", alpha=1 / 6, beta=0.5)
        return self._node("Mul", [x, scale], f"{name}.out")

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _tensor(self, name: str, shape: tuple[int, ...]) -> str:
        values = np.ascontiguousarray(self._weights(name, shape), dtype=np.float32)
        self._tensors[name] = numpy_helper.from_array(values, name)
        return name

    def _constant(self, name: str, value: float) -> str:
        self._tensors[name] = numpy_helper.from_array(np.array(value, dtype=np.float32), name)
        return name


def _window(kernel: int, stride: int) -> dict[str, list[int]]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}


@cache
def _noise() -> Array:
    return np.random.default_rng(0).standard_normal(65_521, dtype=np.float32)
