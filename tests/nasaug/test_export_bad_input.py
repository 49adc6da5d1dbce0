"""`nasaug export` of what it must refuse: named, with a remedy, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasaug.export import Folded
from nasaug.pipelines import export as pipeline
from nasaug.supernet import Network
from nasaug.training import load_weights, read_facts, save_weights

Nasaug = Callable[..., Any]
Files = Callable[[], dict[str, bytes]]
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="NOT TESTED: ONNX; the extra [onnx] is not installed",
)


def test_an_export_is_replaced_by_force_and_nothing_else(
    nasaug: Nasaug, trained: Path, files_below: Files
) -> None:
    assert nasaug("export", "trained", "--out=mine", "--images=20").code == 0
    done = nasaug("export", "trained", "--out=mine")
    assert done.code == 2
    assert "mine exists; add --force to replace it, or choose another --out" in done.said
    assert nasaug("export", "trained", "--out=mine", "--force", "--images=30").code == 0
    card = json.loads(Path("mine/card.json").read_text())
    assert card["checks"]["micro_10k.py"]["images"] == 30
    Path("mine/thesis.txt").write_text("irreplaceable")
    for place in ("mine", "trained", "."):
        before = files_below()
        done = nasaug("export", "trained", f"--out={place}", "--force")
        assert done.code == 2
        assert "--force replaces an export and nothing else, but" in done.said
        assert files_below() == before
    Path("empty").mkdir()
    assert nasaug("export", "trained", "--out=empty").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing does not exist; name a finished run's folder or a weights file"),
        (["."], ". is no run: it has no config.yaml"),
        (["notes.txt"], "notes.txt is no run's folder and no .safetensors file"),
        (["bad.safetensors"], "bad.safetensors is damaged or no safetensors file"),
        (["trained", "--format=onxx"], "unknown format 'onxx': did you mean 'onnx'?"),
        (["trained", "--out=no/where"], "there is no folder"),
        (["trained", "--out=notes.txt"], "--out must be a folder, but"),
        (["trained", "--int8"], "--int8 has no meaning for the format torch; add --format onnx"),
        (["trained", "--data=fashion-mnist-mini-first"], "has 5; give the --data that it was"),
        (["trained", "--data=imagefolder:photos"], "but those of imagefolder:photos are coloured"),
        (["trained", "--data=mnist"], "unknown data set 'mnist'"),
        (["trained", "--images=0"], "Invalid value for '--images'"),
        (["trained", "--max-drop=101", "--int8"], "Invalid value for '--max-drop'"),
        (["searched"], "is a search for a network to train in, not one to ship"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    arguments: list[str],
    said: str,
    nasaug: Nasaug,
    trained: Path,
    searched: Path,
    image_folder: Callable[..., Path],
    files_below: Files,
) -> None:
    Path("notes.txt").write_text("hello")
    Path("bad.safetensors").write_bytes((trained / "weights.safetensors").read_bytes()[:-9])
    image_folder("photos", tuple(f"class{index}" for index in range(10)), 2)
    before = files_below()
    done = nasaug("export", *arguments)
    assert done.code == 2
    assert said in done.said
    assert done.out == ""
    assert files_below() == before


@pytest.mark.parametrize("place", ["weights", "metrics"])
def test_images_of_other_classes_by_name_are_refused(
    nasaug: Nasaug, trained: Path, place: str
) -> None:
    """Weights of older releases do not say the names; the run's metrics do."""
    path = trained / "weights.safetensors"
    facts, metrics = read_facts(path), json.loads((trained / "metrics.json").read_text())
    names = ["Hat", *facts.pop("classes")[1:]]
    if place == "weights":
        facts["classes"] = names
    else:
        metrics["classes"] = names
    save_weights(path, load_weights(path), facts)
    (trained / "metrics.json").write_text(json.dumps(metrics))
    done = nasaug("export", "trained")
    assert done.code == 2
    assert (
        "was trained on other classes (Hat, Trouser, Pullover, ...) than fashion-mnist" in done.said
    )


def test_a_missing_extra_is_named_with_its_command(
    nasaug: Nasaug, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    hidden = "litert_torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == hidden else find(n))
    done = nasaug("export", "trained", "--format=litert")
    assert done.code == 2
    assert "format litert needs more packages: pip install 'nasaug[litert]'" in done.said


def test_a_network_that_diverged_is_refused(nasaug: Nasaug, trained: Path, clothes: Path) -> None:
    net = load_weights(trained / "weights.safetensors")
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    save_weights(Path("nan.safetensors"), net, {"data": "fashion-mnist"})
    done = nasaug("export", "nan.safetensors", f"--data-dir={clothes}")
    assert done.code == 2
    assert "the network's own logits are no finite numbers; its training diverged" in done.said


def test_a_detector_is_refused(nasaug: Nasaug, tmp_path: Path) -> None:
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, tmp_path / "found.safetensors", {"nasaug-detector": "{}"}
    )
    done = nasaug("export", "found.safetensors")
    assert done.code == 2
    assert (
        "found.safetensors holds no nasaug network: its metadata has no architecture; it is a"
        in done.said
    )


