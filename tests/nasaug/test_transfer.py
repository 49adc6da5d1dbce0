"""Transfer: training from other weights, with a head for other classes, or the head alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.config import load_config
from nasaug.pipelines.plan import Plan, make_plan
from nasaug.setting import Setting, prepare
from nasaug.supernet import Network, load_published, load_target
from nasaug.train_config import TrainConfig
from nasaug.training import RunFolder, State, fit, load_weights, save_weights

Nasaug = Callable[..., Any]
GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "mbv2_tiny.json"
SECOND = ("--data=fashion-mnist-mini-second", "--set=data.per_class=40")
# 200 images of five classes, two steps an epoch.
FEW = (
    "--target=micro_10k", "--method=baseline", "--set=in_channels=1", *SECOND, "--epochs=2",
    "--set=train.warmup_epochs=0", "--set=train.batch_size=100", "--set=train.bn_images=100",
)  # fmt: skip
STATISTICS = ("running_mean", "running_var")


def _with_statistics(net: Network) -> Network:
    """Running statistics as no fresh network has them."""
    generator = torch.Generator().manual_seed(9)
    for name, tensor in net.state_dict().items():
        if name.endswith(STATISTICS):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return net


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A finished run's folder with weights of micro_10k for ten classes of grey images."""
    arch = load_target("micro_10k", 10, in_channels=1)
    net = _with_statistics(Network(arch, "fan_out", torch.Generator().manual_seed(3)))
    (tmp_path / "before").mkdir()
    save_weights(tmp_path / "before" / "weights.safetensors", net)
    return tmp_path / "before"


def _config(**keys: Any) -> TrainConfig:
    given = {"target": "micro_10k", "method": "baseline", "in_channels": 1}
    few = {"data.name": "fashion-mnist-mini-second", "data.per_class": 40}
    recipe = {"train.epochs": 2, "train.warmup_epochs": 0, "train.batch_size": 100}
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return load_config(TrainConfig, None, (), {**given, **few, **recipe, **dotted})


def _plan(config: TrainConfig) -> tuple[Plan, Setting]:
    setting = prepare(config)
    return make_plan(config, setting, Path("out")), setting


def _is_head(name: str) -> bool:
    return name.startswith("blocks.8.")


def test_other_classes_get_a_new_head_on_the_features(before: Path) -> None:
    """The head is that of a fresh network of the run's seed; all else is theirs."""
    theirs = load_weights(before / "weights.safetensors").state_dict()
    heads = []
    for seed in (0, 1):
        config = _config(init=str(before), seed=seed)
        plan, setting = _plan(config)
        fresh = _plan(_config(seed=seed))[0].net.state_dict()
        for name, tensor in plan.net.state_dict().items():
            assert torch.equal(tensor, fresh[name] if _is_head(name) else theirs[name]), name
        assert plan.net.arch == setting.target
        said = f"from the weights of {before}, with a new head for 5 classes in place of 10"
        assert plan.inside == f"micro_10k alone, {said}"
        heads.append(plan.net.state_dict()["blocks.8.linear.weight"])
    assert heads[0].shape == (5, 64) and not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize(
    ("names", "new"),
    [
        (None, False),
        (["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"], False),
        (["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"], True),
        (["Shirt", "Sandal", "Sneaker", "Bag", "Ankle boot"], True),
    ],
)
def test_as_many_classes_keep_the_head_unless_the_run_says_that_they_are_others(
    names: list[str] | None, new: bool, before: Path
) -> None:
    arch = load_target("micro_10k", 5, in_channels=1)
    theirs = Network(arch, "fan_out", torch.Generator().manual_seed(3))
    save_weights(before / "weights.safetensors", theirs)
    if names is not None:
        (before / "metrics.json").write_text(json.dumps({"classes": names}))
    plan, _ = _plan(_config(init=str(before)))
    assert ("with a new head for 5 classes in place of 5 others" in plan.inside) == new
    head = "blocks.8.linear.weight"
    assert torch.equal(plan.net.state_dict()[head], theirs.state_dict()[head]) != new


