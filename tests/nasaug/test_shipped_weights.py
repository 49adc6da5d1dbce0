"""Weights that come with nasaug: found by name, what their cards say, and how they get there."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.supernet import load_target, macs, params
from nasaug.training import (
    ImageArray,
    RunFolder,
    View,
    evaluate,
    evaluation_batches,
    load_dataset,
    load_weights,
    read_facts,
    save_weights,
    shipped,
    shipped_names,
    shipped_weights,
)
from nasaug.training.embedded import ship as ship_module
from nasaug.training.embedded.ship import ship
from nasaug.training.shipped import SHIPPED

# Before any test puts other weights in their place: timm is told of them when it is imported.
with contextlib.suppress(ImportError):
    importlib.import_module("nasaug.timm_models")

Nasaug = Callable[..., Any]
ALL = Path("/usr/share/datasets/fashion-mnist")
needs_all = pytest.mark.skipif(not ALL.is_dir(), reason="needs Debian's dataset-fashion-mnist")


@pytest.fixture
def shelf(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights with those of a short training of micro_10k, in place of ours."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    ship("micro_10k", RunFolder(trained, writes=False), folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


def test_evaluate_finds_them_by_name_and_says_so(
    nasaug: Nasaug, shelf: Path, data: tuple[str, ...], trained: Path
) -> None:
    done = nasaug("evaluate", "micro_10k", *data, "--json")
    assert done.code == 0
    assert "micro_10k: the weights that nasaug ships for it" in done.said
    assert done.json["weights"] == str(shelf / "micro_10k.safetensors")
    assert done.json["top1"] == json.loads((trained / "result.json").read_text())["top1"]
    assert nasaug("evaluate", "micro_10k", "--target=micro_10k", *data, "--json").code == 0
    assert nasaug("evaluate", "micro_10k", "--target=micro_3k", *data).code == 2


def test_classes_of_other_names_are_remarked_on(
    nasaug: Nasaug, shelf: Path, data: tuple[str, ...], tmp_path: Path
) -> None:
    assert "other names" not in nasaug("evaluate", "micro_10k", *data).said
    file = shelf / "micro_10k.safetensors"
    facts = {**read_facts(file), "classes": [str(i) for i in range(10)]}
    save_weights(tmp_path / "digits.safetensors", load_weights(file), facts)
    done = nasaug("evaluate", "digits.safetensors", *data)
    assert done.code == 0
    assert "the classes of digits.safetensors have other names than those of fashion" in done.said


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_path_of_that_name_wins(
    kind: str, nasaug: Nasaug, shelf: Path, data: tuple[str, ...], trained: Path
) -> None:
    if kind == "folder":
        trained.rename("micro_10k")
    else:
        Path("micro_10k").write_bytes(b"mine")
    done = nasaug("evaluate", "micro_10k", *data)
    assert "ships" not in done.said
    assert done.code == (0 if kind == "folder" else 2)


def test_a_folder_of_that_name_without_weights_is_a_mistake(
    nasaug: Nasaug, shelf: Path, data: tuple[str, ...]
) -> None:
    Path("micro_10k").mkdir()
    done = nasaug("evaluate", "micro_10k", *data)
    assert done.code == 2
    assert "micro_10k/weights.safetensors does not exist" in done.said


def test_the_result_of_a_search_stands_for_the_weights_beside_it(
    nasaug: Nasaug, data: tuple[str, ...], trained: Path
) -> None:
    (trained / "best.json").write_text("{}")
    done = nasaug("evaluate", "trained/best.json", *data, "--json")
    assert done.json["weights"] == "trained/weights.safetensors"


def test_a_name_that_nothing_is_shipped_for(
    nasaug: Nasaug, shelf: Path, data: tuple[str, ...]
) -> None:
    done = nasaug("evaluate", "micro_40k", *data)
    assert done.code == 2
    assert "micro_40k does not exist" in done.said
    assert "weights that nasaug ships (micro_10k)" in done.said


def test_where_none_are_shipped_none_are_offered(
    nasaug: Nasaug, data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    done = nasaug("evaluate", "micro_40k", *data)
    assert "finished run's folder or a weights file" in done.said
    assert "ships" not in done.said


def test_the_card_says_how_they_were_made(shelf: Path, trained: Path, clothes: Path) -> None:
    card = json.loads((shelf / "micro_10k.json").read_text())
    result = json.loads((trained / "result.json").read_text())
    file = shelf / "micro_10k.safetensors"
    for key in ("top1", "top5", "method", "seed", "macs", "params", "data", "target"):
        assert card[key] == result[key]
    assert card["bytes"] == file.stat().st_size
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    data = load_dataset("fashion-mnist", clothes)
    assert (card["training_images"], card["test_images"]) == (len(data.train), len(data.test))
    assert card["config"]["train"]["batch_size"] == 64
    assert str(clothes) not in (shelf / "micro_10k.json").read_text()
    facts = read_facts(file)
    assert (facts["mean"], facts["classes"][1]) == ([0.286] * 3, "Trouser")
    assert facts["top1"] == result["top1"]
    found, given = load_weights(file), load_weights(trained / "weights.safetensors")
    assert found.arch == given.arch
    assert all(torch.equal(found.state_dict()[k], v) for k, v in given.state_dict().items())


def _unfinished(run: Path) -> None:
    (run / "result.json").unlink()


def _on_the_small_data(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "data": "fashion-mnist-mini"}))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("micro_3k", lambda run: None, "shipped for micro_10k, micro_40k, not for 'micro_3k'"),
        ("micro_40k", lambda run: None, "holds micro_10k, not micro_40k"),
        ("micro_10k", _unfinished, "trained has not finished; train it to its end"),
        ("micro_10k", _on_the_small_data, "was trained on fashion-mnist-mini, not on all of"),
    ],
)
def test_what_is_not_shipped(
    name: str, change: Callable[[Path], None], words: str, trained: Path, tmp_path: Path
) -> None:
    change(trained)
    with pytest.raises(ValueError, match=words):
        ship(name, RunFolder(trained, writes=False), tmp_path)
    assert not list(tmp_path.glob("micro*"))


def test_too_large_a_folder_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "micro_40k.safetensors").write_bytes(bytes(100))
    size = (trained / "weights.safetensors").stat().st_size
    monkeypatch.setattr(ship_module, "MOST", size + 99)
    with pytest.raises(ValueError, match=f"would have {size + 100:,} bytes together"):
        ship("micro_10k", RunFolder(trained, writes=False), tmp_path)
    monkeypatch.setattr(ship_module, "MOST", size + 100)
    ship("micro_10k", RunFolder(trained, writes=False), tmp_path)


def test_timm_has_them_as_pretrained(shelf: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
    from nasaug.timm_models import default_settings

    settings = default_settings("micro_10k")
    assert settings["file"] == str(shelf / "micro_10k.safetensors")
    assert (settings["num_classes"], settings["mean"]) == (10, (0.286,) * 3)
    assert "file" not in default_settings("micro_40k")


def test_timm_takes_them_when_asked_only() -> None:
    """They are of ten classes of grey images; fresh ones are as the target is."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
    fresh = timm.create_model("nasaug_micro_10k")
    assert (fresh.num_classes, fresh.blocks[0].conv.weight.shape[1]) == (1000, 3)
    assert fresh.pretrained_cfg["input_size"] == (3, 28, 28)
    ours = timm.create_model("nasaug_micro_10k", pretrained=True).eval()
    assert (ours.num_classes, ours.pretrained_cfg["mean"]) == (10, (0.286,))
    path = shipped_weights("micro_10k")
    assert path is not None
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), load_weights(path)(images))


