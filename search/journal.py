"""The study's journal, as a killed process may have left it."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

JOURNAL_BEGINS = b'{"op_code"'


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
    # Optuna would wait for ever for a stale lock that was made by a relative path.
    return JournalStorage(JournalFileBackend(str(path.resolve())))
