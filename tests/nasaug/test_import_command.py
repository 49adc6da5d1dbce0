"""`nasaug import`: what is written judges and trains as it should; files that must be refused."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from nasaug.supernet import load_target, macs, params
from nasaug.training import load_weights, read_facts

Nasaug = Callable[..., Any]
V2 = "--format=torchvision:mobilenet_v2"


def _theirs(**options: Any) -> nn.Module:
    """torchvision's MobileNetV2 for the ten kinds of clothes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net: nn.Module = models.mobilenet_v2(num_classes=10, **options)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            net.train()(torch.randn(8, 3, 48, 48))
    return net.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network of torchvision's, stored in every way, and one of odd widths."""
    folder = tmp_path_factory.mktemp("files")
    state = _theirs(width_mult=0.35).state_dict()
    torch.save(state, folder / "plain.pth")
    torch.save({"model": state, "epoch": 3}, folder / "wrapped.pth")
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "ddp.pth")
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    torch.save(_theirs(width_mult=0.3, round_nearest=4).state_dict(), folder / "odd.pth")
    return folder


@pytest.mark.parametrize("name", ["plain.pth", "wrapped.pth", "ddp.pth", "plain.safetensors"])
def test_every_way_to_store_it_is_read(name: str, nasaug: Nasaug, files: Path) -> None:
    done = nasaug("import", str(files / name), V2, "--out=new/mine.safetensors", "--json")
    assert (done.code, done.err) == (0, "")
    arch = load_target("mbv2_w035", 10, 224)
    assert done.json == {
        "weights": "new/mine.safetensors",
        "format": "torchvision:mobilenet_v2",
        "file": str(files / name),
        "target": "mbv2_w035",
        "classes": 10,
        "in_channels": 3,
        "resolution": 224,
        "macs": macs(arch),
        "params": params(arch),
    }
    net = load_weights(Path("new/mine.safetensors"))
    assert net.arch == arch
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(net(image), _theirs(width_mult=0.35)(image))
    facts = read_facts(Path("new/mine.safetensors"))
    imported = {"target": "mbv2_w035", "imported": "torchvision:mobilenet_v2", "resolution": 224}
    assert facts == imported
    assert [path.name for path in Path("new").iterdir()] == ["mine.safetensors"]


def test_it_is_judged_and_trained_on(
    nasaug: Nasaug, files: Path, data: tuple[str, ...], quick: tuple[str, ...]
) -> None:
    done = nasaug("import", str(files / "plain.pth"), V2, "--target=mbv2_w035", "--resolution=32")
    assert done.code == 0
    assert "mbv2_w035" in done.out
    assert "nasaug train --target mbv2_w035 --init weights.safetensors" in done.said
    judged = nasaug("evaluate", "weights.safetensors", *data, "--target=mbv2_w035", "--json")
    assert judged.json["evaluated_at"] == 32
    trained = nasaug(
        "train", *quick, "--target=mbv2_w035", "--init=weights.safetensors", "--method=baseline",
        "--set=train.lr=1e-9", "--set=train.weight_decay=0", "--set=train.resolution=32",
        "--out=run", "--json",
    )  # fmt: skip
    assert trained.code == 0
    found = load_weights(Path("run/weights.safetensors")).state_dict()
    given = load_weights(Path("weights.safetensors")).state_dict()
    for name, tensor in given.items():
        if "running" not in name:
            torch.testing.assert_close(found[name], tensor)


def test_a_network_without_a_name_has_a_table(
    nasaug: Nasaug, files: Path, data: tuple[str, ...]
) -> None:
    done = nasaug("import", str(files / "odd.pth"), V2, "--resolution=32", "--json")
    assert done.json["target"] == "weights.yaml"
    arch = load_target("weights.yaml", 10)
    assert (arch.name, arch.resolution) == ("mobilenet_v2", 32)
    assert arch == load_weights(Path("weights.safetensors")).arch
    judged = nasaug("evaluate", "weights.safetensors", "--target=weights.yaml", *data, "--json")
    assert judged.json["params"] == params(arch) == done.json["params"]


