"""What a weights file says of the images, and weights files of other releases."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from nasaug.supernet import Architecture, Network
from nasaug.training import (
    Dataset,
    View,
    describe,
    evaluation_batches,
    load_weights,
    normalisation,
    read_facts,
    save_weights,
)

MakeNetwork = Callable[..., Network]
MakeNoise = Callable[..., Dataset]


@pytest.mark.parametrize(("channels", "in_channels"), [(1, 1), (1, 3), (3, 3), (3, 1)])
def test_the_normalisation_is_what_the_network_is_shown(
    channels: int, in_channels: int, make_noise: MakeNoise
) -> None:
    data = make_noise(8, channels, 12, classes=2)
    view = View(12, in_channels)
    facts = describe(data, view)
    assert len(facts["mean"]) == len(facts["std"]) == in_channels
    assert normalisation(data, in_channels) == (tuple(facts["mean"]), tuple(facts["std"]))
    pixels = data.test.subset(torch.arange(8)).images / 255  # type: ignore[union-attr]
    if channels > in_channels:
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    mean, std = (torch.tensor(facts[key])[:, None, None] for key in ("mean", "std"))
    ((shown, _),) = evaluation_batches(data, data.test, view)
    torch.testing.assert_close(shown, ((pixels - mean) / std).expand_as(shown))


def test_the_rest_is_named(make_noise: MakeNoise) -> None:
    data = replace(make_noise(8, classes=3), name="mine")
    facts = describe(data, View(20, 1))
    assert {key: facts[key] for key in ("data", "classes", "resolution")} == {
        "data": "mine",
        "classes": ["0", "1", "2"],
        "resolution": 20,
    }
    assert json.loads(json.dumps(facts)) == facts


@pytest.fixture
def metadata(micro: Architecture, make_network: MakeNetwork, tmp_path: Path) -> dict[str, Any]:
    """What `save_weights` writes beside the tensors of `w.safetensors`."""
    save_weights(tmp_path / "w.safetensors", make_network(micro), {"target": "micro_10k"})
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        text = file.metadata()["nasaug"]
    found: dict[str, Any] = json.loads(text)
    return found


def _rewritten(path: Path, metadata: dict[str, Any]) -> None:
    tensors = load_weights(path).state_dict()
    safetensors.torch.save_file(tensors, path, {"nasaug": json.dumps(metadata)})


def test_a_file_says_what_wrote_it(metadata: dict[str, Any], micro: Architecture) -> None:
    assert metadata == {
        "format": 1,
        "nasaug": importlib.metadata.version("nasaug"),
        "architecture": micro.to_dict(),
        "facts": {"target": "micro_10k"},
    }


def test_a_file_of_an_older_release_is_read(metadata: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    expected = load_weights(path).state_dict()
    _rewritten(path, {key: metadata[key] for key in ("architecture", "facts")})
    found = load_weights(path).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert read_facts(path) == {"target": "micro_10k"}


def test_a_file_of_a_later_format_is_refused(metadata: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    _rewritten(path, metadata | {"format": 2, "nasaug": "7.0"})
    words = r"w\.safetensors is of format 2, written by nasaug 7\.0, .* reads up to format 1"
    for read in (load_weights, read_facts):
        with pytest.raises(ValueError, match=words):
            read(path)


@pytest.mark.parametrize("odd", [0, -1, "1", None, 1.5, [], True])
def test_an_odd_format_is_damage(odd: object, metadata: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    _rewritten(path, metadata | {"format": odd})
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged: its format is"):
        load_weights(path)