@pytest.mark.parametrize("name", SHIPPED)
class TestWhatIsShipped:
    @pytest.fixture
    def file(self, name: str) -> Path:
        path = shipped_weights(name)
        assert path is not None
        return path

    def test_it_is_the_target_and_what_its_card_says(self, name: str, file: Path) -> None:
        card, net = json.loads(file.with_suffix(".json").read_text()), load_weights(file)
        arch = net.arch
        assert arch == load_target(name, 10, arch.resolution, arch.in_channels)
        assert (card["macs"], card["params"]) == (macs(arch), params(arch))
        assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert read_facts(file)["top1"] == card["top1"]

    def test_it_knows_clothes(self, name: str, file: Path) -> None:
        """On the embedded test images, a fifth of those that the card's accuracy is of."""
        card, net = json.loads(file.with_suffix(".json").read_text()), load_weights(file)
        data = load_dataset("fashion-mnist-mini")
        view = View(read_facts(file)["resolution"], net.arch.in_channels)
        found = evaluate(net, evaluation_batches(data, data.test, view))["top1"]
        # Four standard deviations of the mean of 2,000.
        assert abs(found - card["top1"]) < 4 * (found * (1 - found) / 2000) ** 0.5

    @needs_all
    def test_its_accuracy_is_that_of_its_card(self, name: str, file: Path) -> None:
        card, net = json.loads(file.with_suffix(".json").read_text()), load_weights(file)
        data = load_dataset("fashion-mnist", ALL)
        view = View(read_facts(file)["resolution"], net.arch.in_channels)
        found = evaluate(net, evaluation_batches(data, data.test, view))["top1"]
        assert found == pytest.approx(card["top1"], abs=2e-4)  # two images of 10,000