def test_a_network_that_has_a_table_by_now_gets_no_other(nasaug: Nasaug, files: Path) -> None:
    assert nasaug("import", str(files / "odd.pth"), V2, "--out=first.safetensors").code == 0
    again = ("import", str(files / "odd.pth"), V2, "--target=first.yaml", "--json")
    assert nasaug(*again).json["target"] == "first.yaml"
    assert not Path("weights.yaml").exists()
    assert read_facts(Path("weights.safetensors"))["target"] == "first.yaml"


def test_a_checkpoint_of_the_authors(nasaug: Nasaug) -> None:
    golden = Path(__file__).parents[1] / "data" / "golden" / "mbv2_tiny.json"
    shapes = json.loads(golden.read_text(encoding="utf-8"))["state_dict"]
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": state}, "authors.pth")
    safetensors.torch.save_file(state, "authors.safetensors")
    for index, name in enumerate(("authors.pth", "authors.safetensors")):
        out = f"--out={index}.safetensors"
        done = nasaug("import", name, "--format=netaug", "--target=mbv2_tiny", out, "--json")
        assert (done.code, done.json["target"], done.json["classes"]) == (0, "mbv2_tiny", 10)
        found = load_weights(Path(f"{index}.safetensors")).state_dict()
        theirs = state["head.op_list.3.linear.weight"]
        assert torch.equal(found["blocks.20.linear.weight"], theirs)


def test_back_from_timm(nasaug: Nasaug, data: tuple[str, ...]) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
    importlib.import_module("nasaug.timm_models")
    for channels in (1, 3):
        model = timm.create_model("nasaug_micro_10k", num_classes=10, in_chans=channels)
        images = torch.randn(4, channels, 28, 28)
        model.train()(images)
        torch.save({"state_dict": model.state_dict()}, "timm.pth")
        out = f"--out={channels}.safetensors"
        done = nasaug("import", "timm.pth", "--format=timm", "--target=micro_10k", out, "--json")
        assert (done.code, done.json["in_channels"], done.json["classes"]) == (0, channels, 10)
        net = load_weights(Path(f"{channels}.safetensors"))
        with torch.no_grad():
            torch.testing.assert_close(net(images), model.eval()(images))
        assert nasaug("evaluate", f"{channels}.safetensors", *data).code == 0
    wrong = nasaug("import", "timm.pth", "--format=timm", "--target=mcunet", "--out=x.safetensors")
    assert wrong.code == 2
    assert "the checkpoint is not of mcunet: missing" in wrong.said


def test_what_is_different_about_v3_is_said(nasaug: Nasaug) -> None:
    net = models.mobilenet_v3_large(num_classes=10, width_mult=0.25)
    torch.save(net.state_dict(), "v3.pth")
    done = nasaug("import", "v3.pth", "--format=torchvision:mobilenet_v3_large", "--json")
    assert done.code == 0
    assert "adds 0.001 to the variances of its batch norms, ours 0.00001" in done.said
    found = load_weights(Path("weights.safetensors")).state_dict()
    theirs = net.state_dict()["features.0.1.running_var"]
    torch.testing.assert_close(found["blocks.0.conv.norm.running_var"], theirs + 0.00099)


