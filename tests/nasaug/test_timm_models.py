"""Our targets as timm's models: the same numbers, and what timm's programs ask of a model."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from nasaug.supernet import (
    ElasticNorm,
    Network,
    boost,
    load_target,
    load_torchvision,
    target_names,
)
from nasaug.training import save_weights

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
timm_models = importlib.import_module("nasaug.timm_models")

FACTS = {"resolution": 28, "mean": [0.3], "std": [0.4], "classes": [f"c{i}" for i in range(7)]}


def _network(name: str, classes: int = 7, in_channels: int = 3) -> Network:
    """With random weights and batch-norm statistics."""
    generator = torch.Generator().manual_seed(1)
    net = Network(load_target(name, classes, in_channels=in_channels), "fan_out", generator)
    for module in net.modules():
        if isinstance(module, ElasticNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return net.eval()


def _images(channels: int = 3, size: int = 32, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, size, size, generator=generator)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights.safetensors of micro_10k with 7 classes that reads 1 channel."""
    path = tmp_path / "weights.safetensors"
    save_weights(path, _network("micro_10k", in_channels=1), {"target": "micro_10k", **FACTS})
    return path


def test_every_target_is_listed() -> None:
    assert set(timm.list_models("nasaug_*")) == {f"nasaug_{name}" for name in target_names()}
    assert set(timm_models.MODELS) == set(timm.list_models("nasaug_*"))


@pytest.mark.parametrize("name", target_names())
def test_it_computes_what_the_network_computes(name: str, tmp_path: Path) -> None:
    net, file = _network(name), tmp_path / "weights.safetensors"
    save_weights(file, net)
    model = timm.create_model(f"nasaug_{name}", num_classes=7, checkpoint_path=str(file)).eval()
    images = _images(size=64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), net(images))
        maps = model.forward_features(images)
        assert maps.shape[1] == model.num_features
        read = model.forward_head(maps, pre_logits=True)
        assert read.shape == (2, model.head_hidden_size)
        torch.testing.assert_close(read, net.outputs(images).embedding)
    assert model.get_classifier().weight.shape == (7, model.head_hidden_size)


def test_running_statistics_move_as_torchvisions_do() -> None:
    """Three training steps of the same network as torchvision builds it."""
    theirs = models.mobilenet_v2(num_classes=7, width_mult=0.35, dropout=0.0)
    ours = timm.create_model("nasaug_mbv2_w035", num_classes=7)
    ours.load_state_dict(load_torchvision(theirs.state_dict(), "mobilenet_v2").state_dict())
    for net in (theirs, ours):
        optimizer = torch.optim.SGD(net.train().parameters(), 0.01)
        for _ in range(3):
            loss = nn.functional.cross_entropy(net(_images(size=64, count=4)), torch.arange(4))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    moved = load_torchvision(theirs.state_dict(), "mobilenet_v2").state_dict()
    found = ours.state_dict()
    for name, tensor in moved.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    assert found["blocks.0.conv.norm.num_batches_tracked"] == 3
    assert found["blocks.0.conv.norm.running_mean"].abs().sum() > 0


def test_batch_norms_are_torchs_own() -> None:
    model = timm.create_model("nasaug_micro_3k", num_classes=7)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()
    kinds = {type(module) for module in synchronised.modules()}
    assert nn.SyncBatchNorm in kinds
    assert ElasticNorm not in kinds
    assert synchronised(_images()).shape == (2, 7)


def test_pretrained_from_our_file(weights: Path) -> None:
    overlay = {"file": str(weights)}
    model = timm.create_model(
        "nasaug_micro_10k", pretrained=True, pretrained_cfg_overlay=overlay
    ).eval()
    cfg = model.pretrained_cfg
    assert cfg["input_size"] == (1, 28, 28)
    assert (cfg["mean"], cfg["std"], cfg["num_classes"]) == ((0.3,), (0.4,), 7)
    assert cfg["label_names"] == tuple(FACTS["classes"])
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.3,)
    with torch.no_grad():
        expected = _network("micro_10k", in_channels=1)(_images(1))
        torch.testing.assert_close(model(_images(1)), expected)