def test_together_they_are_small() -> None:
    files = [shipped_weights(name) for name in shipped_names()]
    assert sum(file.stat().st_size for file in files if file is not None) < 1_000_000


@needs_all
def test_the_embedded_images_are_a_part_of_all_by_their_parts() -> None:
    """So weights trained on all training images have not seen an embedded test image."""

    def pixels(*parts: Any) -> set[bytes]:
        found = set()
        for part in parts:
            assert isinstance(part, ImageArray)
            found |= {image.numpy().tobytes() for image in part.images}
        return found

    whole, mini = load_dataset("fashion-mnist", ALL), load_dataset("fashion-mnist-mini")
    training, test = pixels(whole.train, whole.validation), pixels(whole.test)
    assert pixels(mini.train, mini.validation) <= training
    assert pixels(mini.test) <= test
    assert not training & test


def test_a_shipped_file_is_read_where_it_lies(shelf: Path) -> None:
    assert shipped_weights("micro_10k") == shelf / "micro_10k.safetensors"
    assert shipped_names() == ("micro_10k",)
    assert shipped_weights("../micro_10k") is None


def test_timm_shows_images_as_we_do() -> None:
    """Accuracy through timm's own transform is that of nasaug evaluate."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
    from timm.data import create_transform, resolve_model_data_config
    from torchvision.transforms.functional import to_pil_image

    model = timm.create_model("nasaug_micro_10k", pretrained=True).eval()
    settings = resolve_model_data_config(model)
    assert settings["crop_pct"] == 1.0 and settings["input_size"] == (1, 28, 28)
    show = create_transform(**settings)
    data, path = load_dataset("fashion-mnist-mini"), shipped_weights("micro_10k")
    assert path is not None
    test = data.test.subset(torch.arange(300))
    images = torch.stack([show(to_pil_image(one)) for one in test.images])
    with torch.no_grad():
        right = (model(images).argmax(1) == test.labels).double().mean()
    ours = evaluate(load_weights(path), evaluation_batches(data, test, View(28, 1)))["top1"]
    assert float(right) == pytest.approx(ours)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"mean": 3}, "its mean must be a list, but is 3"),
        ({"std": ["a"]}, "its std must be a number, but is 'a'"),
        ({"classes": 5}, "its classes must be a list"),
        ({"crop": "all"}, "its crop must be a number"),
        ({"resolution": "big"}, "trained at a resolution of 'big'"),
    ],
)
def test_timm_and_weights_that_say_nonsense(
    facts: dict[str, Any], words: str, tmp_path: Path
) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'nasaug[timm]'")
    from nasaug.timm_models import described

    path = shipped_weights("micro_10k")
    assert path is not None
    save_weights(tmp_path / "odd.safetensors", load_weights(path), read_facts(path) | facts)
    with pytest.raises(ValueError, match=words):
        described(tmp_path / "odd.safetensors", "micro_10k")
