"""Outer teachers: our own runs, and torchvision's and timm's classifiers from files."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from nasaug.supernet import Architecture, Network, load_target
from nasaug.training import (
    OuterTeacher,
    Recipe,
    RunFolder,
    State,
    load_teacher,
    reestimate_batch_norm,
    save_weights,
)

CLASSES = 7


@pytest.fixture
def timm() -> ModuleType:
    """The library, where it is installed."""
    return pytest.importorskip("timm")  # type: ignore[no-any-return]


def _state(autocast: Any = nullcontext) -> State:
    return State(Recipe(), 0, 10, 5, 0, autocast, list)


def _images(channels: int = 3, size: int = 32, count: int = 4) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def _lively(net: nn.Module) -> nn.Module:
    """With batch-norm statistics under which the logits differ between images."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(_images(3, 64, 16))
    return net.eval()


def _ours(arch: Architecture, seed: int = 0) -> Network:
    """The same of our own networks, which keep no statistics while they train."""
    net = Network(arch, generator=torch.Generator().manual_seed(seed))
    images = _images(arch.in_channels, 28, 64)
    reestimate_batch_norm(net, [(images, torch.zeros(64))])
    return net.eval()


@pytest.fixture(scope="module")
def mobile() -> nn.Module:
    """A classifier of torchvision with random weights."""
    torch.manual_seed(0)
    return _lively(models.mobilenet_v3_small(num_classes=CLASSES))


