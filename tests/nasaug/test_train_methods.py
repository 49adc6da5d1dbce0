"""`nasaug train` by each named method: what its result, its files and its resumption are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.config import load_config
from nasaug.netaug import METHODS, Augmentation
from nasaug.pipelines.inside import augmentation_for
from nasaug.supernet import Network, load_target, macs, params
from nasaug.train_config import TrainConfig
from nasaug.training import load_weights, save_weights

Nasaug = Callable[..., Any]
WeightsIn = Callable[[Path | str], bytes]
TEACHER = "--teacher=teacher.safetensors"


@pytest.fixture
def teacher(tmp_path: Path) -> None:
    save_weights(tmp_path / "teacher.safetensors", Network(load_target("micro_40k", 10)))


def _options(method: str) -> list[str]:
    """The micro target has no equal rows to share."""
    return [TEACHER] if method == "kd" else []


MICRO = sorted(set(METHODS) - {"unsharing"})


@pytest.mark.parametrize("method", MICRO)
def test_every_method_ends_in_the_target(
    method: str, nasaug: Nasaug, quick: tuple[str, ...], teacher: None, tmp_path: Path
) -> None:
    run = ("train", *quick, "--largest=published", f"--method={method}", *_options(method))
    done = nasaug(*run, "--out=run", "--json")
    assert done.code == 0, done.err
    result = done.json
    target = load_target("micro_10k", 10)
    assert (result["method"], result["macs"], result["params"]) == (
        method,
        macs(target),
        params(target),
    )
    assert load_weights(tmp_path / "run" / "weights.safetensors").arch == target
    augmented = "netaug" in METHODS[method].sections
    assert set(result["scores"]) == ({"target", "largest"} if augmented else {"target"})
    for parts in result["scores"].values():
        assert set(parts) == {"train", "validation", "test"}
    assert result["top1"] == result["scores"]["target"]["test"]["top1"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["diagnosis"] == result["diagnosis"]
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert {"top1_target", "train_top1", "top1", "macs", "seconds"} <= set(row)
    assert row["macs"] == result["train_macs"] > 0
    again = nasaug(*run, "--out=run", "--json", "--resume")
    assert again.json == result


@pytest.mark.parametrize("method", ["rkd", "netdistiller", "netbooster", "pruning", "kd"])
def test_an_interrupted_run_ends_in_the_same_weights(
    method: str, nasaug: Nasaug, quick: tuple[str, ...], teacher: None, weights_in: WeightsIn
) -> None:
    """Interrupted after the second of four steps; noise and moving averages on."""
    sets = ["regularise.dropout=0.2", "regularise.drop_path=0.2", "train.ema=0.9"]
    sets += ["train.checkpoint_every=1", "data.mixup=0.2"]
    run = ["train", *quick, "--largest=published", f"--method={method}", *_options(method)]
    run += [f"--set={key}" for key in sets]
    assert nasaug(*run, "--out=whole").code == 0
    assert nasaug(*run, "--out=part").code == 0
    assert weights_in("whole") == weights_in("part")
    folder = Path("part")
    newest = sorted((folder / "checkpoint").glob("step-*.json"))[-1]
    for ending in (".json", ".safetensors"):
        newest.with_suffix(ending).unlink()
    for name in ("result.json", "weights.safetensors"):
        (folder / name).unlink()
    assert nasaug(*run, "--out=part", "--resume").code == 0
    assert weights_in("whole") == weights_in("part")


def test_pruned_channels_are_gone(nasaug: Nasaug, quick: tuple[str, ...], tmp_path: Path) -> None:
    sets = ["prune.kind=structured", "prune.divisor=1", "prune.begin=0", "prune.until=0.5"]
    sets = [f"--set={key}" for key in sets]
    done = nasaug("train", *quick, "--method=pruning", *sets, "--out=run", "--json")
    assert done.code == 0, done.err
    target = load_target("micro_10k", 10)
    assert done.json["macs"] < 0.8 * macs(target)
    assert done.json["params"] < params(target)
    judged = nasaug("evaluate", "run", *[o for o in quick if o.startswith("--data")], "--json")
    assert judged.json["top1"] == done.json["top1"]
    assert judged.json["macs"] == done.json["macs"]


def test_pruned_weights_are_zero(nasaug: Nasaug, quick: tuple[str, ...], tmp_path: Path) -> None:
    sets = ["--set=prune.begin=0", "--set=prune.until=0.5", "--set=prune.sparsity=0.75"]
    done = nasaug("train", *quick, "--method=pruning", *sets, "--out=run")
    assert done.code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    weights = [p for p in load_weights(tmp_path / "run" / "weights.safetensors").parameters()]
    zeros = sum(int((p == 0).sum()) for p in weights if p.ndim > 1)
    share = zeros / sum(p.numel() for p in weights if p.ndim > 1)
    assert result["sparsity"] == pytest.approx(share)
    assert 0.5 < share < 0.76
    assert f"zero: {100 * share:.1f} % of the weights" in done.said


@pytest.mark.parametrize("flip", ["false", "true"])
def test_soft_labels_are_kept_and_used_again(
    flip: str, nasaug: Nasaug, quick: tuple[str, ...], teacher: None, weights_in: WeightsIn
) -> None:
    still = [f"--set=data.flip={flip}", "--set=data.crop=0", "--set=distill.cache_dir=kept"]
    run = ("train", *quick, "--method=kd", TEACHER, *still)
    assert nasaug(*run, "--out=first").code == 0
    (kept,) = Path("kept").iterdir()
    made = kept.stat().st_mtime_ns
    assert nasaug(*run, "--out=second").code == 0
    assert kept.stat().st_mtime_ns == made
    assert weights_in("first") == weights_in("second")


def test_curves_of_both_networks(nasaug: Nasaug, quick: tuple[str, ...], tmp_path: Path) -> None:
    run = ("train", *quick, "--largest=published", "--set=metrics.curves=both", "--out=run")
    assert nasaug(*run).code == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert {"top1", "train_top1", "largest_top1", "largest_train_top1"} <= set(row)


def test_a_long_tail_is_trained_on_and_balanced_parts_are_judged(
    nasaug: Nasaug, tmp_path: Path
) -> None:
    done = nasaug(
        "train", "--target=micro_10k", "--epochs=1", "--set=data.imbalance=50", "--out=run",
        "--set=train.batch_size=256", "--largest=published", "--json",
    )  # fmt: skip
    assert done.code == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["target"]
    assert len(set(metrics["test"]["support"])) == 1
    assert metrics["train"]["support"][0] > 10 * max(1, metrics["train"]["support"][-1])


def _inside(*sets: str) -> Augmentation:
    config = load_config(TrainConfig, None, sets, {"target": "micro_10k", "largest": "published"})
    found = augmentation_for(config, load_target("micro_10k", 10), Path("nowhere"))
    assert found is not None
    return found.augmentation


def test_factors_kernels_and_depth_make_the_largest() -> None:
    kinds = {
        "netaug.r=2": {"width", "expand"},
        "netaug.kernel_growth=[0,2]": {"kernel"},
        "netaug.extra_depth=[0,1]": {"present"},
    }
    for key, expected in kinds.items():
        ones = ["netaug.width=[1.0]", "netaug.expand=[1.0]"] if "r=" not in key else ["netaug.s=2"]
        space = _inside(key, *ones).helpers
        assert {name.rpartition(".")[2] for name in space.decisions} == expected
        assert macs(space.largest) > macs(space.target)
    steps = _inside("netaug.r=3", "netaug.s=2", "netaug.divisor=1").helpers.decisions
    assert steps["stem.width"] == (8, 16, 24)


def test_kernels_of_a_searched_network_are_its_own(
    nasaug: Nasaug, searched: Path, quick: tuple[str, ...]
) -> None:
    largest = f"--largest={searched}"
    done = nasaug("train", *quick, largest, "--set=netaug.kernel_growth=[0,2]")
    assert done.code == 2
    assert "has kernels and depth of its own" in done.said


def test_unsharing_trains_where_rows_repeat(nasaug: Nasaug, tmp_path: Path) -> None:
    block = "kernel: 3, stride: 1, mid: 16, out: 8, act: relu, skip: true"
    row = f"  - {{kind: inverted_residual, {block}}}\n"
    (tmp_path / "mine.yaml").write_text(
        "resolution: 16\nin_channels: 1\nrows:\n"
        "  - {kind: conv, kernel: 3, stride: 2, out: 8, act: relu}\n"
        + 3 * row
        + "  - {kind: global_avg_pool}\n  - {kind: linear, out: 10}\n"
    )
    run = ("train", "--target=mine.yaml", "--method=unsharing", "--set=train.batch_size=512")
    done = nasaug(*run, "--epochs=1", "--set=unshare.until=0.95", "--out=shared")
    assert done.code == 0, done.err
    net = load_weights(tmp_path / "shared" / "weights.safetensors")
    first, second = (net.get_parameter(f"blocks.{i}.expand.weight") for i in (1, 2))
    # Two epochs of fifteen steps: the last of them alone is not shared.
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.05, rtol=0.2)
