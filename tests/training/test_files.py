"""Files are the old or the new, never half: when a write fails, and when the disk is full."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nasaug.training import read_json_object, write_atomically, write_json
from nasaug.training.files import append_line

# A process that may write no file beyond 250 bytes: writes fail half-way, as on a full disk.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from nasaug.training.files import append_line, write_atomically

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))
write = {"append": append_line, "replace": write_atomically}[sys.argv[1]]
failed = 0
for size in (99, 99, 99, 300, 20):
    try:
        write(Path(sys.argv[2]), chr(96 + size % 26) * size)
    except OSError as error:
        failed += 1
print(failed)
"""


def _on_full_disk(how: str, path: Path) -> int:
    """The number of writes that failed."""
    command = [sys.executable, "-c", FULL_DISK, how, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(result.stdout)


def test_content_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "first, longer")
    write_atomically(path, b"\xffsecond")
    assert path.read_bytes() == b"\xffsecond"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "é")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_json_is_written_with_a_final_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": [1, None]})
    text = (tmp_path / "file").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.endswith("}\n")


def test_json_object_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": [1, None], "é": 0.1})
    assert read_json_object(tmp_path / "file") == {"a": [1, None], "é": 0.1}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"3", b"\xff", b"[" * 100_000])
def test_file_without_a_json_object_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file is damaged"):
        read_json_object(tmp_path / "file")


def test_missing_json_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "file")


@pytest.mark.parametrize("failing", ["replace", "fsync", "chmod", "fdopen"])
def test_failed_write_leaves_the_old_content_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", "old")

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "file", "new")
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disk_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    """300 bytes do not fit, 20 do again."""
    path = tmp_path / "file"
    assert _on_full_disk("replace", path) == 1
    assert path.read_text() == chr(96 + 20) * 20
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", "")
    with pytest.raises(FileNotFoundError):
        append_line(tmp_path / "missing" / "file", "")


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    for line in ("one", "", "drei: ä"):
        append_line(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "one\n\ndrei: ä\n"


def test_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    """Two lines of 100 bytes fit, and the last one of 21 does again."""
    path = tmp_path / "lines"
    assert _on_full_disk("append", path) == 2
    assert [len(line) for line in path.read_text().split("\n")] == [99, 99, 20, 0]