def _bad_files(files: Path) -> None:
    whole = (files / "plain.pth").read_bytes()
    Path("cut.pth").write_bytes(whole[: len(whole) // 2])
    Path("cut.safetensors").write_bytes((files / "plain.safetensors").read_bytes()[:1000])
    Path("garbage.pth").write_bytes(b"garbage" * 50)
    Path("plain.pth").write_bytes(whole)
    Path("taken.safetensors").write_bytes(b"mine")
    Path("taken.yaml").write_bytes(b"mine")
    Path("odd.pth").write_bytes((files / "odd.pth").read_bytes())
    torch.save([1, 2], "list.pth")
    torch.save({"a": 3}, "numbers.pth")
    Path("folder").mkdir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.pth", V2], ["missing.pth does not exist"]),
        (["folder", V2], ["folder does not exist, or is no file"]),
        (["garbage.pth", V2], ["garbage.pth"]),
        (["cut.pth", V2], ["cut.pth is not a readable torch file"]),
        (["cut.safetensors", V2], ["cut.safetensors is damaged"]),
        (["list.pth", V2], ["list.pth holds a list, not a mapping"]),
        (["numbers.pth", V2], ["numbers.pth must hold a state dict"]),
        (["plain.pth", "--format=torchvision"], ["unknown network of torchvision ''"]),
        (["plain.pth", "--format=torchvison:mobilenet_v2"], ["did you mean 'torchvision:mobile"]),
        (["plain.pth", "--format=netaug:x"], ["unknown format 'netaug:x'", "'netaug'"]),
        (["plain.pth", "--format=torchvision:mobilenet_v3_small"], ["not of torchvision's"]),
        (["plain.pth", "--format=torchvision:mobilenet_v3_large"], ["not of torchvision's"]),
        (["plain.pth", "--format=netaug"], ["plain.pth does not say what it is of; add --target"]),
        (["plain.pth", "--format=netaug", "--target=mbv2_tiny"], ["not a parameter name"]),
        (["plain.pth", "--format=timm"], ["plain.pth does not say what it is of; add --target"]),
        (["plain.pth", "--format=timm", "--target=mbv2_w035"], ["not of mbv2_w035: missing"]),
        (["plain.pth", V2, "--target=mcunet"], ["holds mbv2_w035", "not those of mcunet"]),
        (["plain.pth", V2, "--target=mbv2_tyni"], ["unknown target", "'mbv2_tiny'"]),
        (["plain.pth", V2, "--out=x.pth"], ["--out must end in .safetensors", "x.pth"]),
        (["plain.pth", V2, "--out=taken.safetensors"], ["taken.safetensors exists"]),
        (["odd.pth", V2, "--out=taken.safetensors"], ["taken.safetensors exists"]),
        (["plain.pth", V2, "--resolution=3"], ["--resolution"]),
        (["plain.pth"], ["--format"]),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(
    arguments: list[str],
    words: list[str],
    nasaug: Nasaug,
    files: Path,
    files_below: Callable[[], dict[str, bytes]],
) -> None:
    _bad_files(files)
    before = files_below()
    done = nasaug("import", *arguments)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert files_below() == before


def test_a_table_that_exists_is_not_overwritten(nasaug: Nasaug, files: Path) -> None:
    Path("weights.yaml").write_text("mine")
    done = nasaug("import", str(files / "odd.pth"), V2)
    assert done.code == 2
    assert "weights.yaml exists; choose another --out" in done.said
    assert Path("weights.yaml").read_text() == "mine"
    assert not Path("weights.safetensors").exists()


class _RunsCode:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(nasaug: Nasaug) -> None:
    torch.save({"state_dict": _RunsCode()}, "evil.pth")
    done = nasaug("import", "evil.pth", V2)
    assert done.code == 2
    assert "refused to load evil.pth" in done.said
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.to(torch.complex64), "names and dense tensors of floats"),
        (lambda t: t.to(torch.int8), "names and dense tensors of floats"),
        (lambda t: t.to("meta"), "names and dense tensors of floats"),
        (lambda t: t * float("nan"), "must hold finite floats"),
    ],
)
def test_tensors_that_are_no_weights(
    spoil: Callable[[torch.Tensor], torch.Tensor], words: str, nasaug: Callable[..., Any],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    tensors = models.mobilenet_v2(num_classes=4, width_mult=0.25).state_dict()
    name = "features.0.0.weight"
    torch.save({**tensors, name: spoil(tensors[name])}, "odd.pth")
    done = nasaug("import", "odd.pth", "--format=torchvision:mobilenet_v2", "--out=w.safetensors")
    assert done.code == 2 and words in done.said, done.err
    assert not Path("w.safetensors").exists()


def test_names_that_are_no_text_and_negative_variances(
    nasaug: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = models.mobilenet_v2(num_classes=4, width_mult=0.25).state_dict()
    torch.save({(1, 2): tensors["features.0.0.weight"]}, "odd.pth")
    options = ("--format=torchvision:mobilenet_v2", "--out=w.safetensors")
    done = nasaug("import", "odd.pth", *options)
    assert done.code == 2 and "but holds (1, 2)" in done.said
    tensors["features.0.1.running_var"][0] = -1
    torch.save(tensors, "odd.pth")
    done = nasaug("import", "odd.pth", *options)
    assert done.code == 2 and "some of them are negative" in done.said
