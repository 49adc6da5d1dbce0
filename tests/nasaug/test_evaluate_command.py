"""`nasaug evaluate`: the same judgement as after training, and files that it must refuse."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasaug.supernet import load_target, macs, params
from nasaug.training import load_weights, read_facts, save_weights

Nasaug = Callable[..., Any]
# Our names of a block's tensors, as the authors' networks call them.
THEIRS = (
    ("conv.norm.", "norm."),
    ("expand.norm.", "conv.inverted_conv.norm."),
    ("expand.", "conv.inverted_conv.conv."),
    ("depthwise.norm.", "conv.depth_conv.norm."),
    ("depthwise.", "conv.depth_conv.conv."),
    ("project.norm.", "conv.point_conv.norm."),
    ("project.", "conv.point_conv.conv."),
)


@pytest.mark.parametrize("path", ["trained", "trained/weights.safetensors"])
def test_it_judges_as_training_did(
    path: str, nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    done = nasaug("evaluate", path, *data, "--json")
    assert done.code == 0
    facts, result = done.json, json.loads((trained / "result.json").read_text())
    for key in ("target", "data", "top1", "top5", "macs", "params", "resolution"):
        assert facts[key] == result[key]
    assert facts["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert facts["weights"] == "trained/weights.safetensors"
    assert facts["run_dir"] == "trained"


def test_people_get_percent(nasaug: Nasaug, data: tuple[str, ...], trained: Path) -> None:
    done = nasaug("evaluate", "trained", *data)
    facts = json.loads((trained / "result.json").read_text())
    row = next(line for line in done.out.splitlines() if line.startswith("micro_10k"))
    percents = [f"{100 * facts['top1']:.2f}", f"{100 * facts['top5']:.2f}"]
    assert row.split() == ["micro_10k", "fashion-mnist", *percents, "336,144", "9,994"]


def test_weights_can_be_moved_and_named_by_target(
    nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    shutil.move(trained / "weights.safetensors", "mine.safetensors")
    done = nasaug("evaluate", "mine.safetensors", "--target=micro_10k", *data, "--json")
    assert done.code == 0
    assert done.json["top1"] == json.loads((trained / "result.json").read_text())["top1"]


def test_at_another_resolution(nasaug: Nasaug, data: tuple[str, ...], trained: Path) -> None:
    facts = nasaug("evaluate", "trained", *data, "--resolution=20", "--json").json
    assert (facts["evaluated_at"], facts["resolution"]) == (20, 28)
    assert facts["loss"] != json.loads((trained / "result.json").read_text())["loss"]


def test_what_was_trained_at_a_proxy_is_judged_at_it(
    nasaug: Nasaug, quick: tuple[str, ...], data: tuple[str, ...]
) -> None:
    trained = nasaug("train", *quick, "--set=train.resolution=20", "--out=here", "--json").json
    judged = nasaug("evaluate", "here", *data, "--json").json
    assert judged["evaluated_at"] == 20
    assert judged["top1"] == trained["top1"]
    assert judged["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_a_checkpoint_of_the_authors(
    nasaug: Nasaug, data: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    net = load_weights(trained / "weights.safetensors")
    last = len(net.arch.rows) - 1
    renamed = {}
    for name, tensor in net.state_dict().items():
        row, _, rest = name.removeprefix("blocks.").partition(".")
        for ours, theirs in THEIRS:
            if rest.startswith(ours):
                rest = theirs + rest.removeprefix(ours)
                break
        place = "input_stem" if int(row) < 2 else "head" if int(row) >= last - 2 else "stages.0"
        renamed[f"backbone.{place}.op_list.{row}.{rest}"] = tensor
    torch.save({"state_dict": renamed}, tmp_path / "authors.pth")
    ours = nasaug("evaluate", "trained", *data, "--json").json
    theirs = nasaug("evaluate", "authors.pth", "--target=micro_10k", *data, "--json").json
    for key in ("target", "top1", "top5", "macs", "params", "loss"):
        assert theirs[key] == ours[key]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("missing", ["missing does not exist", "finished run's folder"]),
        ("missing.safetensors", ["missing.safetensors does not exist"]),
        ("empty_folder", ["empty_folder/weights.safetensors does not exist"]),
        ("empty.safetensors", ["empty.safetensors", "damaged"]),
        ("garbage.safetensors", ["garbage.safetensors", "damaged"]),
        ("truncated.safetensors", ["truncated.safetensors", "damaged"]),
        ("untold.safetensors", ["untold.safetensors", "no architecture"]),
        ("incomplete.safetensors", ["incomplete.safetensors", "does not fit", "Missing key"]),
        ("weights.pth", ["weights.pth does not say what it is of", "add --target"]),
    ],
)
def test_files_that_are_no_weights(
    weights: str, words: list[str], nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    whole = (trained / "weights.safetensors").read_bytes()
    tensors = load_weights(trained / "weights.safetensors").state_dict()
    metadata = _metadata(trained)
    Path("empty_folder").mkdir()
    Path("empty.safetensors").write_bytes(b"")
    Path("garbage.safetensors").write_bytes(b"garbage" * 100)
    Path("truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("weights.pth").write_bytes(whole)
    safetensors.torch.save_file(tensors, "untold.safetensors")
    tensors.popitem()
    safetensors.torch.save_file(tensors, "incomplete.safetensors", metadata)
    done = nasaug("evaluate", weights, *data)
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.said


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "garbage",
        lambda _: [1],
        lambda _: {},
        lambda old: {**old, "architecture": "garbage"},
        lambda old: {**old, "architecture": {"rows": [{"kind": "conv"}], "resolution": 28}},
        lambda old: {**old, "facts": [1]},
        lambda old: {**old, "facts": {**old["facts"], "resolution": "large"}},
        lambda old: {**old, "facts": {**old["facts"], "resolution": -3}},
    ],
)
def test_wrong_metadata_is_named_with_its_file(
    change: Callable[[Any], Any], nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    tensors = load_weights(trained / "weights.safetensors").state_dict()
    ((key, text),) = _metadata(trained).items()
    changed = json.dumps(change(json.loads(text)))
    safetensors.torch.save_file(tensors, "odd.safetensors", {key: changed})
    done = nasaug("evaluate", "odd.safetensors", *data)
    assert done.code == 2
    assert "odd.safetensors is damaged" in done.said


class _Touch:
    """Makes a file when it is read from a pickle."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (self._path,)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_that_runs_code_is_refused(
    wrapped: bool, plain: bool, nasaug: Nasaug, data: tuple[str, ...], tmp_path: Path
) -> None:
    trap = tmp_path / "touched"
    value = {"state_dict": {"head.weight": _Touch(trap)}} if wrapped else _Touch(trap)
    if plain:
        Path("evil.pth").write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, "evil.pth")
    done = nasaug("evaluate", "evil.pth", "--target=micro_10k", *data)
    assert done.code == 2
    assert "refused to load evil.pth" in done.said
    assert not trap.exists()
    pickle.loads(pickle.dumps(value))
    assert trap.exists(), "the trap must work when it is read without care"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], ["holds a list", "not a mapping"]),
        ({"a": torch.zeros(1)}, ["'a' is not a parameter name of the NetAug authors'"]),
        ({"state_dict": 3}, ["state_dict is not a mapping"]),
        ({"head.op_list.0.linear.weight": torch.zeros(1)}, ["not of micro_10k", "1 rows"]),
    ],
    ids=["list", "names", "number", "rows"],
)
def test_a_torch_file_of_something_else(
    content: Any, words: list[str], nasaug: Nasaug, data: tuple[str, ...]
) -> None:
    torch.save(content, "other.pth")
    done = nasaug("evaluate", "other.pth", "--target=micro_10k", *data)
    assert done.code == 2
    for word in words:
        assert word in done.said


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x80\x02garbage", b"PK\x03\x04cut off"])
def test_a_file_that_torch_cannot_read(
    content: bytes, nasaug: Nasaug, data: tuple[str, ...]
) -> None:
    Path("broken.pth").write_bytes(content)
    done = nasaug("evaluate", "broken.pth", "--target=micro_10k", *data)
    assert done.code == 2
    assert "broken.pth" in done.said


