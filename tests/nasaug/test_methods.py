"""What goes together: every legal pair of parts trains, every other is refused with its reason."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.config import load_config
from nasaug.netaug import METHODS, PARTS, REFUSED, check_parts, refusal
from nasaug.pipelines.methods import as_markdown
from nasaug.pipelines.plan import make_plan
from nasaug.setting import Setting, prepare
from nasaug.supernet import Network, SearchSpace, load_target, macs
from nasaug.train_config import TrainConfig
from nasaug.training import Dataset, fit, load_dataset, save_weights
from nasaug.workspace import begin_run

Nasaug = Callable[..., Any]
DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
# Equal rows in a stage, for unsharing; few channels, for speed.
TARGET = """
resolution: 16
in_channels: 1
rows:
  - {kind: conv, kernel: 3, stride: 2, out: 8, act: relu6}
  - {kind: inverted_residual, kernel: 3, stride: 2, mid: 16, out: 8, act: relu6, skip: false}
  - {kind: inverted_residual, kernel: 3, stride: 1, mid: 16, out: 8, act: relu6, skip: true}
  - {kind: inverted_residual, kernel: 3, stride: 1, mid: 16, out: 8, act: relu6, skip: true}
  - {kind: conv, kernel: 1, stride: 1, out: 16, act: relu6}
  - {kind: global_avg_pool}
  - {kind: linear, out: 10}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target, images of it, a search's result with its supernet, and a teacher."""
    place = tmp_path_factory.mktemp("place")
    (place / "tiny.yaml").write_text(TARGET)
    target = load_target(str(place / "tiny.yaml"), 10)
    space = SearchSpace.around(target)
    (place / "supernet").mkdir()
    save_weights(place / "supernet" / "weights.safetensors", Network(space.largest.canonical()))
    found = {
        "target": str(place / "tiny.yaml"),
        "architecture": space.largest.to_dict(),
        "macs": macs(space.largest),
        "budget_macs": macs(space.largest),
    }
    (place / "best.json").write_text(json.dumps(found))
    save_weights(place / "teacher.safetensors", Network(target))
    return place


@pytest.fixture
def _sixteen_images(monkeypatch: pytest.MonkeyPatch, sixteen: Dataset) -> None:
    monkeypatch.setattr("nasaug.setting.load_dataset", lambda *_: sixteen)


@pytest.fixture(scope="module")
def sixteen() -> Dataset:
    """The embedded data set with that many images in every part."""
    data, few = load_dataset("fashion-mnist-mini"), torch.arange(16)
    parts = {name: getattr(data, name).subset(few) for name in ("train", "validation", "test")}
    return replace(data, **parts)


