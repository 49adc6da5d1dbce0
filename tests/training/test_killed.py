"""A run that is killed with SIGKILL and resumed ends as one that was left alone, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.training import RunFolder

PROGRAM = Path(__file__).with_name("interrupted.py")
METHODS = ("plain", "netaug")
Finish = Callable[[Path, str], dict[str, Tensor]]


@pytest.fixture(scope="module")
def finish() -> Finish:
    """Run the program to its end in this process; the weights to use."""
    train = runpy.run_path(str(PROGRAM))["train"]
    return lambda folder, method: dict(train(folder, method).state_dict())


@pytest.fixture(scope="module")
def whole(
    finish: Finish, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, dict[str, Tensor]]]:
    """The folder and the weights of a run that was left alone, made once per method."""

    def make(method: str) -> tuple[Path, dict[str, Tensor]]:
        folder = tmp_path_factory.mktemp(method)
        return folder, finish(folder, method)

    return cache(make)


def _kill_after(line: str, folder: Path, method: str) -> None:
    command = [sys.executable, str(PROGRAM), str(folder), method]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            if printed.strip() == line:
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def _measured(folder: Path) -> list[dict[str, Any]]:
    rows = RunFolder(folder).metrics()
    return [{key: row[key] for key in row if "seconds" not in key} for row in rows]


def _assert_same(
    found: dict[str, Tensor], folder: Path, expected: tuple[Path, dict[str, Tensor]]
) -> None:
    assert found.keys() == expected[1].keys()
    assert [
        name for name, tensor in expected[1].items() if not torch.equal(tensor, found[name])
    ] == []
    assert _measured(folder) == _measured(expected[0])
    assert [row["step"] for row in _measured(folder)] == [6, 12, 18]


# A checkpoint is being written when a third step is printed: 9, an epoch's last one: 12.
@pytest.mark.parametrize(
    ("method", "lines"), [("plain", ("begins", "2", "12")), ("netaug", ("9", "10", "17"))]
)
def test_killed_run_resumes_to_the_weights_and_metrics_of_one_left_alone(
    method: str, lines: tuple[str, ...], finish: Finish, whole: Callable[[str], Any], tmp_path: Path
) -> None:
    for line in lines:
        _kill_after(line, tmp_path, method)
        steps = [int(path.stem[5:]) for path in tmp_path.glob("checkpoint/*.json")]
        assert max(steps, default=0) < 18
    _assert_same(finish(tmp_path, method), tmp_path, whole(method))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.write_text('{"a": 1}')


@pytest.fixture
def stopped(whole: Callable[[str], Any], tmp_path: Path) -> Path:
    """A copy of the plain run; its checkpoints are those of steps 15 and 18."""
    folder = tmp_path / "run"
    shutil.copytree(whole("plain")[0], folder)
    names = sorted(path.name for path in (folder / "checkpoint").iterdir())
    assert names == [f"step-0000000{n}.{end}" for n in (15, 18) for end in ("json", "safetensors")]
    return folder


# Without its JSON a checkpoint does not exist; bits of the JSON flip in test_checkpoint.py.
@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        *(("safetensors", damage) for damage in (_cut, _flip, _empty, _foreign, Path.unlink)),
        *(("json", damage) for damage in (_cut, _empty, _foreign)),
    ],
)
def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    ending: str,
    damage: Callable[[Path], None],
    stopped: Path,
    finish: Finish,
    whole: Callable[[str], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(stopped / "checkpoint" / f"step-000000018.{ending}")
    with caplog.at_level(logging.INFO, logger="nasaug"):
        found = finish(stopped, "plain")
    messages = [record.getMessage() for record in caplog.records]
    assert any("step-000000018 is damaged" in message for message in messages)
    assert any(message.endswith("after step 15") for message in messages)
    _assert_same(found, stopped, whole("plain"))


def test_run_whose_checkpoints_are_all_damaged_is_refused(stopped: Path, finish: Finish) -> None:
    for path in stopped.glob("checkpoint/*.safetensors"):
        _flip(path)
    with pytest.raises(ValueError, match=r"all checkpoints in .*checkpoint are damaged; remove"):
        finish(stopped, "plain")


def test_checkpoint_of_another_network_is_refused(stopped: Path, finish: Finish) -> None:
    with pytest.raises(ValueError, match="is of another network"):
        finish(stopped, "netaug")


def test_finished_run_resumes_to_its_own_weights(
    stopped: Path, finish: Finish, whole: Callable[[str], Any]
) -> None:
    _assert_same(finish(stopped, "plain"), stopped, whole("plain"))


def test_metrics_measured_after_the_checkpoint_are_measured_again(
    stopped: Path, finish: Finish, whole: Callable[[str], Any]
) -> None:
    """Lines of a run that got further than its checkpoint, the last one cut off by the kill."""
    for path in stopped.glob("checkpoint/*18.*"):
        path.unlink()
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 99, "loss_target": 1.0}) + '\n{"step": 99, "lo')
    _assert_same(finish(stopped, "plain"), stopped, whole("plain"))