def test_pretrained_with_another_head_and_other_channels(weights: Path) -> None:
    model = timm.create_model(
        "nasaug_micro_10k",
        pretrained=True,
        pretrained_cfg={"file": str(weights), "first_conv": "blocks.0.conv",
                        "classifier": "blocks.8.linear"},
        num_classes=3,
        in_chans=3,
    ).eval()  # fmt: skip
    net = _network("micro_10k", in_channels=1)
    grey = _images(1)
    with torch.no_grad():
        assert model(grey.expand(-1, 3, -1, -1)).shape == (2, 3)
        # timm spreads the one channel's weights over three.
        found = model.forward_features(grey.expand(-1, 3, -1, -1)).mean((2, 3))
        torch.testing.assert_close(found, net.outputs(grey).embedding)


def test_what_timm_saved_is_loaded_again(tmp_path: Path, weights: Path) -> None:
    model = timm.create_model(
        "nasaug_micro_10k", num_classes=7, in_chans=1, checkpoint_path=str(weights)
    )
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    for name in ("last.pth.tar", "model.safetensors"):
        again = timm.create_model(
            "nasaug_micro_10k", pretrained=True, num_classes=7, in_chans=1,
            pretrained_cfg_overlay={"file": str(tmp_path / name), "num_classes": 7,
                                    "input_size": (1, 28, 28)},
        )  # fmt: skip
        assert all(torch.equal(again.state_dict()[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "theirs"), [("mbv2_w035", "mobilenetv2_035"), ("resnet50", "resnet50")]
)
def test_feature_maps_are_where_timms_own_are(name: str, theirs: str) -> None:
    ours, reference = (
        timm.create_model(model, features_only=True) for model in (f"nasaug_{name}", theirs)
    )
    assert ours.feature_info.channels() == reference.feature_info.channels()
    assert ours.feature_info.reduction() == reference.feature_info.reduction()
    with torch.no_grad():
        pairs = zip(ours(_images(size=64)), reference(_images(size=64)), strict=True)
        assert all(mine.shape == other.shape for mine, other in pairs)


@pytest.mark.parametrize("name", target_names())
def test_feature_maps_have_the_channels_and_strides_that_they_say(name: str) -> None:
    model = timm.create_model(f"nasaug_{name}", features_only=True).eval()
    info = model.feature_info
    assert info.reduction() == sorted(set(info.reduction()))
    with torch.no_grad():
        maps = model(_images(size=64))
    found = [(m.shape[1], 64 // m.shape[2], 64 // m.shape[3]) for m in maps]
    assert found == [(c, r, r) for c, r in zip(info.channels(), info.reduction(), strict=True)]


def test_chosen_feature_maps_from_a_file(weights: Path) -> None:
    net = _network("micro_10k", in_channels=1)
    for indices, rows in (((1, 2), [3, 5]), ((-1, 0), [5, 1]), (2, [3, 5])):
        model = timm.create_model(
            "nasaug_micro_10k", num_classes=10, in_chans=1, features_only=True,
            out_indices=indices, pretrained=False, checkpoint_path=str(weights),
        ).eval()  # fmt: skip
        assert len(model.blocks) == max(rows) + 1, "what no map needs is not kept"
        with torch.no_grad():
            expected = {row: net.feature_maps(_images(1), [row])[0] for row in rows}
            for row, found in zip(rows, model(_images(1)), strict=True):
                torch.testing.assert_close(found, expected[row])


def test_intermediates_are_the_feature_maps() -> None:
    model = timm.create_model("nasaug_micro_10k").eval()
    maps = timm.create_model("nasaug_micro_10k", features_only=True).eval()
    maps.load_state_dict(model.state_dict())
    with torch.no_grad():
        last, found = model.forward_intermediates(_images())
        early = model.forward_intermediates(
            _images(), indices=2, intermediates_only=True, stop_early=True
        )
        assert torch.equal(last, model.forward_features(_images()))
        for one, other in zip(found, maps(_images()), strict=True):
            assert torch.equal(one, other)
        assert [m.shape for m in early] == [m.shape for m in found[1:]]


@pytest.mark.parametrize(
    ("pool", "reference"),
    [
        ("avg", lambda x: x.mean((2, 3))),
        ("max", lambda x: x.amax((2, 3))),
        ("avgmax", lambda x: (x.mean((2, 3)) + x.amax((2, 3))) / 2),
        ("catavgmax", lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)),
    ],
)
def test_pooling(pool: str, reference: Callable[[Tensor], Tensor]) -> None:
    model = timm.create_model("nasaug_micro_10k", num_classes=7, global_pool=pool).eval()
    with torch.no_grad():
        read = reference(model.forward_features(_images()))
        assert read.shape[1] == model.head_hidden_size
        torch.testing.assert_close(model(_images()), model.get_classifier()(read))


def test_the_classifier_is_reset_and_taken_away() -> None:
    model = timm.create_model("nasaug_mbv3_w035", num_classes=7).eval()
    model.reset_classifier(3)
    assert model(_images(size=64)).shape == (2, 3)
    assert (model.num_classes, model.global_pool.pool_type) == (3, "avg")
    model.reset_classifier(0, "max")
    assert model(_images(size=64)).shape == (2, 1280)
    model.reset_classifier(0, "")
    assert model(_images(size=64)).shape == (2, 1280, 2, 2)
    bare = timm.create_model("nasaug_micro_10k", num_classes=0, global_pool="")
    assert bare(_images()).shape == (2, 64, 4, 4)


def test_dropout_and_recomputed_gradients() -> None:
    model = timm.create_model("nasaug_micro_10k", num_classes=7, drop_rate=0.5)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(_images()), model(_images()))
    model.drop_rate = 0.0
    gradients = []
    for recomputed in (False, True):
        model.set_grad_checkpointing(recomputed)
        model.zero_grad()
        model(_images()).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_layers_are_grouped_by_depth() -> None:
    model = timm.create_model("nasaug_micro_10k")
    matcher = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert set(matcher) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_stride": 16}, "output_stride of micro_10k is 8, .* but got 16"),
        ({"features_only": True, "output_stride": 16}, "output_stride of micro_10k is 8"),
        ({"global_pool": "agv"}, "unknown global_pool 'agv': did you mean 'avg'"),
        ({"global_pool": ""}, "there is no classifier; use num_classes=0"),
        ({"in_chans": 4}, "in_channels must be"),
        ({"features_only": True, "out_indices": (1, 3)}, "3 feature maps, 0 to 2, .* asks for 3"),
        ({"features_only": True, "out_indices": 4}, "asks for -4"),
        ({"features_only": True, "out_indices": ()}, "asks for none"),
    ],
)
def test_what_a_target_cannot_have(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        timm.create_model("nasaug_micro_10k", **options)


def test_twice_as_wide_a_pooling_before_a_convolution() -> None:
    with pytest.raises(ValueError, match="catavgmax is twice as wide"):
        timm.create_model("nasaug_mbv3_w035", global_pool="catavgmax")


def test_its_own_output_stride_and_the_wrong_format() -> None:
    model = timm.create_model("nasaug_micro_10k", output_stride=8)
    with pytest.raises(ValueError, match="output_fmt must be NCHW, but got 'NLC'"):
        model.forward_intermediates(_images(), output_fmt="NLC")


def test_weights_of_another_target_are_refused(weights: Path, tmp_path: Path) -> None:
    overlay = {"file": str(weights)}
    with pytest.raises(ValueError, match="holds micro_10k, not mcunet; create nasaug_micro_10k"):
        timm.create_model("nasaug_mcunet", pretrained=True, pretrained_cfg_overlay=overlay)
    with pytest.raises(RuntimeError, match="loading state_dict"):
        timm.create_model("nasaug_mcunet", checkpoint_path=str(weights))
    with pytest.raises(RuntimeError, match=r"size mismatch for blocks\.8\.linear\.weight"):
        timm.create_model("nasaug_micro_10k", in_chans=1, checkpoint_path=str(weights))
    foreign = tmp_path / "foreign.pth"
    torch.save({"conv.weight": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match=r"not of nasaug_micro_10k: missing .*unknown conv\.weig"):
        timm.create_model(
            "nasaug_micro_10k", pretrained=True, num_classes=3,
            pretrained_cfg_overlay={"file": str(foreign)},
        )  # fmt: skip
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        timm.create_model("nasaug_micro_10k", pretrained=True, pretrained_cfg_overlay=overlay)


def test_the_example_of_the_docs_prints_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "interoperability.md").read_text("utf-8")
    match = re.search(
        r"```python\n(import timm\n.*?)```\n\nprints\n\n```\n(.*?)```", page, re.DOTALL
    )
    assert match is not None
    exec(match[1], {})
    assert capsys.readouterr().out == match[2]


def test_a_boosted_row_has_no_plain_form() -> None:
    from nasaug.plain_network import plain_blocks

    with pytest.raises(ValueError, match="is boosted, which is a network in training"):
        plain_blocks(boost(load_target("micro_10k"), 2, 1).rows, 3)


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models", None)
    monkeypatch.delitem(sys.modules, "nasaug.timm_models")
    with pytest.raises(ImportError, match=r"run pip install 'nasaug\[timm\]'"):
        importlib.import_module("nasaug.timm_models")