@pytest.fixture
def saved(mobile: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "mobile.pth"
    torch.save(mobile.state_dict(), path)
    return path


def _assert_teaches(teacher: OuterTeacher, net: nn.Module, size: int = 32) -> None:
    """The logits of `net` in eval mode for images of 1 and 3 channels."""
    for channels in (1, 3):
        images = _images(channels, size)
        found = teacher(images, _state())
        with torch.no_grad():
            expected = net.eval()(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.dtype == torch.float32
        assert not found.requires_grad
    assert float(expected.std(0).max()) > 1e-4  # it does not say the same of everything


@pytest.mark.parametrize("ending", ["folder", "file"])
def test_run_of_ours_teaches(ending: str, micro: Architecture, run: RunFolder) -> None:
    net = _ours(micro)
    save_weights(run.weights, net)
    spec = str(run.path if ending == "folder" else run.weights)
    teacher = load_teacher(spec, 10, 1, 28)
    images = _images(1, 28)
    with torch.no_grad():
        expected = net(images)
        otherwise = net.train()(images)
    torch.testing.assert_close(teacher(images, _state()), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(otherwise, expected, atol=1e-2)


def test_teacher_of_colour_is_shown_grey_images_three_times_over(
    tmp_path: Path,
) -> None:
    net = _ours(load_target("micro_10k", CLASSES, in_channels=3))
    save_weights(tmp_path / "weights.safetensors", net)
    for channels in (1, 3):
        teacher = load_teacher(str(tmp_path), CLASSES, channels, 32)
        _assert_teaches(teacher, net)


def test_teacher_works_in_the_precision_of_the_run(micro: Architecture, run: RunFolder) -> None:
    save_weights(run.weights, _ours(micro))
    teacher = load_teacher(str(run.path), 10, 1, 28)
    images = _images(1, 28)
    exact = teacher(images, _state())
    rough = teacher(images, _state(lambda: torch.autocast("cpu", torch.bfloat16)))
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max()) < 0.1
    assert torch.equal(teacher.logits(images), exact)


def test_teacher_does_not_learn(saved: Path) -> None:
    teacher = load_teacher(f"torchvision:mobilenet_v3_small@{saved}", CLASSES, 3, 32)
    images = _images().requires_grad_()
    before = teacher.digest()
    assert not teacher(images, _state()).requires_grad
    assert not any(p.requires_grad for p in teacher._net.parameters())
    assert teacher.digest() == before


WRAPPINGS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items()}},
    "doubles": lambda s: {n: t.double() if t.is_floating_point() else t for n, t in s.items()},
    "old": lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_file_of_torch_holds_a_torchvision_teacher(
    wrapping: str, mobile: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "mobile.pth"
    torch.save(WRAPPINGS[wrapping](mobile.state_dict()), path)
    teacher = load_teacher(f"torchvision:mobilenet_v3_small@{path}", CLASSES, 3, 32)
    _assert_teaches(teacher, mobile)


# The first insists on the versions of its modules, the second announces other fresh weights.
@pytest.mark.parametrize("name", ["mnasnet0_5", "googlenet", "mobilenet_v3_small"])
def test_safetensors_file_holds_a_torchvision_teacher(name: str, tmp_path: Path) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    net = _lively(models.get_model(name, weights=None, num_classes=CLASSES, **options))
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(net.state_dict(), path)
    _assert_teaches(load_teacher(f"torchvision:{name}@{path}", CLASSES, 3, 32), net)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_file_holds_a_timm_teacher(
    name: str, ending: str, timm: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = _lively(timm.create_model(name, num_classes=CLASSES))
    path = tmp_path / f"teacher.{ending}"
    save = torch.save if ending == "pth" else safetensors.torch.save_file
    save(net.state_dict(), path)
    _assert_teaches(load_teacher(f"timm:{name}@{path}", CLASSES, 3, 32), net)


def test_loading_leaves_the_global_generator_alone(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_teacher(f"torchvision:mobilenet_v3_small@{saved}", CLASSES, 3, 32)
    assert torch.equal(torch.rand(3), expected)


def test_digest_tells_weights_and_networks_apart(micro: Architecture, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        save_weights(tmp_path / f"{name}.safetensors", _ours(micro, seed))
        digests.append(load_teacher(str(tmp_path / f"{name}.safetensors"), 10, 1, 28).digest())
    assert digests[0] == digests[1] != digests[2]
    # Equal tensors, another network: of what it does with them only its identity tells.
    kept, flat = nn.Linear(3, 2), nn.Linear(3, 2)
    flat.load_state_dict(kept.state_dict())
    found = {OuterTeacher(net, name, 3).digest() for net, name in ((kept, "a"), (flat, "b"))}
    assert len(found) == 2


class TestRefused:
    """Every message: the rule, the value, the remedy."""

    @pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:test_resnet", "timm:resnet18@"])
    def test_teacher_without_weights(self, spec: str) -> None:
        with pytest.raises(
            ValueError, match=r"a teacher needs weights, but .* names none"
        ) as error:
            load_teacher(spec, CLASSES, 3, 32)
        assert repr(spec) in str(error.value)

    def test_unknown_classifier_of_torchvision(self, saved: Path) -> None:
        with pytest.raises(
            ValueError, match=r"torchvision has no classifier 'resnet81'.*'resnet18'"
        ):
            load_teacher(f"torchvision:resnet81@{saved}", CLASSES, 3, 32)

    def test_detector_of_torchvision_is_no_classifier(self, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"torchvision has no classifier 'ssd300_vgg16'"):
            load_teacher(f"torchvision:ssd300_vgg16@{saved}", CLASSES, 3, 32)

    def test_unknown_model_of_timm(self, timm: ModuleType, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"timm has no model 'test_resnets'.*'test_resnet'"):
            load_teacher(f"timm:test_resnets@{saved}", CLASSES, 3, 32)

    def test_unknown_tag_of_timm(self, timm: ModuleType, saved: Path) -> None:
        for weights in (saved, "pretrained"):
            with pytest.raises(
                ValueError, match=r"no model 'test_resnet.r190'.*'test_resnet.r160_"
            ):
                load_teacher(f"timm:test_resnet.r190@{weights}", CLASSES, 3, 32)

    @given(name=st.text(max_size=12), weights=st.text(max_size=12))
    @settings(max_examples=50, deadline=None)
    def test_any_other_name_is_a_value_error(self, name: str, weights: str) -> None:
        for spec in (name, f"torchvision:{name}@{weights}"):
            with pytest.raises(ValueError):
                load_teacher(spec, CLASSES, 3, 32)

    def test_timm_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ValueError, match=r"not installed; run pip install 'nasaug\[timm\]'"):
            load_teacher(f"timm:test_resnet@{saved}", CLASSES, 3, 32)

    def test_weights_that_are_neither_published_nor_a_file(self) -> None:
        with pytest.raises(ValueError, match=r"'IMAGENET1K_V9' is neither a file nor") as error:
            load_teacher("torchvision:resnet50@IMAGENET1K_V9", CLASSES, 3, 32)
        assert "IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT" in str(error.value)

    def test_weights_of_timm_that_are_no_file(self, timm: ModuleType) -> None:
        with pytest.raises(ValueError, match=r"'nowhere\.pth' is not a file.*write pretrained"):
            load_teacher("timm:test_resnet@nowhere.pth", CLASSES, 3, 32)

    def test_what_is_neither_folder_nor_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"'torchvison:resnet18@DEFAULT' is no teacher"):
            load_teacher("torchvison:resnet18@DEFAULT", CLASSES, 3, 32)

    def test_run_that_has_not_finished(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"has no weights.safetensors.*has finished"):
            load_teacher(str(tmp_path), CLASSES, 3, 32)

    def test_file_of_ours_that_is_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        path.write_bytes(random.Random(0).randbytes(100))
        with pytest.raises(ValueError, match=r"weights.safetensors is damaged"):
            load_teacher(str(tmp_path), CLASSES, 3, 32)

    def test_run_of_other_classes(self, micro: Architecture, run: RunFolder) -> None:
        save_weights(run.weights, _ours(micro))
        with pytest.raises(ValueError, match=r"the data's 7 classes, but .* has 10"):
            load_teacher(str(run.path), 7, 1, 28)

    @pytest.mark.parametrize("other", [3, 8, 1000])
    def test_file_of_other_classes(self, other: int, saved: Path) -> None:
        with pytest.raises(ValueError, match=rf"data's {other} classes, but .*mobile.pth has 7;"):
            load_teacher(f"torchvision:mobilenet_v3_small@{saved}", other, 3, 32)

    def test_grey_teacher_for_images_of_colour(self, micro: Architecture, run: RunFolder) -> None:
        save_weights(run.weights, _ours(micro))
        with pytest.raises(ValueError, match=r"as they are, 3 channels, but .* reads 1"):
            load_teacher(str(run.path), 10, 3, 28)

    def test_file_of_another_network(self, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"does not hold the weights of shufflenet_v2_x0_5: "):
            load_teacher(f"torchvision:shufflenet_v2_x0_5@{saved}", CLASSES, 3, 32)

    def test_file_of_the_same_layers_in_other_sizes(
        self, mobile: nn.Module, tmp_path: Path
    ) -> None:
        state = dict(mobile.state_dict())
        state["features.0.0.weight"] = torch.zeros(24, 3, 3, 3)
        torch.save(state, tmp_path / "wide.pth")
        with pytest.raises(
            ValueError, match=r"features.0.0.weight is \(24, 3, 3, 3\), not \(16, 3"
        ):
            load_teacher(f"torchvision:mobilenet_v3_small@{tmp_path}/wide.pth", CLASSES, 3, 32)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                {"epoch": 3},
                r"must hold a state dict, names and dense tensors of floats, but holds epoch",
            ),
            ({}, r"must hold a state dict, names and dense tensors of floats, but holds nothing"),
            ([1, 2], r"holds a list, not a mapping"),
        ],
    )
    def test_file_of_something_else(self, content: Any, message: str, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=message):
            load_teacher(f"torchvision:mobilenet_v3_small@{tmp_path}/other.pth", CLASSES, 3, 32)

    def test_pickle_that_would_run_code(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "harmed",))

        (tmp_path / "harm.pth").write_bytes(pickle.dumps({"state_dict": Harm()}))
        with pytest.raises(ValueError, match=r"harm.pth"):
            load_teacher(f"torchvision:mobilenet_v3_small@{tmp_path}/harm.pth", CLASSES, 3, 32)
        assert not (tmp_path / "harmed").exists()

    def test_damaged_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.safetensors"
        path.write_bytes(b"\x00" * 30)
        with pytest.raises(ValueError, match=r"bad.safetensors is damaged or no safetensors file"):
            load_teacher(f"torchvision:mobilenet_v3_small@{path}", CLASSES, 3, 32)

    def test_images_that_it_cannot_read(self, timm: ModuleType, tmp_path: Path) -> None:
        net = timm.create_model("test_vit", num_classes=CLASSES)
        torch.save(net.state_dict(), tmp_path / "vit.pth")
        spec = f"timm:test_vit@{tmp_path}/vit.pth"
        with pytest.raises(ValueError, match=r"cannot read images of 28 x 28 pixels \(.*patch"):
            load_teacher(spec, CLASSES, 3, 28)
        assert load_teacher(spec, CLASSES, 3, 160).logits(_images(size=160)).shape == (4, CLASSES)

    def test_images_that_are_too_small(self, tmp_path: Path) -> None:
        net = models.squeezenet1_1(num_classes=CLASSES)
        torch.save(net.state_dict(), tmp_path / "squeeze.pth")
        with pytest.raises(ValueError, match=r"cannot read images of 8 x 8 pixels"):
            load_teacher(f"torchvision:squeezenet1_1@{tmp_path}/squeeze.pth", CLASSES, 3, 8)

    def test_weights_that_are_not_finite(self, mobile: nn.Module, tmp_path: Path) -> None:
        state = dict(mobile.state_dict())
        state["classifier.3.bias"] = torch.full((CLASSES,), float("nan"))
        torch.save(state, tmp_path / "nan.pth")
        with pytest.raises(ValueError, match=r"gives nan for logits: its weights are bad"):
            load_teacher(f"torchvision:mobilenet_v3_small@{tmp_path}/nan.pth", CLASSES, 3, 32)