def test_a_new_head_is_said_aloud_and_shipped(before: Path, nasaug: Nasaug) -> None:
    done = nasaug("train", *FEW, f"--init={before}", "--out=after", "--json")
    assert done.code == 0, done.err
    assert "200 training, 450 validation, 1,000 test images of 5 classes" in done.said
    assert "with a new head for 5 classes in place of 10" in done.said
    assert "a new head for 5 classes in place of 10" in done.json["inside"]
    assert done.json["bn_images"] == 100
    assert load_weights(Path("after/weights.safetensors")).arch.num_classes == 5
    judged = nasaug("evaluate", "after", "--data=fashion-mnist-mini-second", "--json")
    assert judged.json["top1"] == done.json["top1"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint by the authors' parameter names: mbv2_tiny, ten classes."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, list[int]] = json.loads(GOLDEN.read_text())["state_dict"]
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    torch.save({"state_dict": tensors}, tmp_path / "authors.pth")
    return tmp_path / "authors.pth"


def _init_of(path: Path, target: str, classes: int) -> Network:
    from nasaug.pipelines.starting import started_from

    generator = torch.Generator().manual_seed(0)
    names = [str(label) for label in range(classes)]
    return started_from(str(path), load_target(target, classes), names, generator).net


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_the_authors_checkpoints_are_a_start_too(published: Path) -> None:
    theirs = load_published(published, load_target("mbv2_tiny", 10)).state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in _init_of(published, "mbv2_tiny", 10)
               .state_dict().items())  # fmt: skip
    ours = _init_of(published, "mbv2_tiny", 37).state_dict()
    other = {name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])}
    head = {name for name in ours if ".linear." in name}
    assert other == head and ours[min(head)].shape[0] == 37


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_checkpoint_of_another_network_is_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the checkpoint is not of mcunet"):
        _init_of(published, "mcunet", 37)
    torch.save({"state_dict": 5}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="is not a mapping of names to tensors"):
        _init_of(tmp_path / "odd.pth", "mbv2_tiny", 37)
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"bad\.pth"):
        _init_of(tmp_path / "bad.pth", "mbv2_tiny", 37)


def test_only_the_classes_may_differ(before: Path, tmp_path: Path) -> None:
    """Of the same rows but one: named. Of other channels: said so."""
    with pytest.raises(ValueError, match="the weights are not of micro_40k, but of micro_10k"):
        _plan(_config(init=str(before), target="micro_40k"))
    with pytest.raises(ValueError, match="they read 1 channels, not 3"):
        _plan(_config(init=str(before), in_channels=3))


@pytest.mark.parametrize("more", [(), ("train.ema=0.6", "regularise.dropout=0.3")])
def test_head_alone_leaves_the_features_bit_for_bit(
    more: tuple[str, ...], before: Path, nasaug: Nasaug
) -> None:
    """Weights and batch norm's statistics; the head is trained, from one seed to the same."""
    sets = [f"--set={text}" for text in ("tune=head", "train.lr=1", *more)]
    done = nasaug("train", *FEW, *sets, f"--init={before}", "--out=after", "--json")
    assert done.code == 0, done.err
    assert "new head for 5 classes in place of 10; of it the head alone" in done.said
    assert done.json["bn_images"] == 0
    theirs = load_weights(before / "weights.safetensors").state_dict()
    ours = load_weights(Path("after/weights.safetensors")).state_dict()
    for name, tensor in ours.items():
        assert _is_head(name) or torch.equal(tensor, theirs[name]), name
    start = _plan(_config(init=str(before)))[0].net.state_dict()
    moved = {name for name, tensor in ours.items() if not torch.equal(tensor, start[name])}
    assert moved == {"blocks.8.linear.weight", "blocks.8.linear.bias"}


def test_head_alone_trains_on_what_the_shipped_network_reads(before: Path) -> None:
    """The loss of a training step is that of the network in eval mode, which has its statistics."""
    config = _config(init=str(before), tune="head")
    plan, setting = _plan(config)
    batch = next(setting.training.epoch(0))
    state = State(config.train, 0, 4, 2, 0, nullcontext, list)
    net = plan.net.train()
    loss = plan.step(net, batch, state)["target"]
    shipped = Network(net.arch, init=None)
    shipped.load_state_dict(net.state_dict())
    logits = shipped.eval()(batch[0]).detach()
    assert float(loss) == pytest.approx(
        float(F.cross_entropy(logits, batch[1], label_smoothing=0.1))
    )
    trained = net.train()(batch[0])
    assert not torch.allclose(trained, logits, atol=0.1)
    with_gradient = {n for n, p in net.named_parameters() if p.grad is not None}
    assert with_gradient == {"blocks.8.linear.weight", "blocks.8.linear.bias"}


