"""`nasaug export`: what it writes is the network that was evaluated, with a card that says so."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasaug.pipelines.export_int8 import judged_on
from nasaug.pipelines.export_source import Wanted, open_source
from nasaug.supernet import load_target
from nasaug.training import evaluate, load_dataset, load_weights, save_weights

Nasaug = Callable[..., Any]
Files = Callable[[], dict[str, bytes]]
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="NOT TESTED: ONNX; the extra [onnx] is not installed",
)


def test_a_run_becomes_a_folder_with_a_card(nasaug: Nasaug, trained: Path) -> None:
    done = nasaug("export", "trained", "--json")
    assert done.code == 0
    card, folder = done.json, trained / "export"
    assert card["out"] == "trained/export"
    assert json.loads((folder / "card.json").read_text()).items() <= card.items()
    names = {"micro_10k.py", "micro_10k.safetensors"}
    assert {path.name for path in folder.iterdir()} == names | {"card.json", "card.md"}
    assert {one["file"] for one in card["files"]} == names
    for one in card["files"]:
        data = (folder / one["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["bytes"], one["sha256"])
    result = json.loads((trained / "result.json").read_text())
    assert card["accuracy"]["top1"] == result["top1"]
    assert card["accuracy"]["bn_images"] == result["bn_images"]
    assert card["training"]["inside"] == result["inside"]
    assert card["training"]["data"] == "fashion-mnist"
    assert card["training"]["largest"].endswith("best.json")
    assert (card["costs"]["macs"], card["costs"]["params"]) == (result["macs"], result["params"])
    assert card["classes"][:2] == ["T-shirt/top", "Trouser"]
    assert card["input"] == {
        "channels": 3,
        "resolution": 28,
        "layout": "NCHW, float32",
        "mean": [0.286] * 3,
        "std": [0.353] * 3,
    }
    check = card["checks"]["micro_10k.py"]
    assert check["passed"] and check["images"] == 200 and check["difference"] < 1e-5


def test_the_card_for_people_tells_the_same(nasaug: Nasaug, trained: Path) -> None:
    done = nasaug("export", "trained", "--out", "shipped")
    assert done.code == 0
    assert "micro_10k.py" in done.out and "card.md" in done.said
    card = json.loads(Path("shipped/card.json").read_text())
    text = Path("shipped/card.md").read_text()
    for said in (
        "# micro_10k",
        "Exported from the run trained",
        card["files"][0]["sha256"],
        f"| top1 (%) | {100 * card['accuracy']['top1']:.2f} |",
        "| classifier | linear out=10 | 1 | 640 |",
        "T-shirt/top, Trouser",
        f"    {card['command']}",
    ):
        assert said in text
    assert shlex.split(card["command"])[:3] == ["nasaug", "export", "trained"]


def test_the_command_on_the_card_makes_the_same_files(nasaug: Nasaug, trained: Path) -> None:
    first = nasaug("export", "trained", "--out=one", "--images=50", "--json").json
    words = shlex.split(first["command"])
    second = nasaug(*words[1:], "--force", "--json").json
    assert second["files"] == first["files"]
    assert second["checks"] == first["checks"]
    assert second["checks"]["micro_10k.py"]["images"] == 50


@needs_onnx
def test_the_figure_is_that_of_the_files_on_real_images(
    nasaug: Nasaug, trained: Path, clothes: Path
) -> None:
    """Recomputed by other means: ONNX Runtime by hand on the images of the data set itself."""
    import onnxruntime

    card = nasaug("export", "trained", "--format=onnx", "--json").json
    test = load_dataset("fashion-mnist", clothes).test
    images = ((test.images.float() / 255 - 0.286) / 0.353).expand(-1, 3, -1, -1)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(trained / "export" / "micro_10k.onnx")
    (logits,) = session.run(None, {"image": images.contiguous().numpy()})
    with torch.inference_mode():
        reference = load_weights(trained / "weights.safetensors")(images).numpy()
    spread = (((reference - reference.mean(0)) ** 2).mean(0).mean()) ** 0.5
    expected = abs(logits - reference).max() / spread
    assert expected > 0
    assert card["checks"]["micro_10k.onnx"]["difference"] == pytest.approx(expected, rel=0.9)
    assert card["checks"]["micro_10k.onnx"]["agreement"] == 1.0


def test_a_search_down_is_exported_as_it_was_found(
    nasaug: Nasaug, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    space = ("--direction=down", "--space=micro_down", "--budget=800K", "--trials=2")
    assert nasaug("search", *quick[1:], *space, "--out=down").code == 0
    card = nasaug("export", "down", "--json").json
    best = json.loads((tmp_path / "down" / "best.json").read_text())
    assert (card["name"], card["target"]) == ("network", "micro_down-found")
    assert card["accuracy"]["validation_top1"] == best["accuracy"]
    assert card["accuracy"]["bn_images"] == best["bn_images"]
    assert card["costs"]["macs"] == best["macs"]
    assert (tmp_path / "down" / "export" / "network.py").exists()


def test_weights_by_themselves_say_what_they_are_of(
    nasaug: Nasaug, trained: Path, clothes: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "weights.safetensors", "mine.safetensors")
    card = nasaug("export", "mine.safetensors", f"--data-dir={clothes}", "--json").json
    assert card["accuracy"] is None
    assert card["origin"] == "the file mine.safetensors"
    assert (tmp_path / "export" / "micro_10k.py").exists()
    assert "Not known" in (tmp_path / "export" / "card.md").read_text()


def test_an_unfinished_run_is_exported_when_told_to(
    nasaug: Nasaug, trained: Path, files_below: Files
) -> None:
    """From its newest checkpoint; here the one of the last step, and so the same network."""
    assert nasaug("export", "trained", "--out=whole").code == 0
    (trained / "result.json").unlink()
    (trained / "weights.safetensors").unlink()
    before = files_below()
    done = nasaug("export", "trained", "--out=part")
    assert done.code == 2
    assert "trained is unfinished: it has no result.json; go on" in done.said
    assert "add --force" in done.said
    assert files_below() == before
    done = nasaug("export", "trained", "--out=part", "--force", "--json")
    assert done.code == 0
    assert "trained is unfinished; exported is what there is of it" in done.said
    assert (done.json["finished"], done.json["accuracy"]) == (False, None)
    assert done.json["origin"] == "the run trained, unfinished"
    assert "unfinished" in Path("part/micro_10k.py").read_text()
    whole, part = (
        safetensors.torch.load_file(f"{name}/micro_10k.safetensors") for name in ("whole", "part")
    )
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())
    shutil.rmtree(trained / "checkpoint")
    done = nasaug("export", "trained", "--out=none", "--force")
    assert done.code == 2
    assert "has no weights and no checkpoint of a training yet" in done.said


@needs_onnx
def test_latencies_of_all_files(nasaug: Nasaug, trained: Path) -> None:
    options = ("--format=torch", "--format=onnx", "--int8", "--calibration=32", "--max-drop=100")
    done = nasaug("export", "trained", *options, "--latency", "--images=10", "--json")
    taken = done.json["latency"]
    assert [row["file"] for row in taken["rows"]] == [
        "micro_10k.py",
        "micro_10k.onnx",
        "micro_10k-int8.onnx",
    ]
    assert (taken["threads"], taken["batch"]) == (1, 1)
    for row in taken["rows"]:
        assert 1_000 < row["median_ns"] <= row["p90_ns"] < 10**9
        assert row["repeats"] >= 30
    assert "90th percentile (ms)" in (trained / "export" / "card.md").read_text()


def test_a_resolution_of_ones_own(nasaug: Nasaug, trained: Path) -> None:
    card = nasaug("export", "trained", "--resolution=40", "--images=10", "--json").json
    assert card["input"]["resolution"] == 40
    assert card["costs"]["deployment_resolution"] == 28
    assert card["costs"]["macs_at_deployment"] == 336_144 < card["costs"]["macs"]


def test_the_resolution_is_that_at_which_it_was_evaluated(
    nasaug: Nasaug, trained: Path, clothes: Path
) -> None:
    """Which a proxy in training makes another one than the network's."""
    net = load_weights(trained / "weights.safetensors")
    facts = {"target": "micro_10k", "data": "fashion-mnist", "resolution": 36}
    save_weights(Path("proxy.safetensors"), net, facts)
    options = (f"--data-dir={clothes}", "--out=proxy", "--images=10", "--json")
    assert nasaug("export", "proxy.safetensors", *options).json["input"]["resolution"] == 36
    assert "RESOLUTION = 36" in Path("proxy/micro_10k.py").read_text()


def test_the_source_is_the_network_that_was_evaluated(trained: Path) -> None:
    source = open_source(Wanted(str(trained)))
    result = json.loads((trained / "result.json").read_text())
    assert evaluate(source.net, judged_on(source))["top1"] == result["top1"]
    assert source.net.arch == load_target("micro_10k", 10)