class TestPublished:
    """Weights that the libraries download; nothing is, here."""

    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("it went online")

        monkeypatch.setattr("socket.socket.connect", refuse)
        monkeypatch.setattr("socket.getaddrinfo", refuse)

    def test_classes_are_compared_before_the_download(self) -> None:
        with pytest.raises(ValueError, match=r"data's 7 classes, but torchvision's .* has 1000"):
            load_teacher("torchvision:mobilenet_v3_small@IMAGENET1K_V1", CLASSES, 3, 32)

    def test_classes_of_timm_are_compared_before_the_download(self, timm: ModuleType) -> None:
        with pytest.raises(ValueError, match=r"data's 7 classes, but timm's .* has 1000"):
            load_teacher("timm:test_resnet@pretrained", CLASSES, 3, 32)

    def test_timm_model_without_published_weights(self, timm: ModuleType) -> None:
        name = next(
            name for name in timm.list_models("resnet*")
            if not timm.get_pretrained_cfg(name).has_weights
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"timm publishes no weights of {name}"):
            load_teacher(f"timm:{name}@pretrained", 1000, 3, 32)

    def test_failed_download_of_torchvision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
        with pytest.raises(ValueError, match=r"could not be downloaded \(URLError: .*no route"):
            load_teacher("torchvision:mobilenet_v3_small@DEFAULT", 1000, 3, 32)

    def test_failed_download_of_timm(
        self, timm: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise ConnectionError("no route to host")

        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
        with pytest.raises(ValueError, match=r"could not be downloaded \(ConnectionError: no"):
            load_teacher("timm:test_resnet@pretrained", 1000, 3, 32)

    def test_downloaded_weights_teach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net = _lively(models.mobilenet_v3_small())
        asked = []

        def download(url: str, *args: Any, **kwargs: Any) -> Any:
            asked.append(url)
            return net.state_dict()

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
        teacher = load_teacher("torchvision:mobilenet_v3_small@DEFAULT", 1000, 3, 32)
        _assert_teaches(teacher, net)
        assert asked == [models.MobileNet_V3_Small_Weights.DEFAULT.url]

    def test_downloaded_weights_of_timm_teach(
        self, timm: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = _lively(timm.create_model("test_resnet"))
        monkeypatch.setattr(
            "timm.models._builder.load_state_dict_from_hf", lambda *a, **k: dict(net.state_dict())
        )
        teacher = load_teacher("timm:test_resnet@pretrained", 1000, 3, 32)
        _assert_teaches(teacher, net)
