"""Ctrl-C tears no record of a study's journal, and leaves no lock behind."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, _file

from nasaug.search import journal as journals
from nasaug.search.journal import join_journal, open_journal

Open = Callable[[Path], JournalStorage]
OPEN: dict[str, Open] = {"opened": open_journal, "joined": join_journal}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """The handler of Ctrl-C, which every test must leave in its place."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    assert signal.getsignal(signal.SIGINT) is before


def _begun(storage: JournalStorage) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=storage, study_name="it")


def _records(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def _interrupted_once(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Ctrl-C right after a function of `os` did its work, the first time that it is called."""
    real = getattr(os, function)

    def patched(*arguments: Any) -> Any:
        monkeypatch.setattr(os, function, real)
        found = real(*arguments)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(os, function, patched)


# Taking the lock; writing; the two steps of giving it back.
@pytest.mark.parametrize("function", ["symlink", "fsync", "rename", "unlink"])
@pytest.mark.parametrize("how", OPEN)
def test_ctrl_c_while_a_record_is_written(
    how: str, function: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _begun(OPEN[how](path))
    written = len(_records(path))
    _interrupted_once(monkeypatch, function)
    with pytest.raises(KeyboardInterrupt):
        study.set_user_attr("answer", 42)
    assert [entry.name for entry in path.parent.iterdir()] == ["study.journal"]
    assert len(_records(path)) == written + 1
    assert _records(path)[-1]["user_attr"] == {"answer": 42}
    began = time.monotonic()
    study.set_user_attr("more", 1)
    assert time.monotonic() - began < 5, "it waited for its own lock"
    assert study.user_attrs == {"answer": 42, "more": 1}


class _Torn(dict[str, Any]):
    """A record during whose use Ctrl-C comes, once it counts as read."""

    def __getitem__(self, key: str) -> Any:
        signal.raise_signal(signal.SIGINT)
        return super().__getitem__(key)


def test_ctrl_c_while_records_are_applied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (
        _begun(open_journal(path)),
        optuna.load_study(study_name="it", storage=join_journal(path)),
    )
    theirs.set_user_attr("answer", 42)
    with monkeypatch.context() as patch:
        loads = json.loads
        patch.setattr(_file.json, "loads", lambda text: _Torn(loads(text)))
        with pytest.raises(KeyboardInterrupt):
            _ = ours.user_attrs
    assert ours.user_attrs == {"answer": 42}


def test_ctrl_c_ends_the_wait_for_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _begun(open_journal(path))
    written = len(_records(path))
    lock = Path(f"{path}.lock")
    lock.symlink_to(path)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        study.set_user_attr("answer", 42)
    assert len(pauses) == 3
    assert lock.is_symlink(), "it is somebody else's"
    assert len(_records(path)) == written


def test_a_lock_is_waited_for(path: Path) -> None:
    """It is Optuna's own: its processes and ours wait for each other."""
    study = _begun(open_journal(path))
    lock = JournalFileBackend(str(path))._lock
    assert lock.acquire()
    timer = threading.Timer(0.3, lock.release)
    began = time.monotonic()
    timer.start()
    study.set_user_attr("answer", 42)
    assert time.monotonic() - began >= 0.3
    timer.join()
    assert study.user_attrs == {"answer": 42}


@pytest.mark.parametrize("leads", ["there", "nowhere"])
def test_the_lock_of_a_dead_process_is_taken_in_the_end(
    leads: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _begun(open_journal(path))
    Path(f"{path}.lock").symlink_to(path if leads == "there" else path.parent / "gone")
    waited = 0.0

    def pause(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    now = time.monotonic()
    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(time, "monotonic", lambda: now + waited)
    study.set_user_attr("answer", 42)
    assert journals.LOCK_SECONDS <= waited < journals.LOCK_SECONDS + 1
    assert [entry.name for entry in path.parent.iterdir()] == ["study.journal"]


def test_a_handler_of_ones_own_is_called_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, before = _begun(open_journal(path)), signal.getsignal(signal.SIGINT)
    called: list[tuple[int, int]] = []

    def mine(number: int, frame: FrameType | None) -> None:
        called.append((number, len(_records(path))))

    written = len(_records(path))
    signal.signal(signal.SIGINT, mine)
    try:
        _interrupted_once(monkeypatch, "symlink")
        study.set_user_attr("answer", 42)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [(signal.SIGINT, written + 1)]


@pytest.mark.parametrize("way", [signal.SIG_IGN, signal.SIG_DFL])
def test_where_no_handler_is_nothing_is_changed(
    way: signal.Handlers, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, before = _begun(open_journal(path)), signal.getsignal(signal.SIGINT)
    seen: list[Any] = []
    fsync = os.fsync

    def spied(handle: int) -> None:
        seen.append(signal.getsignal(signal.SIGINT))
        fsync(handle)

    signal.signal(signal.SIGINT, way)
    try:
        monkeypatch.setattr(os, "fsync", spied)
        study.set_user_attr("answer", 42)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [way]


def test_other_threads_write_as_ever(path: Path) -> None:
    """Python lets the main thread alone set handlers."""
    study = _begun(open_journal(path))
    thread = threading.Thread(target=study.set_user_attr, args=("answer", 42))
    thread.start()
    thread.join()
    assert study.user_attrs == {"answer": 42}


def test_an_error_while_writing_is_not_swallowed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _begun(open_journal(path))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        study.set_user_attr("answer", 42)
    assert not Path(f"{path}.lock").is_symlink()
