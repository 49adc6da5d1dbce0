"""The study's journal: mended where a killed process left it torn, and never torn by Ctrl-C.

Optuna appends a record under a lock, a symbolic link, and then applies it to what it holds in
memory. Interrupted in between, it would leave the lock, or fail to release it, or miss the record.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from nasaug.search.interrupts import Interrupts

JOURNAL_BEGINS = b'{"op_code"'
# Optuna's own: a lock that is as old was left by a process that is dead, or gone from the network.
LOCK_SECONDS = 30.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.2


def open_journal(path: Path) -> JournalStorage:
    """A journal file, mended: without a half-written last line and without a dead process's lock.

    The caller sees to it that no other process is writing (a run folder's lock does).

    Raises: ValueError for a file that is no journal; it is left as it is.
    """
    data = path.read_bytes() if path.exists() else b""
    if not (data.startswith(JOURNAL_BEGINS) or JOURNAL_BEGINS.startswith(data)):
        raise ValueError(f"{path} is no Optuna journal; name another file or a database URL")
    Path(f"{path}.lock").unlink(missing_ok=True)
    if data:
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with path.open("r+b") as file:
                file.truncate(len(whole))
    return join_journal(path)


def join_journal(path: Path) -> JournalStorage:
    """A journal file as it is: other processes may be writing to it."""
    # In full: the lock is a link to this path, and Optuna's own processes would wait for ever for
    # one that leads nowhere.
    return _Journal(str(path.resolve()))


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock. Who waits for it, which may take long, is interrupted all the same."""

    def __init__(self, path: str, interrupts: Interrupts) -> None:
        super().__init__(path)
        self._interrupts = interrupts

    def acquire(self) -> bool:
        """Wait for the lock, or take it from one who has held it for `LOCK_SECONDS`.

        Raises: KeyboardInterrupt; OSError where the journal's folder is gone.
        """
        seen, since, pause = None, time.monotonic(), SHORTEST_PAUSE
        while True:
            try:
                os.symlink(self._lock_target_file, self._lock_file)
                return True
            except FileExistsError:
                self._interrupts.deliver()
            held = _made_at(self._lock_file)
            if held != seen:
                seen, since, pause = held, time.monotonic(), SHORTEST_PAUSE
            elif time.monotonic() - since > LOCK_SECONDS:
                with suppress(RuntimeError):  # another who waits was quicker
                    self.release()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


class _File(JournalFileBackend):
    """Appends records whole, and gives the lock back, whenever Ctrl-C comes."""

    def __init__(self, path: str, interrupts: Interrupts) -> None:
        super().__init__(path, _Lock(path, interrupts))
        self._interrupts = interrupts

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._interrupts:
            super().append_logs(logs)


class _Journal(JournalStorage):
    """Applies records whole: one that counts as read but is not applied would be lost here."""

    def __init__(self, path: str) -> None:
        self._interrupts = Interrupts()
        super().__init__(_File(path, self._interrupts))

    def _sync_with_backend(self) -> None:
        with self._interrupts:
            super()._sync_with_backend()


def _made_at(link: str) -> int | None:
    """When a lock was made, ns; None if it is gone."""
    try:
        return os.lstat(link).st_mtime_ns
    except FileNotFoundError:
        return None
