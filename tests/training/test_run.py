"""The folder of a run: weights, metrics, result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasaug.supernet import Architecture, Network
from nasaug.training import RunFolder, load_weights, read_facts, save_weights

MakeNetwork = Callable[..., Network]


@pytest.fixture
def saved(micro: Architecture, make_network: MakeNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, make_network(micro), {"target": "micro_10k", "resolution": 28})
    return path


def test_weights_are_read_as_they_were_written(
    saved: Path, micro: Architecture, make_network: MakeNetwork
) -> None:
    net = load_weights(saved)
    assert net.arch == micro
    assert net.arch.name == "micro_10k"
    assert not net.training
    expected = make_network(micro).state_dict()
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in expected.items())


def test_channels_last_weights_are_written_too(
    micro: Architecture, make_network: MakeNetwork, tmp_path: Path
) -> None:
    net = make_network(micro).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", net)
    image = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        found, expected = load_weights(tmp_path / "w.safetensors")(image), net.eval()(image)
    torch.testing.assert_close(found, expected)


def test_facts_are_read_as_they_were_written(saved: Path) -> None:
    assert read_facts(saved) == {"target": "micro_10k", "resolution": 28}


def test_equal_weights_are_equal_files(saved: Path) -> None:
    again = saved.with_name("again.safetensors")
    for _ in range(5):
        save_weights(again, load_weights(saved), read_facts(saved))
        assert again.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("read", [load_weights, read_facts])
@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_damaged_file_is_refused_by_name(
    read: Callable[[Path], object], left: int, saved: Path
) -> None:
    saved.write_bytes(saved.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        read(saved)


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "weights.safetensors")


def _foreign(path: Path, metadata: dict[str, str] | None) -> Path:
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, metadata)
    return path


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_file_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = _foreign(tmp_path / "other.safetensors", metadata)
    with pytest.raises(ValueError, match=r"other\.safetensors holds no nasaug network"):
        load_weights(path)


def test_weights_of_another_architecture_are_refused(micro: Architecture, tmp_path: Path) -> None:
    described = json.dumps({"architecture": micro.to_dict(), "facts": {}})
    path = _foreign(tmp_path / "w.safetensors", {"nasaug": described})
    with pytest.raises(ValueError, match=r"w\.safetensors does not fit its own architecture"):
        load_weights(path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        '{"architecture": {}}',
        '{"architecture": {}, "facts": 3}',
        '{"architecture": {"rows": [], "resolution": 28}, "facts": {}}',
        '{"architecture": {"rows": [3], "resolution": 28}, "facts": {}}',
        '{"architecture": [], "facts": {}}',
    ],
)
def test_unreadable_description_is_refused_by_the_files_name(text: str, tmp_path: Path) -> None:
    path = _foreign(tmp_path / "w.safetensors", {"nasaug": text})
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged"):
        load_weights(path)


def test_metrics_are_read_as_they_were_logged(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run")
    assert run.metrics() == []
    run.log_metrics(3, {"loss": 0.5})
    run.log_metrics(6, {"loss": 0.25, "top1": 0.5})
    expected = [{"step": 3, "loss": 0.5}, {"step": 6, "loss": 0.25, "top1": 0.5}]
    assert run.metrics() == RunFolder(run.path).metrics() == expected


def test_metrics_after_a_step_are_forgotten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (3, 6, 9):
        run.log_metrics(step, {"loss": step / 10})
    run.forget_metrics_after(6)
    assert [row["step"] for row in run.metrics()] == [3, 6]
    run.log_metrics(9, {"loss": 2.0})
    assert [row["loss"] for row in run.metrics()] == [0.3, 0.6, 2.0]
    run.forget_metrics_after(0)
    assert run.metrics() == []


def test_half_a_line_is_no_metric(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log_metrics(3, {"loss": 0.5})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    assert [row["step"] for row in run.metrics()] == [3]
    run.forget_metrics_after(3)
    run.log_metrics(6, {"loss": 0.5})
    assert [row["step"] for row in run.metrics()] == [3, 6]


def test_mirror_is_given_all_metrics(tmp_path: Path) -> None:
    seen: list[tuple[int, Mapping[str, Any]]] = []
    run = RunFolder(tmp_path)
    run.mirror = lambda step, values: seen.append((step, values))
    run.log_metrics(3, {"loss": 0.5})
    assert seen == [(3, {"loss": 0.5})]


def test_result_marks_a_run_as_finished(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.finished
    run.write_result({"top1": 0.5})
    assert run.finished
    assert run.result() == {"top1": 0.5}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0"])
def test_damaged_result_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        RunFolder(tmp_path).result()


def test_only_the_first_worker_writes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", writes=False)
    seen: list[int] = []
    run.mirror = lambda step, _: seen.append(step)
    run.log_metrics(3, {"loss": 0.5})
    run.forget_metrics_after(0)
    run.write_result({"top1": 0.5})
    assert not run.path.exists()
    assert seen == []
