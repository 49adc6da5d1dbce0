"""Going on from a target's weights: inside a larger network, and with numbers as int8 has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.config import load_config
from nasaug.pipelines.plan import make_plan
from nasaug.setting import Setting, prepare
from nasaug.supernet import Bits, Network, load_target
from nasaug.train_config import TrainConfig
from nasaug.training import load_weights, reestimate_batch_norm, save_weights

Nasaug = Callable[..., Any]
FEW = (
    "--target=micro_10k", "--set=in_channels=1", "--data=fashion-mnist-mini",
    "--set=data.per_class=30", "--epochs=2", "--set=train.warmup_epochs=0",
    "--set=train.batch_size=100", "--set=train.bn_images=100", "--json",
)  # fmt: skip
LARGER = "--set=netaug={r: 2, s: 2}"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A finished run's folder with weights of micro_10k."""
    arch = load_target("micro_10k", 10, in_channels=1)
    net = Network(arch, "fan_out", torch.Generator().manual_seed(3))
    (tmp_path / "before").mkdir()
    save_weights(tmp_path / "before" / "weights.safetensors", net)
    return tmp_path / "before"


def _config(**keys: Any) -> TrainConfig:
    given = {"target": "micro_10k", "in_channels": 1, "data.per_class": 30}
    recipe = {"train.batch_size": 100, "train.bn_images": 100, "train.epochs": 2}
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return load_config(TrainConfig, None, (), {**given, **recipe, **dotted})


def _set_up(**keys: Any) -> tuple[Any, Setting]:
    config = _config(**keys)
    setting = prepare(config)
    return make_plan(config, setting, Path("out")), setting


@pytest.mark.parametrize("norms", ["shared", "separate"])
def test_a_larger_network_begins_around_the_targets_weights(before: Path, norms: str) -> None:
    plan, _ = _set_up(method="netaug", largest="published", init=str(before), netaug__norms=norms)
    theirs = load_weights(before / "weights.safetensors").state_dict()
    for name, tensor in plan.net.export(plan.target).state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert plan.augmented and plan.net.arch != load_target("micro_10k", 10, 28, 1)
    assert plan.inside.endswith(f"from the published factors, from the weights of {before}")


def test_channels_that_were_trained_stay_where_they_are(before: Path) -> None:
    """Unless asked; from fresh weights they are sorted as published."""
    start = {"init": str(before)}
    for keys, sorts in (({}, True), (start, False), (start | {"netaug.sort_channels": True}, True)):
        netaug = _config(method="netaug", largest="published", **keys).netaug
        assert netaug is not None and netaug.sort_channels == sorts
    assert _config(method="baseline", **start).netaug is None


def test_rounded_training_ships_float_weights_with_statistics_of_rounded_passes() -> None:
    plan, setting = _set_up(method="qat", quantise__weight_bits=4, quantise__activation_bits=3)
    images = next(iter(setting.calibration()))[0]
    rounded = plan.net.export(plan.target)
    assert not torch.equal(plan.net(images), rounded(images)), "the step is on rounded numbers"
    rounded.round_to(Bits(4, 3))
    assert torch.equal(plan.net(images), rounded(images))
    shipped, used = plan.finished(plan.net, setting.calibration())
    assert used == 100
    reestimate_batch_norm(rounded, setting.calibration())
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(tensor, rounded.state_dict()[name]), name
    rounded.round_to(None)
    assert torch.equal(shipped.eval()(images), rounded.eval()(images)), "shipped, it is float"
    # What is looked at while it trains is what int8 will be.
    seen = plan.exported(plan.net, setting.calibration(), 0.5)[0].eval()
    assert not torch.equal(seen(images), shipped(images))


@pytest.mark.parametrize("method", ["qat", "netaug"])
def test_fine_tuning_for_int8(method: str, before: Path, nasaug: Nasaug) -> None:
    """Alone and with helpers; what is shipped is judged as any weights are."""
    options = ("--method=qat",) if method == "qat" else ("--largest=published", LARGER)
    bits = "--set=quantise.weight_bits=8"
    done = nasaug("train", *FEW, *options, bits, f"--init={before}", "--out=after")
    assert done.code == 0, done.err
    assert ("quantise" in done.json["parts"]) and ("netaug" in done.json["parts"]) == (
        method == "netaug"
    )
    judged = nasaug("evaluate", "after", "--data=fashion-mnist-mini", "--json")
    assert judged.json["top1"] == done.json["top1"]


def test_it_resumes_bit_for_bit(before: Path, whole_and_resumed: Callable[..., Any]) -> None:
    keys = {"init": str(before), "netaug.r": 2, "netaug.s": 2, "quantise.weight_bits": 8}
    config = _config(largest="published", train__checkpoint_every=1, **keys)
    whole, resumed = whole_and_resumed(config)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
