"""Checkpoints as files: whole or not there, the two newest, damage never passed over in silence."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.training.checkpoint import load_newest_checkpoint, save_checkpoint

TENSORS = {"net.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}
FACTS: dict[str, Any] = {"sums": {"target": 1.5}, "count": 4}


def _save(folder: Path, step: int) -> None:
    save_checkpoint(folder, step, TENSORS, FACTS)


def test_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Tensors of another layout too."""
    wide: Tensor = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "checkpoint", 7, {**TENSORS, "wide": wide}, FACTS)
    found = load_newest_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert (found.step, found.facts) == (7, FACTS)
    assert found.tensors.keys() == {*TENSORS, "wide"}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert torch.equal(found.tensors["wide"], wide)


def test_no_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path / "checkpoint") is None


def test_two_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 99, 100, 1000):
        _save(tmp_path, step)
    assert {path.stem for path in tmp_path.iterdir()} == {"step-000000100", "step-000001000"}
    found = load_newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1000


@pytest.mark.parametrize("failing", ["replace", "fsync", "fdopen"])
@pytest.mark.parametrize("after", [0, 1])
def test_failed_save_leaves_no_part_of_itself(
    failing: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the tensors, or after them at the facts: the checkpoint before is newest."""
    _save(tmp_path, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real: Callable[..., Any] = getattr(os, failing)
    calls = 0

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > (2 * after if failing == "fsync" else after):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        _save(tmp_path, 6)
    monkeypatch.undo()
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    left.pop("step-000000006.safetensors", None)
    assert left == before
    found = load_newest_checkpoint(tmp_path)
    assert found is not None and found.step == 3


def _assert_older_is_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = load_newest_checkpoint(folder)
    assert found is not None and (found.step, found.facts) == (3, FACTS)
    assert "step-000000006 is damaged" in caplog.text


@pytest.mark.parametrize("content", ["", "garbage", "{", "{}", '{"step": 6}', "\0" * 64])
def test_facts_that_are_no_facts_are_damage(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, 3)
    _save(tmp_path, 6)
    (tmp_path / "step-000000006.json").write_text(content)
    _assert_older_is_used(tmp_path, caplog)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"step"'])
def test_facts_of_another_shape_are_damage(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, 3)
    _save(tmp_path, 6)
    (tmp_path / "step-000000006.json").write_text(content)
    _assert_older_is_used(tmp_path, caplog)


def test_any_flipped_bit_of_the_tensors_is_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, 3)
    _save(tmp_path, 6)
    path = tmp_path / "step-000000006.safetensors"
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        _assert_older_is_used(tmp_path, caplog)


def test_no_flipped_bit_of_the_facts_is_believed(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    _save(tmp_path, 6)
    path = tmp_path / "step-000000006.json"
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        found = load_newest_checkpoint(tmp_path)
        assert found is not None and (found.step, found.facts) in ((3, FACTS), (6, FACTS))