def test_a_run_configuration_is_no_torch_file(
    nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    done = nasaug("evaluate", "trained/config.yaml", "--target=micro_10k", *data)
    assert done.code == 2
    assert "config.yaml" in done.said


def test_weights_of_another_target(nasaug: Nasaug, data: tuple[str, ...], trained: Path) -> None:
    done = nasaug("evaluate", "trained", "--target=micro_40k", *data)
    assert done.code == 2
    assert "holds micro_10k, not micro_40k" in done.said
    done = nasaug("evaluate", "trained", "--target=micro_10kk", *data)
    assert done.code == 2
    assert "did you mean 'micro_10k'" in done.said


def test_weights_of_other_classes(
    nasaug: Nasaug, trained: Path, image_folder: Callable[..., Path]
) -> None:
    image_folder("pets")
    done = nasaug("evaluate", "trained", "--data=imagefolder:pets")
    assert done.code == 2
    assert "tells 10 classes apart" in done.said
    assert "imagefolder:pets has 2" in done.said


def test_a_target_at_another_resolution_is_still_that_target(
    nasaug: Nasaug, quick: tuple[str, ...], data: tuple[str, ...]
) -> None:
    sets = ("--set=resolution=32", "--set=in_channels=1")
    facts = nasaug("train", *quick, *sets, "--out=here", "--json").json
    arch = load_target("micro_10k", 10, 32, 1)
    assert (facts["macs"], facts["params"]) == (macs(arch), params(arch))
    assert nasaug("evaluate", "here", *data).code == 0
    assert nasaug("evaluate", "here", "--target=micro_10k", *data).code == 0


@pytest.mark.parametrize(
    ("option", "value"), [("--device", "gpu"), ("--resolution", "-5"), ("--resolution", "0")]
)
def test_options_out_of_range(
    option: str, value: str, nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    done = nasaug("evaluate", "trained", *data, f"{option}={value}")
    assert done.code == 2
    assert value in done.said


def test_unknown_data(nasaug: Nasaug, trained: Path) -> None:
    done = nasaug("evaluate", "trained", "--data=fashon-mnist")
    assert done.code == 2
    assert "unknown data set 'fashon-mnist': did you mean 'fashion-mnist'" in done.said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(nasaug: Nasaug, data: tuple[str, ...], trained: Path) -> None:
    done = nasaug("evaluate", "trained", *data, "--device=cuda")
    assert done.code == 2
    assert "sees no GPU; use --device cpu" in done.said


def test_weights_that_are_not_finite_give_json_all_the_same(
    nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    net = load_weights(trained / "weights.safetensors")
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    save_weights(Path("nan.safetensors"), net, read_facts(trained / "weights.safetensors"))
    done = nasaug("evaluate", "nan.safetensors", *data, "--json")
    facts = json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["loss"] is None


def _metadata(run: Path) -> dict[str, str]:
    with safetensors.safe_open(run / "weights.safetensors", framework="pt") as file:
        found: dict[str, str] = file.metadata()
    return found
