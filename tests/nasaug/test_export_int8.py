"""`nasaug export --int8`: judged on every test image, and refused where it loses too much."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.export import FORMATS, Folded, Model, Runner
from nasaug.pipelines import export as pipeline
from nasaug.pipelines import export_int8
from nasaug.pipelines.export_int8 import Quantisation, judged_on
from nasaug.pipelines.export_qat import FineTuning
from nasaug.pipelines.export_source import Source, Wanted
from nasaug.training import load_dataset, load_weights

Nasaug = Callable[..., Any]
Files = Callable[[], dict[str, bytes]]
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="NOT TESTED: ONNX; the extra [onnx] is not installed",
)


@needs_onnx
def test_int8_is_judged_on_all_test_images(nasaug: Nasaug, trained: Path, clothes: Path) -> None:
    """Against a count of its own: every test image through ONNX Runtime and the network."""
    import onnxruntime

    options = ("--format=onnx", "--int8", "--calibration=64", "--max-drop=50", "--images=20")
    card = nasaug("export", "trained", *options, "--json").json
    (found,) = card["int8"]
    test = load_dataset("fashion-mnist", clothes).test
    images = ((test.images.float() / 255 - 0.286) / 0.353).expand(-1, 3, -1, -1)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(trained / "export" / "micro_10k-int8.onnx")
    (logits,) = session.run(None, {"image": images.contiguous().numpy()})
    after = (torch.from_numpy(logits).argmax(1) == test.labels).double()
    with torch.inference_mode():
        net = load_weights(trained / "weights.safetensors")
        before = (net(images).argmax(1) == test.labels).double()
    assert found["images"] == 200 and found["calibration_images"] == 64
    assert found["top1_before"] == pytest.approx(float(before.mean()))
    assert found["top1_after"] == pytest.approx(float(after.mean()))
    change = after - before
    half = 1.9720 * float(change.std()) / 200**0.5  # Student's t, 199 degrees of freedom
    assert found["difference"] == pytest.approx(float(change.mean()))
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=1e-3)
    files = {one["file"]: one["bytes"] for one in card["files"]}
    assert found["bytes_before"] == files["micro_10k.onnx"]
    assert found["bytes_after"] == files["micro_10k-int8.onnx"]
    assert card["checks"]["micro_10k-int8.onnx"]["tolerance"] is None
    text = (trained / "export" / "card.md").read_text()
    assert "## int8" in text and "minmax, 64 images" in text


def _reversed(model: Model, path: Path, calibration: Any) -> None:
    """An int8 version that says the class that the network thinks least likely."""
    turned = {n: -t if ".linear." in n else t for n, t in model.folded.tensors.items()}
    folded = Folded(model.folded.arch, turned)
    FORMATS["onnx"].write(dataclasses.replace(model, folded=folded), path)


@pytest.fixture
def _always_right(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test images whose labels are what the network says of them."""
    result = json.loads((trained / "result.json").read_text())
    (trained / "result.json").write_text(json.dumps(result | {"top1": 1.0}))

    def judged(source: Source) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.inference_mode():
            return [(images, source.net(images).argmax(1)) for images, _ in judged_on(source)]

    for module in (pipeline, export_int8):
        monkeypatch.setattr(module, "judged_on", judged)


@needs_onnx
@pytest.mark.usefixtures("_always_right")
def test_int8_that_loses_too_much_is_refused(
    nasaug: Nasaug, trained: Path, monkeypatch: pytest.MonkeyPatch, files_below: Files
) -> None:
    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], quantise=_reversed))
    before = files_below()
    done = nasaug("export", "trained", "--format=onnx", "--int8", "--max-drop=0.5", "--json")
    assert (done.code, done.out) == (1, "")
    lost = "int8 has 0.00 % top-1 in place of 100.00 %, and --max-drop allows 0.5 points"
    assert lost in done.said
    assert "fine-tune with rounded numbers (--qat-epochs 3), or raise --max-drop" in done.said
    assert files_below() == before
    done = nasaug("export", "trained", "--format=onnx", "--int8", "--max-drop=100", "--json")
    assert done.code == 0


@needs_onnx
@pytest.mark.usefixtures("_always_right")
def test_other_weights_can_be_made_where_int8_loses_too_much(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The export is then of these weights as a whole, and is checked against them."""
    asked: list[Path] = []

    def quantise(model: Model, path: Path, calibration: Any) -> None:
        if asked:
            form.write(model, path)
        else:
            _reversed(model, path, calibration)

    form = dataclasses.replace(FORMATS["onnx"], quantise=quantise)
    monkeypatch.setitem(FORMATS, "onnx", form)
    classifier = load_weights(trained / "weights.safetensors")
    with torch.no_grad():
        classifier.blocks[-1].linear.bias.add_(1.0)  # type: ignore[union-attr]

    def fine_tuned(source: Source, wanted: Wanted, tuning: FineTuning) -> Source:
        asked.append(source.folder)
        assert tuning.epochs == 3
        return dataclasses.replace(source, net=classifier)

    monkeypatch.setattr(pipeline, "fine_tuned", fine_tuned)
    order = pipeline.Order(
        Wanted(str(trained)), ("onnx",), str(tmp_path / "out"), Quantisation(64, "minmax", 0.5), 20,
        tuning=FineTuning(3),
    )  # fmt: skip
    pipeline.run_export(order, as_json=True)
    card = json.loads(capsys.readouterr().out)
    assert asked == [trained]
    assert card["int8"][0]["passed"] and card["checks"]["micro_10k.onnx"]["passed"]
    onnx = pytest.importorskip("onnx")
    tensors = onnx.load(tmp_path / "out" / "micro_10k.onnx").graph.initializer
    (bias,) = [t for t in tensors if t.name == "blocks.8.linear.bias"]
    expected = classifier.blocks[-1].linear.bias.detach()  # type: ignore[union-attr]
    assert onnx.numpy_helper.to_array(bias).tolist() == expected.tolist()


@needs_onnx
def test_int8_without_numbers_is_refused(
    nasaug: Nasaug, trained: Path, monkeypatch: pytest.MonkeyPatch, files_below: Files
) -> None:
    """Though what is no number still has a likeliest class, and so a top-1."""
    form = FORMATS["onnx"]

    def opened(path: Path, threads: int) -> Runner:
        run = form.open(path, threads)
        return (lambda images: run(images) * float("nan")) if "int8" in path.name else run

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(form, open=opened))
    before = files_below()
    done = nasaug("export", "trained", "--format=onnx", "--int8", "--max-drop=100", "--images=20")
    assert done.code == 1 and "onnx int8" in done.err and "a finite number is allowed" in done.err
    assert files_below() == before
