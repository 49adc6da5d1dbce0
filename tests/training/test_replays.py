"""When steps are recorded, and what is said where that fails; what is computed, see tests/gpu."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.training.monitor import TrainingFailed
from nasaug.training.replays import STEPS_BEFORE, Replays


class Graph:
    """In place of a CUDA graph: counts how often it is played back."""

    played = 0

    def replay(self) -> None:
        Graph.played += 1


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    """Of a device whose graphs record nothing."""

    @contextmanager
    def nothing(*about: Any, **keys: Any) -> Iterator[None]:
        yield

    @contextmanager
    def recording(*about: Any, **keys: Any) -> Iterator[None]:
        """As torch's: where what is inside fails, ending it fails too."""
        try:
            yield
        except RuntimeError:
            raise RuntimeError("CUDA error: due to a previous error during capture")  # noqa: B904

    stream = SimpleNamespace(device=None, wait_stream=lambda other: None)
    monkeypatch.setattr(Graph, "played", 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return Replays(torch.device("cuda"))


def _doubled(x: Tensor) -> tuple[Tensor, ...]:
    return (2 * x,)


def test_each_key_is_recorded_though_others_come_between(replays: Replays) -> None:
    counting = SimpleNamespace(macs=0)
    for _ in range(STEPS_BEFORE):
        for key in ("target", "helper"):
            replays(key, _doubled, (torch.ones(2),), counting)
    assert Graph.played == 0
    for _ in range(2):
        for key in ("target", "helper"):
            replays(key, _doubled, (torch.ones(2),), counting)
    assert Graph.played == 4


def test_other_shapes_are_other_recordings(replays: Replays) -> None:
    counting = SimpleNamespace(macs=0)
    for _ in range(STEPS_BEFORE + 1):
        (long,) = replays("key", _doubled, (torch.ones(5),), counting)
        (short,) = replays("key", _doubled, (torch.ones(2),), counting)
    assert (len(long), len(short)) == (5, 2)


def test_macs_are_counted_whenever_it_is_played_back(replays: Replays) -> None:
    counting = SimpleNamespace(macs=0)

    def work(x: Tensor) -> tuple[Tensor, ...]:
        counting.macs += 7
        return _doubled(x)

    for _ in range(STEPS_BEFORE + 4):
        replays("key", work, (torch.ones(2),), counting)
    assert counting.macs == 7 * (STEPS_BEFORE + 4)


def test_what_cannot_be_recorded_is_said(replays: Replays) -> None:
    recording = []

    def work(x: Tensor) -> tuple[Tensor, ...]:
        recording.append(x)
        if len(recording) > STEPS_BEFORE:
            raise RuntimeError("CUDA out of memory\nand so on")
        return _doubled(x)

    counting = SimpleNamespace(macs=0)
    with pytest.raises(TrainingFailed, match=r"\(CUDA out of memory\); set train.graphs=off"):
        for _ in range(STEPS_BEFORE + 1):
            replays("key", work, (torch.ones(2),), counting)
