"""Where a study's cells lie, and what their folders say.

    OUT/study.yaml                     the study, resolved
    OUT/cells/VERSION/NAME/            a cell: an ordinary run
    OUT/cells/VERSION/NAME.yaml        its configuration
    OUT/cells/VERSION/NAME.log         what it said
    OUT/cells/VERSION/NAME.failed      how it failed, if it did

VERSION is that of the code: cells of different code are kept apart, since their numbers do not
compare.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nasaug.comparing.cells import Cell
from nasaug.config import read_yaml
from nasaug.study_config import MethodSection, Study, dump_study
from nasaug.training import RunFolder, read_json_object, write_atomically, write_json
from nasaug.workspace import is_in_use

State = Literal["done", "running", "diverged", "failed", "waiting"]
STUDY, CELLS, MIXED = "study.yaml", "cells", "mixed.json"
LAST_LINES = 12
# What `nasaug.training.monitor` says of a loss that is not finite.
DIVERGED = re.compile(r"the loss of .+ became \S+ at step \d+")
# What may change while a study goes on: it adds cells, or chooses among them.
MAY_DIFFER = {"question", "answer", "targets", "seeds", "tune", "equal", "workers", "threads"}


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
    """The cells of one study made by one version of the code. Only `fail`, `forget` and `prepare`
    write."""

    def __init__(self, out: Path, version: str) -> None:
        self.out, self.version = out.resolve(), version
        self.root = self.out / CELLS / version
        self._results: dict[str, dict[str, Any]] = {}

    def folder(self, name: str) -> Path:
        return self.root / name

    def beside(self, name: str, ending: str) -> Path:
        return self.root / f"{name}.{ending}"

    def result(self, name: str) -> dict[str, Any] | None:
        """What the cell came to; None while it has not. Raises: ValueError for a damaged file."""
        if name not in self._results:
            try:
                self._results[name] = read_json_object(self.folder(name) / "result.json")
            except FileNotFoundError:
                return None
        return self._results[name]

    def failure(self, name: str) -> Failure | None:
        try:
            said = read_json_object(self.beside(name, "failed"))
        except FileNotFoundError:
            return None
        return Failure(int(said.get("code", 1)), tuple(map(str, said.get("lines", ()))))

    def state(self, name: str) -> State:
        if self.result(name) is not None:
            return "done"
        if is_in_use(self.folder(name)):
            return "running"
        failure = self.failure(name)
        if failure is None:
            return "waiting"
        return "diverged" if failure.diverged else "failed"

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A line an epoch, as far as the cell is."""
        return RunFolder(self.folder(name), writes=False).metrics()

    def cost(self, name: str) -> dict[str, float | None]:
        """MACs and seconds of a run that others build on; None where it does not say.

        A search's are those of its supernet's training: judging candidates is not counted.
        """
        result = self.result(name) or {}
        if "train_macs" in result:
            return {key: result.get(f"train_{key}") for key in ("macs", "seconds")}
        rows = RunFolder(self.folder(name) / "supernet", writes=False).metrics()
        sums: dict[str, float | None] = {}
        for key in ("macs", "seconds"):
            known = bool(rows) and all(key in row for row in rows)
            sums[key] = sum(float(row[key]) for row in rows) if known else None
        return sums

    def prepare(self, study: Study) -> None:
        """Make the folder and write the study."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / STUDY, dump_study(study))

    def fail(self, cell: Cell, code: int) -> Failure:
        """Record how a cell ended, with the last lines that it said."""
        text = self.beside(cell.name, "log").read_text(encoding="utf-8", errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
        failure = Failure(code, tuple(lines))
        write_json(self.beside(cell.name, "failed"), {"code": code, "lines": lines})
        return failure

    def forget_failure(self, name: str) -> None:
        self.beside(name, "failed").unlink(missing_ok=True)

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


def versions_in(out: Path) -> dict[str, int]:
    """How many finished cells there are of each version of the code, the newest version first."""
    folders = [path for path in (out / CELLS).glob("*") if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.name: len(list(path.glob("*/result.json"))) for path in folders}


def check_same_study(out: Path, study: Study) -> None:
    """Raises: ValueError if the folder holds another study, or something else."""
    path = out / STUDY
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, but {out} is a file")
    if not path.exists():
        if out.is_dir() and any(entry.name != ".lock" for entry in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no study; choose another --out")
        return
    theirs, mine = _settled(read_yaml(path)), _settled(study.model_dump(mode="json"))
    for key in sorted(theirs.keys() & mine.keys()):
        if theirs[key] != mine[key]:
            raise ValueError(
                f"{out} holds another study ({key}: {theirs[key]} there, {mine[key]} here); "
                "choose another --out"
            )


def _settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay as it is for cells to compare, by dotted key. Methods and runs before may
    come and go; while they are there they stay the same."""
    flat: dict[str, Any] = {"base": values.get("base"), "baseline": values.get("baseline")}
    for name, method in (values.get("methods") or {}).items():
        own = MethodSection.model_fields
        flat[f"methods.{name}"] = {key: method[key] for key in method if key not in own}
    for name, before in (values.get("before") or {}).items():
        flat[f"before.{name}"] = before
    return flat