def test_head_alone_resumes_bit_for_bit(
    before: Path, whole_and_resumed: Callable[..., Any]
) -> None:
    config = _config(init=str(before), tune="head", train__checkpoint_every=1)
    whole, resumed = whole_and_resumed(config)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_the_heads_learning_rate_reaches_the_training(before: Path, tmp_path: Path) -> None:
    """One step of plain descent: the head moves five times as far, the features as before."""
    moved: list[dict[str, Tensor]] = []
    for factor in (1.0, 5.0):
        plain = {"train__momentum": 0.0, "train__weight_decay": 0.0, "train__lr": 0.01}
        keys = {**plain, "train__batch_size": 200, "train__epochs": 1, "init": str(before)}
        config = _config(**keys, train__head_lr_factor=factor)
        plan, setting = _plan(config)
        start = {name: p.detach().clone() for name, p in plan.net.named_parameters()}
        run = RunFolder(tmp_path / f"run{factor}")
        net = fit(plan.net, plan.step, setting.training, config.train, run)
        moved.append({name: p.detach() - start[name] for name, p in net.named_parameters()})
    assert any(change.abs().max() > 0 for change in moved[0].values())
    for name, change in moved[0].items():
        torch.testing.assert_close(
            moved[1][name], (5 if _is_head(name) else 1) * change, rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set=tune=head",), ["tune=head trains the classifier", "there is no --init"]),
        (("--set=tune=heads",), ["tune must be 'all' or 'head'", "heads"]),
        (
            ("--init=before", "--set=tune=head", "--set=prune.kind=structured"),
            ["prune acts on the features, which tune=head keeps", "use tune=all"],
        ),
        (
            ("--init=before", "--set=tune=head", "--set=unshare.until=0.5"),
            ["unshare acts on the features"],
        ),
        (
            ("--init=before", "--set=tune=head", "--set=regularise.drop_path=0.1"),
            ["regularise.drop_path acts on the features"],
        ),
        (
            ("--init=before", "--set=tune=head", "--set=regularise.drop_block=0.1"),
            ["regularise.drop_block acts on the features"],
        ),
        (
            ("--init=before", "--method=netaug", "--set=tune=head"),
            ["tune=head keeps the features", "method netaug trains them in a larger network"],
        ),
        (
            ("--init=before", "--method=netaug", "--set=netaug.init=supernet"),
            ["both say where weights start"],
        ),
    ],
)
def test_what_does_not_go_with_the_head_alone(
    options: tuple[str, ...], words: list[str], before: Path, nasaug: Nasaug
) -> None:
    done = nasaug("train", *FEW, "--out=out", *options)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert not Path("out").exists()


def test_a_table_of_images_is_trained_on_and_judged(
    nasaug: Nasaug, image_folder: Callable[..., Path]
) -> None:
    """The test images of `evaluate` are those of `train`, whatever its validation share."""
    folder = image_folder("pets", count=20)
    shutil.rmtree(folder / "test")
    paths = sorted((folder / "train").rglob("*.png"))
    lines = [f"{path.relative_to(folder)},{path.parent.name}\n" for path in paths]
    (folder / "pets.csv").write_text("path,label\n" + "".join(lines))
    options = ("--target=micro_10k", "--method=baseline", f"--data=csv:{folder}/pets.csv")
    few = ("--epochs=1", "--set=train.batch_size=8", "--set=data.workers=0")
    more = ("--set=data.validation=0.3", "--set=train.resolution=28", "--out=out", "--json")
    done = nasaug("train", *options, *few, *more)
    assert done.code == 0, done.err
    assert "22 training, 10 validation, 8 test images of 2 classes" in done.said
    judged = nasaug("evaluate", "out", options[-1], "--json")
    assert judged.json["top1"] == done.json["top1"]
    assert judged.json["loss"] == pytest.approx(done.json["loss"])
