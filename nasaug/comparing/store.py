"""Where cells lie, and what their folders say.

    CELLS/VERSION/CELL/            a cell: an ordinary run
    CELLS/VERSION/CELL.yaml        its configuration
    CELLS/VERSION/CELL.log         what it said; locked by the study that runs it
    CELLS/VERSION/CELL.failed      how it failed, if it did
    CELLS/VERSION/tables/          the targets that are somebody's own tables
    CELLS/VERSION/mixed.json       other versions of the code that worked here, on request

VERSION is that of the code: cells of different code are kept apart, since their numbers do not
compare. CELL is the cell's identity, so that all studies share what they have in common.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from nasaug.comparing.identity import table_digest
from nasaug.comparing.versions import DETECTORS
from nasaug.training import RunFolder, read_json_object, write_atomically, write_json
from nasaug.workspace import is_in_use

State = Literal["done", "running", "diverged", "failed", "waiting"]
MIXED, TABLES, RESULT, ROWS = "mixed.json", "tables", "result.json", "metrics.jsonl"
# What an epoch's row says of its cost, and a result, as train_NAME, of a training's.
COSTS = ("macs", "seconds", "cpu_seconds")
LAST_LINES = 12
# What `nasaug.training.monitor` says of a loss that is not finite.
DIVERGED = re.compile(r"the loss of .+ became \S+ at step \d+")


@dataclass(frozen=True)
class Failure:
    """How a cell failed. One that diverged does so again whenever it is tried."""

    code: int
    lines: tuple[str, ...]

    @property
    def diverged(self) -> bool:
        return any(DIVERGED.search(line) for line in self.lines)

    @property
    def text(self) -> str:
        """One line: how it ended, and the last that it said."""
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"{how}: {self.lines[-1]}" if self.lines else how


class Store:
    """The cells made by one version of the code, by their identities. Nothing is remembered but
    results, which never change."""

    def __init__(self, cells: Path, version: str) -> None:
        self.cells, self.version = cells.resolve(), version
        self.root = self.cells / version
        self._results: dict[str, dict[str, Any]] = {}

    def folder(self, cell: str) -> Path:
        return self.root / cell

    def beside(self, cell: str, ending: str) -> Path:
        return self.root / f"{cell}.{ending}"

    def result(self, cell: str) -> dict[str, Any] | None:
        """What the cell came to; None while it has not. Raises: ValueError for a damaged file."""
        if cell not in self._results:
            try:
                self._results[cell] = read_json_object(self.folder(cell) / RESULT)
            except FileNotFoundError:
                return None
        return self._results[cell]

    def failure(self, cell: str) -> Failure | None:
        try:
            said = read_json_object(self.beside(cell, "failed"))
        except FileNotFoundError:
            return None
        return Failure(int(said.get("code", 1)), tuple(map(str, said.get("lines", ()))))

    def state(self, cell: str) -> State:
        if self.result(cell) is not None:
            return "done"
        if self._claimed(cell) or is_in_use(self.folder(cell)):
            return "running"
        failure = self.failure(cell)
        if failure is None:
            return "waiting"
        return "diverged" if failure.diverged else "failed"

    def rows(self, cell: str) -> list[dict[str, Any]]:
        """A line an epoch, as far as the cell is."""
        return RunFolder(self.folder(cell), writes=False).metrics()

    def last_row_at(self, cell: str) -> float:
        """When the last row was written, by the clock in seconds; 0 if there is none."""
        try:
            return (self.folder(cell) / ROWS).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def cost(self, cell: str) -> dict[str, float | None]:
        """MACs, seconds and CPU seconds of a run that others build on; None where it does not say.

        A search's are those of its supernet's training; MACs of judging candidates come on top.
        """
        result = self.result(cell) or {}
        if "train_macs" in result:
            return {key: result.get(f"train_{key}") for key in COSTS}
        rows = RunFolder(self.folder(cell) / "supernet", writes=False).metrics()
        sums: dict[str, float | None] = {}
        for key in COSTS:
            known = bool(rows) and all(key in row for row in rows)
            sums[key] = sum(float(row[key]) for row in rows) if known else None
        if sums["macs"] is not None:
            sums["macs"] += float(result.get("judging_macs", 0))
        return sums

    def claim(self, cell: str) -> IO[bytes] | None:
        """The cell's log, empty, for the one who may run it: locked until it is closed here and in
        the process that writes to it, however they end. None while somebody else has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        log = open(self.beside(cell, "log"), "ab")  # noqa: SIM115
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            return None
        if self.result(cell) is not None:  # it was finished since it was last looked at
            log.close()
            return None
        log.truncate(0)
        return log

    def _claimed(self, cell: str) -> bool:
        try:
            with open(self.beside(cell, "log"), "rb") as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def keep_table(self, target: str) -> str:
        """The path of a copy of a target's table, the same for equal tables of all studies.

        Raises: OSError.
        """
        path = Path(target)
        kept = self.root / TABLES / table_digest(target) / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, path.read_text(encoding="utf-8"))
        return str(kept)

    def fail(self, cell: str, code: int) -> Failure:
        """Record how a cell ended, with the last lines that it said."""
        text = self.beside(cell, "log").read_text(encoding="utf-8", errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
        failure = Failure(code, tuple(lines))
        write_json(self.beside(cell, "failed"), {"code": code, "lines": lines})
        return failure

    def forget_failure(self, cell: str) -> None:
        self.beside(cell, "failed").unlink(missing_ok=True)

    def mixed(self) -> list[str]:
        """Other versions of the code that cells of this one were gone on with, on request."""
        try:
            return list(json.loads((self.root / MIXED).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return []

    def mix(self, version: str) -> None:
        """Remember that code of another version works on these cells."""
        versions = self.mixed()
        if version not in (self.version, *versions):
            write_json(self.root / MIXED, [*versions, version])

    def elsewhere(self, cells: Iterable[str]) -> dict[str, int]:
        """How many of these cells other versions of the code have finished, the newest first.

        It is not how many they have of the study, whose cells follow from a version's results.
        """
        wanted, counts = [*cells], {}
        for version in versions_in(self.cells, self.version):
            finished = [(self.cells / version / cell / RESULT).exists() for cell in wanted]
            if version != self.version and any(finished):
                counts[version] = sum(finished)
        return counts

    def code_of(self, cells: Iterable[str]) -> dict[str, Any]:
        """What a summary of these cells says of the code that made them."""
        return {
            "code": self.version,
            "mixed_code": self.mixed(),
            "other_code": self.elsewhere(cells),
        }


def versions_in(cells: Path, like: str) -> list[str]:
    """The versions of the code that cells are there of, the newest first: those that are of as much
    code as the version `like`."""
    of_detectors = like.endswith(DETECTORS)
    folders = [
        path for path in cells.glob("*")
        if path.is_dir() and path.name.endswith(DETECTORS) == of_detectors
    ]  # fmt: skip
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.name for path in folders]
