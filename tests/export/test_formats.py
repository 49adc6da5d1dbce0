"""Every format: written, run again by its own runtime, and compared with float64 by hand."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasaug.export import (
    FORMATS,
    INT8,
    Calibration,
    Model,
    compare,
    fold,
    logits_of,
    open_format,
)
from nasaug.export.model import hushed
from nasaug.supernet import Architecture, flash_size, load_target

Own = Any


def _installed(name: str) -> Any:
    """The format; the test is skipped, loudly, where its extra is not installed."""
    form = FORMATS[name]
    for module in form.modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"NOT TESTED: {name}; the extra [{form.extra}] is not installed")
    return form


def _written(own: Own, name: str, arch: Architecture, tmp_path: Path) -> tuple[Any, Model, Any]:
    form = _installed(name)
    net = own.random_network(arch)
    described = own.DESCRIBED if arch is own.MIXED else own.describe(arch)
    model = Model.of(fold(net), described)
    path = tmp_path / described.name
    form.write(model, path)
    assert {file.name for file in tmp_path.iterdir()} == {f.name for f in form.files(path)}
    return form, model, net


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_computes_what_the_network_does(
    own: Own, name: str, tmp_path: Path
) -> None:
    """Batches of two sizes: none is baked in."""
    form, model, net = _written(own, name, own.MIXED, tmp_path)
    images = own.images_for(own.MIXED, 6)
    run = form.open(tmp_path / model.described.name, 1)
    logits = logits_of(run, [images[:1], images[1:]])
    reference = own.by_hand(own.MIXED, net.state_dict(), images)
    check = compare(logits, reference, form.tolerance)
    assert check.passed and check.difference < 1e-5
    assert (check.images, check.agreement) == (6, 1.0)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.quantise])
def test_int8_is_coarser_but_alike(own: Own, name: str, tmp_path: Path) -> None:
    form, model, net = _written(own, name, own.MIXED, tmp_path)
    assert form.quantise is not None
    images = own.images_for(own.MIXED, 24)
    path = tmp_path / f"mixed{INT8}"
    form.quantise(model, path, Calibration([images[:12], images[12:]]))
    found = compare(logits_of(form.open(path, 1), [images]), net(images), None)
    assert 1e-4 < found.difference < 0.5
    assert found.agreement > 0.7


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_the_ranges_of_int8_come_from_the_images(own: Own, method: Any, tmp_path: Path) -> None:
    """From images ten times as dark the ranges are too narrow for the real ones."""
    form, model, net = _written(own, "onnx", load_target("micro_3k", 10), tmp_path)
    assert form.quantise is not None
    images = own.images_for(model.folded.arch, 32)
    found = []
    for scale in (1.0, 0.1):
        path = tmp_path / f"scaled{INT8}"
        form.quantise(model, path, Calibration([scale * images[:16], scale * images[16:]], method))
        found.append(compare(logits_of(form.open(path, 1), [images]), net(images), None))
    assert found[0].agreement > 0.85
    assert found[1].difference > 1.5 * found[0].difference


def test_weights_in_int8_have_a_scale_for_every_channel(own: Own, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="NOT TESTED: the extra [onnx] is not installed")
    form, model, _ = _written(own, "onnx", load_target("micro_3k", 10), tmp_path)
    assert form.quantise is not None
    images = own.images_for(model.folded.arch, 8)
    form.quantise(model, tmp_path / "q", Calibration([images]))
    graph = onnx.load(tmp_path / "q.onnx").graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for name, weight in model.folded.tensors.items():
        if name.endswith(".weight") and weight.ndim == 4:
            stored = tensors[f"{name}_quantized"]
            scale = tensors[f"{name}_scale"]
            assert stored.dtype == np.int8 and scale.shape == (len(weight),)
            largest = weight.abs().amax((1, 2, 3)).numpy()
            np.testing.assert_allclose(scale, largest / 127, rtol=0.02)
            restored = stored * scale[:, None, None, None]
            assert np.abs(restored - weight.numpy()).max() <= scale.max() * 0.51
    counted = 0
    for name, tensor in model.folded.tensors.items():
        counted += tensors[f"{name}_quantized"].nbytes
        counted += 4 * len(tensor) * name.endswith(".weight")  # a float32 scale a channel
    assert counted == flash_size(model.folded.arch, 8)
    for node in graph.node:  # activations: int8, one scale a tensor
        if node.op_type == "QuantizeLinear":
            assert tensors[node.input[1]].shape == () and tensors[node.input[2]].dtype == np.int8


def test_the_onnx_file_says_what_it_is(own: Own, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="NOT TESTED: the extra [onnx] is not installed")
    _written(own, "onnx", own.MIXED, tmp_path)
    made = onnx.load(tmp_path / "mixed.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert [entry.version for entry in made.opset_import] == [17]
    assert made.producer_name == "nasaug"
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*made.graph.input, *made.graph.output)
    }
    assert shapes == {"image": ["batch", 1, 37, 37], "logits": ["batch", 7]}
    assert {node.op_type for node in made.graph.node}.isdisjoint({"BatchNormalization"})
    assert made.graph.value_info  # shapes inside are inferred


def test_what_converters_print_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    """stdout is for results; from Python and from C++, and only for so long."""
    with hushed():
        print("chatter", flush=True)
        print("chatter", file=sys.stderr, flush=True)
        os.write(1, b"chatter")
        os.write(2, b"chatter")
    os.write(1, b"result")
    with pytest.raises(KeyError), hushed():
        raise KeyError
    print("more", flush=True)
    assert capfd.readouterr() == ("resultmore\n", "")


def test_an_unknown_format_and_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown format 'onx': did you mean 'onnx'"):
        open_format("onx")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "executorch" else find(name)
    )
    with pytest.raises(
        ValueError,
        match=r"executorch needs more packages: pip install 'nasaug\[executorch\]' \(executorch is",
    ):
        open_format("executorch")


def test_compare_by_hand() -> None:
    reference = torch.tensor([[0.0, 12.0], [4.0, 12.0]])  # variances over images: 4 and 0
    logits = torch.tensor([[0.0, 12.0], [4.0, 3.0]])
    check = compare(logits, reference, 1.0)
    assert check.difference == pytest.approx(9 / 2**0.5)
    assert (check.images, check.agreement, check.passed) == (2, 0.5, False)
    assert compare(logits, reference, None).passed
    assert compare(reference, reference, 0.0).passed


def test_what_is_no_number_never_passes() -> None:
    reference = torch.tensor([[0.0, 2.0], [4.0, 2.0]])
    for bad in (float("nan"), float("inf")):
        logits = reference.clone()
        logits[0, 0] = bad
        assert not compare(logits, reference, 1e9).passed
        assert not compare(logits, reference, None).passed
        assert not compare(logits, logits, 1e9).passed
    flat = torch.ones(2, 2)
    assert compare(flat, flat, 0.0).passed
    assert not compare(flat + 1e-6, flat, 1e9).passed


def test_shapes_that_do_not_match_are_refused() -> None:
    one, other = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"they are \(2, 3\) and \(2, 4\)"):
        compare(one, other, 1.0)
    with pytest.raises(ValueError, match=r"they are \(1, 3\) and \(1, 3\)"):
        compare(one[:1], one[:1], 1.0)