def _keys(place: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    """The configuration that switches on these parts, and what they need, and nothing else."""
    needed = {PARTS[part].needs for part in parts} - {None} - set(parts)
    names = [*sorted(map(str, needed)), *parts]
    augmented = "netaug" in names
    keys: dict[str, Any] = {
        "target": str(place / "tiny.yaml"),
        "method": "netaug" if augmented else "baseline",
        "largest": "published",
        "train.epochs": 2,
        "train.warmup_epochs": 0,
        "train.batch_size": 8,
        "train.bn_images": 16,
        "train.label_smoothing": 0.0,
        "train.lr": 0.01,
    }
    if "supernet weights" in names:
        keys["largest"] = str(place / "best.json")
    if "soft labels" in names:
        keys |= {"data.flip": False, "data.crop": 0.0, "distill.cache_dir": str(place)}
    if augmented and {"structured pruning", "unstructured pruning"} & set(names):
        keys |= {"prune.begin": 0.5, "prune.until": 0.9}
    if "structured pruning" in names:
        keys["prune.divisor"] = 1
    for name in names:
        keys |= PARTS[name].settings
    if "distill.teacher" in keys:
        keys["distill.teacher"] = str(place / "teacher.safetensors")
    return keys


def _train(config: TrainConfig, setting: Setting, folder: Path) -> Network:
    """Two epochs of two steps (one, where batches are accumulated); returns what is shipped."""
    plan = make_plan(config, setting, folder)
    run, lock = begin_run(folder, config)
    with lock:
        calibration = setting.calibration()
        seen: list[Mapping[str, float]] = []
        weights = fit(
            plan.net,
            plan.step,
            setting.training,
            config.train,
            run,
            seed=config.seed,
            validate=lambda net, done: {"images": plan.exported(net, calibration, done)[1]},
            watch=lambda step, steps, values: seen.append(values),
        )
    assert len(seen) == (2 if config.train.accumulate > 1 else 4)
    shipped, images = plan.finished(weights, calibration)
    assert images == 16
    pruned = config.prune is not None and config.prune.kind == "structured"
    assert (macs(shipped.arch) < macs(setting.target)) == pruned
    assert pruned or shipped.arch == setting.target
    return shipped


def _legal(first: str) -> list[str]:
    later = list(PARTS)[list(PARTS).index(first) + 1 :]
    return [second for second in later if refusal(first, second) is None]


@pytest.mark.parametrize("first", PARTS)
def test_every_legal_pair_trains(
    first: str, place: Path, tmp_path: Path, _sixteen_images: None
) -> None:
    """By itself, and with every later part that it goes with."""
    for index, parts in enumerate([(first,), *((first, second) for second in _legal(first))]):
        config = load_config(TrainConfig, None, [], _keys(place, parts))
        assert set(parts) <= set(config.parts()), parts
        setting = prepare(config)
        shipped = _train(config, setting, tmp_path / str(index))
        for images, _ in setting.test():
            assert shipped(images).isfinite().all(), parts


@pytest.mark.parametrize("pair", list(itertools.combinations(PARTS, 2)), ids="-".join)
def test_every_other_pair_is_refused_with_its_reason(pair: tuple[str, str], place: Path) -> None:
    reason = refusal(*pair)
    assert reason == refusal(*reversed(pair))
    if reason is None:
        check_parts([*pair, *(str(PARTS[part].needs) for part in pair if PARTS[part].needs)])
        return
    on = {*pair, *(str(PARTS[part].needs) for part in pair if PARTS[part].needs)}
    with pytest.raises(ValueError, match="do not go together") as caught:
        check_parts(on)
    reasons = {refusal(*two) for two in itertools.combinations(on, 2)} - {None}
    assert any(str(why) in str(caught.value) for why in reasons)


def test_refusals_are_of_parts_that_exist() -> None:
    assert {part for pair in REFUSED for part in pair} <= set(PARTS)
    assert all(len(set(pair)) == 2 for pair in REFUSED)
    assert not any((second, first) in REFUSED for first, second in REFUSED)


ONE_POLICY = ("data.rand_augment=true", "data.auto_augment=true")
TOO_MUCH = ("netaug.r=3", "netaug.s=3", "netaug.width=[1,2]")


@pytest.mark.parametrize(
    ("arguments", "sets", "said"),
    [
        ((), ("boost.ratio=6",), "netaug and boost do not go together: a boosted block"),
        (("--method=baseline",), ("relational.weight=1",), "(relational.weight) needs netaug"),
        (("--method=baseline",), ("netaug.alpha=1",), "trains the target alone"),
        (("--method=rkd", "--largest=none"), (), "relational (relational.weight) needs netaug"),
        (("--method=kd",), (), "distillation needs a teacher; give --teacher"),
        (("--method=netdistill",), (), "did you mean 'netdistiller'"),
        ((), ("netaug.r=0.5", "netaug.s=2"), "netaug.r must be greater than or equal to 1"),
        ((), ("netaug.r=3", "netaug.s=0"), "netaug.s must be greater than or equal to 1"),
        ((), ("netaug.r=3",), "r and s go together"),
        ((), TOO_MUCH, "the one or the other"),
        ((), ("netaug.sampling=largest", "netaug.helpers=2"), "use helpers 1"),
        ((), ("prune.sparsity=0.5", "prune.begin=0.2"), "netaug.width_until 0.5"),
        ((), ("train.batch_size=1",), "train.batch_size must be at least 2"),
        (
            ("--method=rkd",),
            ("train.batch_size=2",),
            "relational distillation needs 3 images at least",
        ),
        ((), ("netaug.r=1", "netaug.s=1"), "there is nothing to train micro_10k in"),
        ((), ("netaug.start=0.9", "netaug.stop=0.9001"), "steps has helpers"),
        ((), ("netaug.width=[]",), "netaug.width must"),
        (("--method=baseline", "--largest=x.json"), (), "trains the target alone; leave it out"),
        (("--method=pruning", "--init=fresh"), (), "leave it out, or use a method with netaug"),
        (("--largest=none", "--init=supernet"), (), "but with --largest none there is none"),
        (("--method=baseline",), ("metrics.curves=both",), "use metrics.curves=target"),
        (("--method=pruning",), ("prune.kind=structured", "prune.divisor=64"), "removes none of"),
        ((), ("netaug.share=0.01",), "batch norm needs 2 images at least, but helpers see 1"),
        ((), ("train.accumulate=1000",), "train.accumulate must be at most"),
        (("--method=netbooster",), ("boost.linear_from=0.9",), "linear_from must be below"),
        ((), ONE_POLICY, "do not go together: each chooses the images' operations"),
        ((), ("regularise.block_size=4",), "block_size must be an odd integer"),
        ((), ("distill.temprature=4",), "did you mean 'distill.temperature'"),
        ((), ("unshare.until=0.5",), "a stage with two equal rows"),
    ],
)
def test_refused_before_training(
    nasaug: Nasaug, arguments: tuple[str, ...], sets: tuple[str, ...], said: str
) -> None:
    keys = [f"--set={key}" for key in sets]
    done = nasaug("train", "--target=micro_10k", "--largest=published", *arguments, *keys)
    assert done.code == 2
    assert said in done.said
    assert not list(Path("runs").glob("*/metrics.jsonl"))


def test_a_teacher_of_other_classes_is_refused(nasaug: Nasaug, tmp_path: Path) -> None:
    save_weights(tmp_path / "t.safetensors", Network(load_target("micro_10k", 7)))
    done = nasaug("train", "--target=micro_10k", "--method=kd", "--teacher=t.safetensors")
    assert done.code == 2
    assert "the data's 10 classes, but t.safetensors has 7" in done.said


def test_a_largest_that_does_not_contain_the_target_names_the_row(
    nasaug: Nasaug, place: Path, tmp_path: Path
) -> None:
    small = load_target("micro_10k", 10).to_dict()
    small["rows"][2]["mid"] -= 1
    facts = {"target": "micro_10k", "architecture": small, "macs": 1, "budget_macs": 1}
    (tmp_path / "best.json").write_text(json.dumps(facts))
    done = nasaug("train", "--target=micro_10k", "--largest=best.json")
    assert done.code == 2
    assert "stage2.block1" in done.said


def test_kept_soft_labels_of_moving_images_are_refused(nasaug: Nasaug, tmp_path: Path) -> None:
    save_weights(tmp_path / "t.safetensors", Network(load_target("micro_10k", 10)))
    done = nasaug(
        "train", "--target=micro_10k", "--method=kd", "--teacher=t.safetensors",
        "--set=distill.cache=always",
    )  # fmt: skip
    assert done.code == 2
    assert "set data.crop=0 (data.flip=false too, for image files)" in done.said


def test_the_tables_are_published(nasaug: Nasaug) -> None:
    done = nasaug("methods", "--markdown")
    assert done.code == 0
    assert done.out == as_markdown()
    assert done.out in DOCS.read_text(encoding="utf-8")


def test_methods_are_listed(nasaug: Nasaug) -> None:
    shown = nasaug("methods").out
    found = nasaug("methods", "--json").json
    assert set(found["methods"]) == set(METHODS)
    assert set(found["parts"]) == set(PARTS)
    pairs = len(PARTS) * (len(PARTS) - 1) // 2
    assert f"Of {pairs} pairs" in shown and f"These {len(found['refused'])} do not" in shown
    for name in (*METHODS, *PARTS):
        assert name in shown


def test_a_method_is_its_sections_and_keys_come_on_top() -> None:
    config = load_config(TrainConfig, None, ["netaug.mixing=mean"], {"method": "netdistiller"})
    assert config.netaug is not None and config.in_place is not None
    assert config.netaug.sampling == "largest" and config.netaug.mixing == "mean"
    assert config.in_place.certainty and config.netaug.width_until == 1.0
    assert load_config(TrainConfig, None, [], {}).method == "netaug"
