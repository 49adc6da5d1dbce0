"""`nasaug detect train` and `evaluate`: what each writes and says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from nasaug.commands.detect import command
from nasaug.detection import (
    Detector,
    load_detector,
)
from nasaug.pipelines import detect_train
from nasaug.supernet import Network, load_target

Nasaug = Callable[..., Any]


def test_training_writes_a_run(trained: Path, scenes: dict[str, Path]) -> None:
    result = json.loads((trained / "result.json").read_text())
    detector = load_detector(trained / "weights.safetensors")
    target = load_target("micro_3k", 10, resolution=64)
    assert detector.arch == target
    macs = detector.macs()
    assert (result["macs"], result["params"]) == (macs.total, detector.params)
    parts = [result[f"macs_{part}"] for part in ("backbone", "extra", "heads")]
    assert parts == [*macs] and sum(parts) == result["macs"]
    assert result["target"] == "micro_3k" and result["method"] == "baseline"
    assert result["resolution"] == detector.options.size == 64
    assert result["style"] == "coco" and 0 <= result["map"] <= 1
    assert result["classes"] == list(detector.classes) and len(detector.classes) == 10
    assert result["scores"]["test"]["pictures"] == 5
    assert result["scores"]["validation"]["pictures"] == 4
    assert result["bn_images"] == 8
    (row,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert row["step"] == 4 and row["map"] == pytest.approx(result["validation_map"])
    assert row["macs"] == result["train_macs"] == 16 * macs.total
    assert row["loss_target"] == pytest.approx(row["loss_boxes"] + row["loss_classes"], rel=1e-5)
    assert "method: baseline" in (trained / "config.yaml").read_text()
    assert os.listdir(trained / "checkpoint")


def test_json_is_all_that_stdout_holds_and_a_finished_run_says_it_again(
    nasaug: Nasaug, trained: Path, coco: str, small: tuple[str, ...]
) -> None:
    done = nasaug("detect", "train", *small, coco, f"--out={trained}", "--resume", "--json")
    assert done.code == 0
    assert done.json == json.loads((trained / "result.json").read_text())


def test_evaluation_agrees_with_training(nasaug: Nasaug, trained: Path, coco: str) -> None:
    result = json.loads((trained / "result.json").read_text())
    done = nasaug("detect", "evaluate", str(trained), coco, "--target=micro_3k", "--json")
    assert done.code == 0
    for key in ("target", "data", "map", "style", "macs", "macs_heads", "params", "resolution"):
        assert done.json[key] == result[key], key
    assert done.json["scores"]["test"] == result["scores"]["test"]
    assert done.json["weights"] == str(trained / "weights.safetensors")
    table = nasaug("detect", "evaluate", str(trained), coco)
    assert table.code == 0
    assert "test mAP (%)" in table.out and "Trouser" in table.out and "AP75" in table.out


def test_the_other_format_and_style(nasaug: Nasaug, trained: Path, scenes: dict[str, Path]) -> None:
    """The same scenes as VOC give the same boxes, judged by COCO's rules; by VOC's others."""
    coco = json.loads((trained / "result.json").read_text())
    data = f"--data=voc:{scenes['voc']}"
    same = nasaug("detect", "evaluate", str(trained), data, "--style=coco", "--json").json
    # VOC knows no areas of objects, only of boxes, by which AP alone does not go.
    assert same["map"] == coco["map"]
    other = nasaug("detect", "evaluate", str(trained), data, "--json").json
    assert other["style"] == "voc" and "AP50_11point" in other["scores"]["test"]


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    nasaug: Nasaug, monkeypatch: pytest.MonkeyPatch, coco: str, small: tuple[str, ...]
) -> None:
    arguments = ("detect", "train", *small, coco, "--method=netaug")
    arguments += ("--epochs=2", "--set=train.validate_every=2")
    assert nasaug(*arguments, "--out=whole").code == 0
    original = detect_train.fit

    def stopped(*given: Any, **options: Any) -> Any:
        def watch(step: int, steps: int, values: object) -> None:
            if step == 6:
                raise KeyboardInterrupt

        return original(*given, **{**options, "watch": watch})

    monkeypatch.setattr(detect_train, "fit", stopped)
    assert nasaug(*arguments, "--out=parts").code == 130
    monkeypatch.setattr(detect_train, "fit", original)
    done = nasaug(*arguments, "--out=parts", "--resume")
    assert done.code == 0 and "resuming parts after step 4" in done.said
    whole, parts = (Path(f"{name}/weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_netaug_ships_the_target_alone(nasaug: Nasaug, coco: str, small: tuple[str, ...]) -> None:
    done = nasaug("detect", "train", *small, coco, "--method=netaug", "--out=here", "--json")
    assert done.code == 0
    detector = load_detector(Path("here/weights.safetensors"))
    assert detector.arch == load_target("micro_3k", 10, resolution=64)
    assert done.json["macs"] == detector.macs().total
    assert "inside those of up to" in done.json["inside"]
    rows = [json.loads(line) for line in Path("here/metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_helper"] > 0 for row in rows)
    assert done.json["train_macs"] > 2 * 16 * done.json["macs"]


@pytest.mark.parametrize("method", ["baseline", "netaug"])
def test_the_backbone_starts_from_a_network_for_other_classes(
    nasaug: Nasaug,
    coco: str,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    small: tuple[str, ...],
    classified: Callable[..., Network],
) -> None:
    net = classified(Path("weights.safetensors"), classes=7)
    begun: list[Detector] = []
    original = detect_train.fit

    def watched(detector: Detector, *given: Any, **options: Any) -> Any:
        begun.append(detector.export(options.pop("target", None) or micro))
        return original(detector, *given, **options)

    micro = load_target("micro_3k", 10, resolution=64)
    monkeypatch.setattr(detect_train, "fit", watched)
    done = nasaug(
        "detect", "train", *small, coco, f"--method={method}", "--init=weights.safetensors",
        "--out=here", "--json",
    )  # fmt: skip
    assert done.code == 0
    said = "from the weights of weights.safetensors, with fresh weights for all behind the backbone"
    assert said in done.json["inside"]
    theirs = net.state_dict()
    own = begun[0].backbone.state_dict()
    assert own and all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


@pytest.mark.parametrize("method", ["baseline", "netaug"])
@pytest.mark.parametrize("place", ["", "weights.safetensors"])
def test_the_detector_starts_from_another_training(
    nasaug: Nasaug,
    trained: Path,
    coco: str,
    method: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    small: tuple[str, ...],
) -> None:
    """The whole of it, alone or inside a larger one; and says so."""
    target = load_target("micro_3k", 10, resolution=64)
    begun: list[Detector] = []

    def stopped(detector: Detector, *given: Any, **options: Any) -> Any:
        begun.append(detector.export(target))
        raise KeyboardInterrupt

    monkeypatch.setattr(detect_train, "fit", stopped)
    init = trained / place
    done = nasaug("detect", "train", *small, coco, f"--method={method}", f"--init={init}")
    assert done.code == 130
    assert f", from the whole detector of {init}\n" in done.err
    theirs = load_detector(trained / "weights.safetensors").state_dict()
    own = begun[0].state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


def test_what_of_another_detector_does_not_fit_is_said(
    nasaug: Nasaug, trained: Path, coco: str, small: tuple[str, ...]
) -> None:
    """Here the classes are in another order."""
    classes = json.loads((trained / "result.json").read_text())["classes"][::-1]
    arguments = (f"--set=data.classes=[{', '.join(classes)}]", "--set=detector.extra=[32, 24]")
    done = nasaug(
        "detect", "train", *small, coco, f"--init={trained}", *arguments, "--out=here", "--json"
    )
    assert done.code == 0
    fresh = (
        "1 of 2 extra layers, the heads of 1 of 4 feature maps, all scores (10 classes in place of "
        "10 others)"
    )
    said = f"from the detector of {trained}, with fresh weights for {fresh}"
    assert said in done.json["inside"] and said in done.said
    assert load_detector(Path("here/weights.safetensors")).classes == tuple(classes)


def test_a_largest_network_that_was_searched(
    nasaug: Nasaug, coco: str, small: tuple[str, ...]
) -> None:
    from nasaug.supernet import SearchSpace, macs

    space = SearchSpace.around(load_target("micro_3k", 10), (1.0, 2.0), (1.0, 2.0))
    best = {
        "architecture": space.largest.to_dict(),
        "macs": macs(space.largest),
        "budget_macs": 10**9,
        "target": "micro_3k",
    }
    Path("best.json").write_text(json.dumps(best))
    done = nasaug(
        "detect", "train", *small, coco, "--method=netaug", "--set=netaug.largest=best.json",
        "--out=here", "--json",
    )  # fmt: skip
    assert done.code == 0 and "inside those of up to" in done.json["inside"]


def test_the_groups_help_names_its_commands() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    assert all(name in text for name in ("train", "evaluate", "predict"))
