"""The file beside a table in which a measurement keeps its repeats until it is complete.

A line of JSON a burst, appended as it comes, so that an interrupted measurement goes on where it
was. The first line says under which conditions it is measured.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from nasaug.devices.entries import RowKey
from nasaug.devices.samples import Samples
from nasaug.supernet.rows import row_from_dict, row_to_dict


class SamplesFile:
    """Bursts of repeats in the order in which they were measured."""

    def __init__(self, path: Path, conditions: Mapping[str, str]) -> None:
        self.path, self.conditions = path, dict(conditions)

    def read(self) -> Samples:
        """What an earlier measurement kept; nothing if there was none. A last line that a kill cut
        off is dropped from the file.

        Raises: ValueError for a damaged file, and one measured under other conditions.
        """
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content.rpartition(b"\n")[0]
        if content and not content.endswith(b"\n"):
            kept = whole + b"\n" if whole else b""
            with open(self.path, "r+b") as file:
                file.truncate(len(kept))
        lines = whole.splitlines()
        if not lines:
            return {}
        samples: Samples = {}
        try:
            conditions = json.loads(lines[0])
            for line in lines[1:]:
                key, burst = _entry(json.loads(line))
                samples.setdefault(key, []).append(burst)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); delete it to measure from the start"
            ) from None
        check_conditions(str(self.path), conditions, self.conditions)
        return samples

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Something to give bursts to; held by one process at a time.

        Raises: ValueError if another process is measuring; OSError.
        """
        with open(self.path, "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process is measuring into {self.path}; name another --out"
                ) from None
            if file.tell() == 0:
                _write(file, self.conditions)
            yield Appender(file)


class Appender:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, key: RowKey | None, burst: Sequence[int]) -> None:
        place = None
        if key is not None:
            place = [row_to_dict(key.row), key.in_channels, key.size]
        _write(self._file, {"row": place, "ns": list(burst)})


def check_conditions(name: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Raises: ValueError where the same numbers would not be measured again."""
    for key, value in ours.items():
        found = theirs.get(key)
        if found != value:
            raise ValueError(
                f"{name} was measured with {key} {found or 'unknown'}, but here it is {value}; "
                "name another --out"
            )


def _write(file: TextIO, value: Any) -> None:
    file.write(json.dumps(value) + "\n")
    file.flush()


def _entry(line: dict[str, Any]) -> tuple[RowKey | None, list[int]]:
    key = None
    if line["row"] is not None:
        row, in_channels, size = line["row"]
        key = RowKey(row_from_dict(row), int(in_channels), int(size))
    burst = [int(repeat) for repeat in line["ns"]]
    if not burst:
        raise ValueError("a burst without repeats")
    return key, burst
