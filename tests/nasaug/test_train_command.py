"""`nasaug train`: which network it trains inside, what it exports, what it writes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nasaug.config import load_config
from nasaug.pipelines import train
from nasaug.supernet import Network, load_target, macs, params
from nasaug.train_config import TrainConfig
from nasaug.training import ImageArray, load_weights, read_facts, save_weights

Nasaug = Callable[..., Any]
WeightsIn = Callable[[Path | str], bytes]
FILES = SimpleNamespace(train=None)


def test_json_is_all_that_stdout_holds(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--out=here", "--json")
    assert done.code == 0
    facts = done.json
    target = load_target("micro_10k", 10)
    assert facts["target"] == "micro_10k"
    assert (facts["macs"], facts["params"]) == (macs(target), params(target))
    assert facts["weights"] == "here/weights.safetensors"
    assert facts["run_dir"] == "here"
    assert 0 <= facts["top1"] <= facts["top5"] <= 1
    assert facts["top1"] * 200 == pytest.approx(round(facts["top1"] * 200))
    assert facts == json.loads(Path("here/result.json").read_text())
    assert "training micro_10k" in done.said
    rows = [json.loads(line) for line in Path("here/metrics.jsonl").read_text().splitlines()]
    for key in ("macs", "seconds", "cpu_seconds"):
        assert 0 < facts[f"train_{key}"] == pytest.approx(sum(row[key] for row in rows))


@pytest.mark.parametrize(
    ("said", "other"),
    [
        (3.5, {}),
        (3.5, {"data": FILES, "view": SimpleNamespace(workers=0)}),
        (None, {"data": FILES}),  # decoding processes do a part of the work
        (None, {"device": torch.device("cuda")}),
        (None, {"group": SimpleNamespace(size=2)}),
        (None, {"rows": [{"cpu_seconds": 1.5}, {}]}),  # begun by a release that did not measure it
    ],
)
def test_cpu_seconds_are_said_where_one_process_does_all(
    said: float | None, other: dict[str, Any]
) -> None:
    images = ImageArray(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1).long())
    usual = {
        "data": SimpleNamespace(train=images),
        "view": SimpleNamespace(workers=None),
        "device": torch.device("cpu"),
        "group": SimpleNamespace(size=1),
    }
    rows = other.pop("rows", [{"cpu_seconds": 1.5}, {"cpu_seconds": 2.0}])
    setting: Any = SimpleNamespace(**usual | other)
    assert train._cpu_seconds(setting, rows) == said


def test_people_get_percent(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--out=here")
    facts = json.loads(Path("here/result.json").read_text())
    row = next(line for line in done.out.splitlines() if line.startswith("micro_10k"))
    assert row.split() == [
        "micro_10k",
        "netaug",
        f"{100 * facts['top1']:.2f}",
        f"{100 * facts['top5']:.2f}",
        "336,144",
        f"{facts['params']:,}",
    ]
    assert "weights: here/weights.safetensors" in done.said


def test_the_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "weights.safetensors", "result.json"} <= names
    config = load_config(TrainConfig, str(trained / "config.yaml"), [], {})
    assert (config.target, config.train.epochs, config.method) == ("micro_10k", 1, "netaug")
    (line,) = (trained / "metrics.jsonl").read_text().splitlines()
    assert {"step", "epoch", "lr", "loss_target", "loss_helper", "top1"} <= json.loads(line).keys()
    net = load_weights(trained / "weights.safetensors")
    assert net.arch == load_target("micro_10k", 10)
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())


def test_a_saved_configuration_gives_the_same_run(
    nasaug: Nasaug, trained: Path, searched: Path, weights_in: WeightsIn
) -> None:
    config = load_config(TrainConfig, str(trained / "config.yaml"), [], {})
    done = nasaug("train", f"--config={trained}/config.yaml", "--out=again")
    assert done.code == 0
    assert load_config(TrainConfig, "again/config.yaml", [], {}) == config
    assert weights_in("again") == weights_in(trained)


def test_equal_weights_are_equal_files(trained: Path, tmp_path: Path) -> None:
    net = load_weights(trained / "weights.safetensors")
    facts = read_facts(trained / "weights.safetensors")
    for index in range(20):
        save_weights(tmp_path / f"{index}.safetensors", net, facts)
    assert len({(tmp_path / f"{index}.safetensors").read_bytes() for index in range(20)}) == 1


def test_the_newest_search_is_used_and_named(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    for name, budget, age in (("older", 111, 2000), ("a_newer", 222, 1000), ("oldest", 333, 3000)):
        _search_like(searched, name, age, budget_macs=budget)
    shutil.rmtree(searched)
    done = nasaug("train", *quick, "--out=here")
    assert done.code == 0
    assert "a_newer/best.json (budget 222)" in done.said
    assert "published" not in done.said


def test_searches_for_others_are_passed_over(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, best: dict[str, Any]
) -> None:
    _search_like(searched, "other", 10, target="micro_40k")
    _search_like(searched, "larger", 10, architecture={**best["architecture"], "resolution": 32})
    os.utime(searched / "best.json", (1000, 1000))
    done = nasaug("train", *quick, "--out=here")
    assert done.code == 0
    assert "searched/best.json" in done.said


def test_a_search_below_runs_is_found(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    shutil.move(searched, "runs/x")
    assert "runs/x/best.json" in nasaug("train", *quick).said
    assert "runs/x/best.json" in nasaug("train", *quick, "--out=elsewhere/here").said


def test_without_a_search_the_published_factors_are_used_and_named(
    nasaug: Nasaug, quick: tuple[str, ...], weights_in: WeightsIn
) -> None:
    done = nasaug("train", *quick, "--out=here")
    assert "the published factors" in done.said
    assert nasaug("train", *quick, "--out=asked", "--largest=published").code == 0
    assert weights_in("here") == weights_in("asked")


def test_published_is_used_where_asked_for_though_there_is_a_search(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    done = nasaug("train", *quick, "--out=here", "--largest=published")
    assert "the published factors" in done.said
    assert "best.json" not in done.said


@pytest.mark.parametrize("path", ["searched", "searched/best.json"])
def test_a_search_can_be_named(
    path: str, nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    _search_like(searched, "newer", 0, budget_macs=222)
    done = nasaug("train", *quick, "--out=elsewhere/here", f"--largest={path}")
    assert done.code == 0
    assert "searched/best.json (budget 2M)" in done.said


def test_alone_by_either_option(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, weights_in: WeightsIn
) -> None:
    none = nasaug("train", *quick, "--out=none", "--largest=none", "--json")
    baseline = nasaug("train", *quick, "--out=baseline", "--method=baseline", "--json")
    for done in (none, baseline):
        assert done.code == 0
        assert "training micro_10k alone" in done.said
    assert weights_in("none") == weights_in("baseline")
    assert baseline.json["method"] == "baseline"


def test_every_method_exports_the_same_network(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, weights_in: WeightsIn
) -> None:
    results = [
        nasaug("train", *quick, f"--out={index}", "--json", *more).json
        for index, more in enumerate(
            (["--largest=searched"], ["--largest=published"], ["--method=baseline"])
        )
    ]
    assert {(facts["macs"], facts["params"]) for facts in results} == {
        (336_144, params(load_target("micro_10k", 10)))
    }
    weights = [weights_in(facts["run_dir"]) for facts in results]
    assert weights[0] != weights[1] != weights[2] != weights[0]


def test_the_supernets_weights_are_where_training_starts(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    still = ["--set=train.lr=1e-9", "--set=netaug.sort_channels=false"]
    done = nasaug("train", *quick, *still, "--init=supernet", "--out=inherited")
    assert done.code == 0
    assert "weights from the supernet" in done.said
    assert nasaug("train", *quick, *still, "--init=fresh", "--out=fresh").code == 0
    supernet = load_weights(searched / "supernet" / "weights.safetensors")
    target = load_target("micro_10k", 10)
    start = _by_hand(supernet, target.rows)
    for name, close in (("inherited", True), ("fresh", False)):
        net = load_weights(Path(name) / "weights.safetensors")
        assert torch.allclose(_by_hand(net, target.rows), start, atol=1e-6) is close


def test_the_supernet_needs_a_search(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    for more in ([], ["--largest=published"]):
        done = nasaug("train", *quick, *more, "--init=supernet", "--out=here")
        assert done.code == 2
        assert "--init supernet needs a search" in done.said
        assert "nasaug search" in done.said
        assert not Path("here").exists()


def test_the_supernet_of_other_classes_cannot_be_used(
    nasaug: Nasaug, searched: Path, image_folder: Callable[..., Path]
) -> None:
    image_folder("pets")
    options = ["--target=micro_10k", "--data=imagefolder:pets", "--set=data.workers=0"]
    done = nasaug("train", *options, "--set=train.batch_size=4", "--init=supernet", "--out=here")
    assert done.code == 2
    assert "10 classes, the data set has 2" in done.said
    assert "--init fresh" in done.said
    assert not Path("here").exists()


def test_a_search_on_other_data_helps_too(
    nasaug: Nasaug, searched: Path, image_folder: Callable[..., Path]
) -> None:
    image_folder("pets")
    options = ["--target=micro_10k", "--data=imagefolder:pets", "--epochs=1", "--json"]
    sets = ["data.workers=0", "train.batch_size=4", "train.warmup_epochs=0", "train.bn_images=8"]
    done = nasaug("train", *options, *(f"--set={key}" for key in sets), "--out=here")
    assert done.code == 0
    assert "searched/best.json" in done.said
    assert done.json["macs"] == macs(load_target("micro_10k", 2))
    assert done.json["top5"] == 1


def test_a_proxy_resolution_is_said(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--set=train.resolution=20", "--out=here", "--json")
    assert "shown at 20 x 20 (a proxy; costs are counted at 28 x 28)" in done.said
    assert (done.json["resolution"], done.json["train_resolution"]) == (28, 20)
    assert done.json["macs"] == 336_144


def test_metrics_for_tensorboard(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--set=tensorboard=true", "--out=here", "--method=baseline")
    assert done.code == 0
    assert list(Path("here/tensorboard").glob("events.*"))


def _search_like(searched: Path, name: str, age: float, **changes: Any) -> None:
    """A copy of a search, its result changed and `age` seconds older."""
    copy = searched.parent / name
    shutil.copytree(searched, copy)
    facts = json.loads((searched / "best.json").read_text())
    (copy / "best.json").write_text(json.dumps({**facts, **changes}))
    now = (searched / "best.json").stat().st_mtime
    os.utime(copy / "best.json", (now - age, now - age))


def _by_hand(net: Network, rows: Any) -> torch.Tensor:
    """The stem's and the first block's depthwise weights, of the target's channels and kernel."""
    state = net.state_dict()
    stem = state["blocks.0.conv.weight"][: rows[0].out]
    depthwise = state["blocks.1.depthwise.weight"][: rows[0].out]
    edge = (depthwise.shape[-1] - rows[1].kernel) // 2
    size = rows[1].kernel
    centre = depthwise[..., edge : edge + size, edge : edge + size]
    return torch.cat([stem.flatten(), centre.flatten()])
