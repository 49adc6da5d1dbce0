"""What only a GPU can show. Skipped where torch sees none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.__main__ import run
from nasaug.netaug import (
    Augmentation,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    training_step,
)
from nasaug.search import SupernetOptions, supernet_step
from nasaug.supernet import Architecture, Network, SearchSpace, load_target, published_factors
from nasaug.training import Recipe, RunFolder, Step, View, fit, load_dataset, training_batches
from nasaug.training.replays import Replays

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

QUICK = (
    "--target=micro_10k",
    "--data=fashion-mnist-mini",
    "--set=in_channels=1",
    "--set=train.batch_size=64",
    "--set=train.bn_images=128",
    "--set=train.warmup_epochs=0",
    "--epochs=1",
    "--device=cuda",
)
RECIPE = Recipe(epochs=1, warmup_epochs=0, batch_size=512, lr=0.01, amp="off")
# Measured on a CPU: bfloat16's rounding comes to 0.12 at most, other paths to 0.5 at least.
APART = 0.2
METHODS: dict[str, Sequence[str]] = {
    "baseline": ("--method=baseline",),
    "netaug": ("--method=netaug", "--largest=published"),
    "surgery": ("--method=netaug", "--largest=published", "--set=netaug.mixing=surgery"),
    "separate norms": ("--method=netaug", "--largest=published", "--set=netaug.norms=separate"),
    "small images": ("--method=netaug", "--largest=published", "--set=netaug.resolution=14"),
    "in-place": ("--method=in-place", "--largest=published"),
    "rkd": ("--method=rkd", "--largest=published"),
    "netdistiller": ("--method=netdistiller", "--largest=published"),
    "netbooster": ("--method=netbooster",),
    "pruning": ("--method=pruning",),
    "qat": ("--method=qat",),
    "noise": ("--method=baseline", "--set=regularise.dropout=0.1"),
    "mixup": ("--method=baseline", "--set=data.mixup=0.2"),
    "accumulated": ("--method=baseline", "--set=train.accumulate=2"),
    "averaged": ("--method=baseline", "--set=train.ema=0.9"),
    "bf16": ("--method=netaug", "--largest=published", "--set=train.amp=bf16"),
    "full precision": ("--method=netaug", "--largest=published", "--set=train.amp=off"),
}


def _nasaug(*arguments: str) -> None:
    assert run([*arguments]) == 0


def _result(folder: Path) -> dict[str, float]:
    values: dict[str, float] = json.loads((folder / "result.json").read_text())
    return values


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains(name: str, tmp_path: Path) -> None:
    """To about what it comes to without recordings; at the same MACs."""
    for graphs in ("off", "null"):
        out = tmp_path / graphs
        _nasaug("train", *QUICK, *METHODS[name], f"--set=train.graphs={graphs}", f"--out={out}")
    eager, replayed = _result(tmp_path / "off"), _result(tmp_path / "null")
    assert eager["train_macs"] == replayed["train_macs"]
    assert replayed["validation_top1"] > 0.3
    assert replayed["validation_top1"] == pytest.approx(eager["validation_top1"], abs=0.12)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one whenever something is recorded."""
    found: list[object] = []
    record = Replays._recorded

    def counted(self: Replays, *about: Any) -> Any:
        found.append(about)
        return record(self, *about)

    monkeypatch.setattr(Replays, "_recorded", counted)
    return found


def _apart(arch: Architecture, step: Step, folder: Path) -> float:
    """How far apart two trainings from the same weights end, launched and played back, as a share
    of how far they go. The rounding of some steps is little; other paths go another way."""
    data, view = load_dataset("fashion-mnist-mini"), View(28, 1, torch.device("cuda"))
    moved = []
    for graphs in ("off", None):
        recipe = RECIPE.model_copy(update={"graphs": graphs})
        net = Network(arch, generator=torch.Generator().manual_seed(0)).cuda()
        before = [parameter.detach().clone() for parameter in net.parameters()]
        batches = training_batches(data, view, 512, 0)
        fit(net, step, batches, recipe, RunFolder(folder / f"{graphs}"))
        ends = zip(net.parameters(), before, strict=True)
        moved.append(torch.cat([(end - begin).flatten() for end, begin in ends]))
    launched, replayed = moved
    return float((replayed - launched).norm() / launched.norm())


# A lesson of weight 1 is so small here that its lack would not be noticed.
@pytest.mark.parametrize(
    ("augmented", "in_place"), [(False, None), (True, None), (True, InPlaceOptions(weight=10.0))]
)
def test_recordings_compute_what_the_step_does(
    augmented: bool, in_place: InPlaceOptions | None, tmp_path: Path, recorded: list[object]
) -> None:
    target = load_target("micro_10k", num_classes=10, in_channels=1)
    augmentation = Augmentation.by_factors(target, published_factors("micro_10k"))
    # Sorting moves channels by far more than steps do.
    options = NetAugOptions(sort_channels=False)
    parts = Parts(augmentation if augmented else None, options, in_place=in_place)
    arch = augmentation.largest if augmented else target
    assert _apart(arch, training_step(parts), tmp_path) < APART
    assert len(recorded) == 1 + augmented  # the target's pass, and one for all helpers


@pytest.mark.parametrize(
    ("method", "recordings"), [("single-path", 1), ("fair", 1), ("sandwich", 2)]
)
def test_a_supernet_is_played_back(
    method: str, recordings: int, tmp_path: Path, recorded: list[object]
) -> None:
    space = SearchSpace.around(load_target("micro_10k", num_classes=10, in_channels=1))
    step = supernet_step(space, SupernetOptions(method=method))
    assert _apart(space.largest, step, tmp_path) < APART
    assert len(recorded) == recordings


def test_a_teacher_and_a_search(tmp_path: Path) -> None:
    _nasaug("train", *QUICK, "--method=baseline", f"--out={tmp_path / 'teacher'}")
    taught = (*QUICK, "--method=kd", f"--teacher={tmp_path / 'teacher'}")
    _nasaug("train", *taught, f"--out={tmp_path / 'kd'}")
    quick = [each for each in QUICK if not each.startswith("--epochs")]
    _nasaug(
        "search", *quick, "--set=train.epochs=1", "--budget=2M", "--trials=6",
        f"--out={tmp_path / 'search'}",
    )  # fmt: skip
    inside = ("--method=netaug", f"--largest={tmp_path / 'search'}")
    _nasaug("train", *QUICK, *inside, f"--out={tmp_path / 'inside'}")
    assert _result(tmp_path / "inside")["validation_top1"] > 0.3


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    """From a checkpoint in the midst of an epoch, with the recordings made anew."""
    data, view = load_dataset("fashion-mnist-mini"), View(28, 1, torch.device("cuda"))
    target = load_target("micro_10k", num_classes=10, in_channels=1)
    recipe = RECIPE.model_copy(update={"epochs": 2, "checkpoint_every": 7})

    class Stop(Exception):
        pass

    def stop(step: int, *_: object) -> None:
        if step == 18:
            raise Stop

    def train(folder: str, resume: bool = False, stops: bool = False) -> Network:
        net = Network(target, generator=torch.Generator().manual_seed(0)).cuda()
        batches = training_batches(data, view, 512, 0)
        watch = stop if stops else None
        place = RunFolder(tmp_path / folder)
        return fit(net, training_step(Parts()), batches, recipe, place, watch=watch, resume=resume)

    whole = train("whole")
    with pytest.raises(Stop):
        train("broken", stops=True)
    resumed = train("broken", resume=True)
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-3)
