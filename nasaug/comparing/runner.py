"""Running a study's cells, several side by side, each in a process of its own.

Other studies may run cells of the same folder at the same time: whoever holds a cell's log runs it,
and the others wait for what it comes to.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, Protocol, TypeVar

from nasaug.comparing.cells import Cell
from nasaug.comparing.identity import identity, is_table
from nasaug.comparing.store import Store
from nasaug.comparing.versions import Code
from nasaug.config import dump_config
from nasaug.console import say
from nasaug.training import write_atomically

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_FOR_OTHERS = 1.0
GOODBYE_SECONDS = 30.0
IN_USE = "another process is working in"
Command = Callable[[str, Path, Path], list[str]]


class Planned(Protocol):
    """Cells in the order in which they are to run."""

    @property
    def cells(self) -> tuple[Cell, ...]: ...


Plan = TypeVar("Plan", bound=Planned)
Made = TypeVar("Made", bound=Planned, covariant=True)


class Plans(Protocol[Made]):
    """Makes plans from what the store holds; its cells have so many threads each."""

    store: Store

    @property
    def threads(self) -> int: ...
    def plan(self) -> Made: ...


def train_command(command: str, config: Path, folder: Path) -> list[str]:
    """The command of a cell: an ordinary run that resumes, in a process that ends with this one."""
    module = [sys.executable, "-m", "nasaug.comparing.cell", str(os.getpid())]
    return [*module, command, "--config", str(config), "--out", str(folder), "--resume", "--json"]


@dataclass(frozen=True)
class Running:
    """`log` is the claim on the cell: it is closed when all about the cell is written."""

    cell: Cell
    process: subprocess.Popen[bytes]
    log: IO[bytes]


@dataclass
class Runner(Generic[Plan]):
    """Runs what the plan has ready until nothing is, `workers` cells at a time.

    A cell that fails is recorded and not tried again by this runner. A context: its end, however it
    comes, stops the cells that still run; they go on where they stopped the next time.
    """

    planner: Plans[Plan]
    workers: int
    code: Code | None = None
    command: Command = train_command
    running: list[Running] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)

    @property
    def store(self) -> Store:
        return self.planner.store

    def __enter__(self) -> Runner[Plan]:
        return self

    def __exit__(self, *error: object) -> None:
        for one in self.running:
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + GOODBYE_SECONDS
        for one in self.running:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            one.log.close()
        self.running.clear()

    def run(self, watch: Callable[[Cell, Plan], object]) -> bool:
        """Run everything; `watch(cell, plan)` after every cell that ended here.

        Returns whether it was stopped because the code changed meanwhile.
        """
        plan, stale = self.planner.plan(), False
        theirs: list[str] = []
        while True:
            if not stale and len(self.running) < self.workers:
                ready, theirs = self._ready(plan)
                stale = self._fill(ready)
                if not (self.running or ready or theirs):
                    # Others may have finished something between the plan and the look.
                    before, plan = plan, self.planner.plan()
                    if plan == before:
                        return stale
            if stale and not self.running:
                return stale
            time.sleep(SECONDS_BETWEEN_LOOKS if self.running else SECONDS_FOR_OTHERS)
            ended = [one for one in self.running if one.process.poll() is not None]
            for one in ended:
                self.running.remove(one)
                self._end(one)
            if ended or any(map(self.store.result, theirs)):
                plan, theirs = self.planner.plan(), []
            for one in ended:
                watch(one.cell, plan)

    def _ready(self, plan: Plan) -> tuple[list[Cell], list[str]]:
        """Cells that can be started now, in their order; and those that others work on."""
        ready, theirs = [], []
        own = {one.cell.identity for one in self.running} | self.tried
        for cell in plan.cells:
            if cell.identity in own:
                continue
            state = self.store.state(cell.identity)
            if state == "running":
                theirs.append(cell.identity)
            elif state in ("waiting", "failed") and all(map(self.store.result, cell.needs)):
                ready.append(cell)
        return ready, theirs

    def _fill(self, ready: list[Cell]) -> bool:
        """Start cells while there is room; returns whether the code has changed."""
        for cell in ready:
            if len(self.running) >= self.workers:
                break
            if self.code is not None and self.code.changed():
                return True
            self._start(cell)
        return False

    def _start(self, cell: Cell) -> None:
        """Unless another study has begun it at this moment."""
        log = self.store.claim(cell.identity)
        if log is None:
            return
        try:
            process = self._begun(cell, log)
        except BaseException:
            log.close()
            raise
        self.running.append(Running(cell, process, log))

    def _begun(self, cell: Cell, log: IO[bytes]) -> subprocess.Popen[bytes]:
        if identity(cell.config, self.store.root) != cell.identity:
            raise ValueError(
                f"a file that {cell.name} is made from changed while the study ran; start it again"
            )
        config, target = cell.config, cell.config.target
        if is_table(target):
            config = config.model_copy(update={"target": self.store.keep_table(target)})
        text, folder = dump_config(config), self.store.folder(cell.identity)
        path = self.store.beside(cell.identity, "yaml")
        begun = folder / "config.yaml"
        # The study that began it may have had its data elsewhere; nothing else can differ.
        for file in (path, begun) if begun.exists() else (path,):
            write_atomically(file, text)
        self.store.forget_failure(cell.identity)
        threads = str(self.planner.threads)
        # A session of its own: Ctrl-C on the terminal reaches the study, which tells its cells.
        return subprocess.Popen(
            self.command(cell.command, path, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            start_new_session=True,
        )

    def _end(self, one: Running) -> None:
        cell, code = one.cell, one.process.returncode
        with one.log:
            if code == 0 and self.store.result(cell.identity) is not None:
                folder = self.store.folder(cell.identity)
                shutil.rmtree(folder / "checkpoint", ignore_errors=True)
                return
            failure = self.store.fail(cell.identity, code)
            if failure.lines and IN_USE in failure.lines[-1]:
                # Somebody looked at, or still worked in, its folder: it is started again.
                self.store.forget_failure(cell.identity)
                return
        self.tried.add(cell.identity)
        say(f"{cell.name} {'diverged' if failure.diverged else 'failed'}: {failure.text}")
