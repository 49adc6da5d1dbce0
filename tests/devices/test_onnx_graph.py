"""The ONNX graphs compute what the networks compute: same weights, same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nasaug.supernet import (
    Architecture,
    Conv,
    DepthwiseSeparable,
    ElasticNorm,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Network,
    load_target,
)
from nasaug.training import reestimate_batch_norm

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

MIXED = Architecture(
    rows=(
        Conv(3, 2, 8, "relu"),
        MaxPool(3, 2),
        DepthwiseSeparable(5, 1, 8, "relu6", skip=True),
        DepthwiseSeparable(3, 1, 8, "hardswish", squeeze=6),
        InvertedResidual(3, 1, 24, 8, "hardswish", skip=True, squeeze=16),
        InvertedResidual(5, 2, 24, 13, "none", skip=False),
        GlobalAvgPool(),
        Conv(1, 1, 20, "hardswish", norm=False, bias=True),
        Linear(7),
    ),
    resolution=37,
    in_channels=1,
)


def random_network(arch: Architecture) -> Network:
    """Random weights and norms; running statistics of random images, since with made-up ones the
    logits of a deep network hardly depend on what it is shown."""
    generator = torch.Generator().manual_seed(0)
    net = Network(arch, generator=generator).eval()
    for module in net.modules():
        if isinstance(module, ElasticNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    size = (8, arch.in_channels, arch.resolution, arch.resolution)
    reestimate_batch_norm(net, [(torch.randn(size, generator=generator), None)])
    classifier = net.blocks[-1].get_submodule("linear").get_parameter("weight")
    torch.nn.init.normal_(classifier, 0, 0.5, generator=generator)
    return net


def folded(net: Network, name: str) -> NDArray[np.float32]:
    """The tensor `name` with the batch norm that follows it folded in."""
    tensors = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    leaf, _, kind = name.rpartition(".")
    if f"{leaf}.norm.weight" not in tensors:
        return tensors[name]
    gain, bias, mean, var = (
        tensors[f"{leaf}.norm.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(var + ElasticNorm.EPS)
    if kind == "weight":
        return np.asarray(tensors[name] * factor[:, None, None, None], dtype=np.float32)
    return np.asarray(bias + (tensors.get(name, 0) - mean) * factor, dtype=np.float32)


@pytest.mark.parametrize(
    "arch",
    [
        MIXED,
        load_target("micro_10k", 10),
        load_target("mbv3_w035", 10, resolution=48),
        load_target("resnet50", 10, resolution=33),
    ],
    ids=lambda arch: arch.name,
)
def test_a_graph_computes_the_networks_logits(arch: Architecture) -> None:
    from nasaug.devices.onnx_graph import chain_model

    net = random_network(arch)
    asked: dict[str, tuple[int, ...]] = {}

    def weights(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        asked[name] = shape
        return folded(net, name)

    model = chain_model(arch.rows, arch.in_channels, arch.resolution, weights)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    size = (2, arch.in_channels, arch.resolution, arch.resolution)
    image = torch.randn(size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = net(image).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    for index in range(2):
        (logits,) = session.run(None, {"image": image[index : index + 1].numpy()})
        assert np.abs(logits[0] - expected[index]).max() < 1e-4 * np.abs(expected).max()
    for name, shape in asked.items():
        assert folded(net, name).shape == shape


def test_the_empty_model_hands_its_input_through() -> None:
    from nasaug.devices.onnx_graph import empty_model

    session = onnxruntime.InferenceSession(empty_model(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": np.full((1, 1, 1, 1), 5, dtype=np.float32)})
    assert result.tolist() == [[[[5.0]]]]


def test_random_weights_are_finite_and_keep_activations_near_one() -> None:
    from nasaug.devices.onnx_graph import chain_model

    arch = load_target("mbv2_tiny", 10, resolution=64)
    model = chain_model(arch.rows, 3, 64)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    (logits,) = session.run(None, {"image": image})
    assert np.isfinite(logits).all()
    assert 1e-4 < np.abs(logits).max() < 1e4