def test_a_damaged_configuration_is_named(nasaug: Nasaug, trained: Path) -> None:
    (trained / "config.yaml").write_text("data: {validation: 7}")
    done = nasaug("export", "trained")
    assert done.code == 2
    assert "config.yaml is damaged: data.validation cannot be 7" in done.said


def test_what_a_file_says_of_itself_names_no_files(
    nasaug: Nasaug, trained: Path, clothes: Path, files_below: Files
) -> None:
    net = load_weights(trained / "weights.safetensors")
    evil = '../../escaped\n"""\nraise SystemExit(\'run\')\n'
    net.arch = dataclasses.replace(net.arch, name=evil)
    facts = {"target": evil, "data": "fashion-mnist", "resolution": 28}
    save_weights(Path("evil.safetensors"), net, facts)
    before = set(files_below())
    done = nasaug("export", "evil.safetensors", f"--data-dir={clothes}", "--out=out", "--json")
    assert done.code == 0
    names = ("card.json", "card.md", "network.py", "network.safetensors")
    assert set(files_below()) - before == {f"out/{name}" for name in names}
    compile(Path("out/network.py").read_text(), "network.py", "exec")
    assert "escaped" not in Path("out/network.py").read_text()


@pytest.mark.parametrize("bad", ["huge", 0.5, -3, [28]])
def test_a_resolution_that_is_none_is_refused(
    bad: Any, nasaug: Nasaug, trained: Path, clothes: Path
) -> None:
    net = load_weights(trained / "weights.safetensors")
    save_weights(Path("w.safetensors"), net, {"data": "fashion-mnist", "resolution": bad})
    done = nasaug("export", "w.safetensors", f"--data-dir={clothes}")
    assert done.code == 2
    assert "resolution must be an integer from 1 to 8192" in done.said


def test_an_export_that_computes_something_else_is_refused(
    nasaug: Nasaug, trained: Path, monkeypatch: pytest.MonkeyPatch, files_below: Files
) -> None:
    honest = pipeline.fold

    def careless(net: Network, resolution: int | None = None) -> Folded:
        folded = honest(net, resolution)
        bias = folded.tensors["blocks.2.expand.bias"]
        bias[0] += 0.01
        return folded

    monkeypatch.setattr(pipeline, "fold", careless)
    before = files_below()
    done = nasaug("export", "trained", "--json")
    assert (done.code, done.out) == (1, "")
    assert "torch: logits differ from the evaluated network's by" in done.said
    assert "at most 1e-04 is allowed; nothing was written" in done.said
    assert files_below() == before


@needs_onnx
def test_weights_that_are_not_those_that_were_judged(
    nasaug: Nasaug, trained: Path, files_below: Files
) -> None:
    path = trained / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"top1": result["top1"] + 0.01}))
    before = files_below()
    done = nasaug("export", "trained", "--format=onnx", "--int8", "--calibration=32")
    assert done.code == 2
    assert f"has weights of {100 * result['top1']:.2f} % top-1, but its result.json" in done.said
    assert "they are not those that were judged" in done.said
    assert files_below() == before


def test_images_that_are_normalised_otherwise(nasaug: Nasaug, trained: Path) -> None:
    """What ships is the normalisation that the network was trained with."""
    path = trained / "weights.safetensors"
    save_weights(path, load_weights(path), read_facts(path) | {"mean": [0.4], "std": [0.2]})
    done = nasaug("export", "trained")
    assert done.code == 2 and "normalised by mean and deviation ((0.4,), (0.2,))" in done.said


def test_weights_that_do_not_say_their_images(nasaug: Nasaug, trained: Path) -> None:
    path = trained.parent / "alone.safetensors"
    facts = read_facts(trained / "weights.safetensors")
    for key in ("data", "mean", "std", "classes"):
        del facts[key]
    save_weights(path, load_weights(trained / "weights.safetensors"), facts)
    done = nasaug("export", str(path))
    assert done.code == 2 and "does not say which images it was trained on" in done.said
    done = nasaug("export", str(path), "--data=fashion-mnist-mini", "--out=out", "--json")
    assert done.code == 0 and done.json["training"]["data"] == "not known"


@pytest.mark.parametrize("value", [None, "0.8", True, [0.8]])
def test_a_result_whose_accuracy_is_no_number(nasaug: Nasaug, trained: Path, value: object) -> None:
    result = json.loads((trained / "result.json").read_text())
    (trained / "result.json").write_text(json.dumps(result | {"top1": value}))
    done = nasaug("export", "trained")
    assert done.code == 2 and "is damaged: its result says that top1 is" in done.said
