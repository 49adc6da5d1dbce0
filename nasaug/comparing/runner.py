"""Running a study's cells, several side by side, each in a process of its own."""

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

from nasaug.comparing.cells import Cell
from nasaug.comparing.plan import Plan, Planner
from nasaug.comparing.store import Store
from nasaug.comparing.versions import Code
from nasaug.config import dump_config
from nasaug.console import say
from nasaug.training import write_atomically

SECONDS_BETWEEN_LOOKS = 0.2
GOODBYE_SECONDS = 30.0
IN_USE = "another process is working in"
Command = Callable[[str, Path, Path], list[str]]


def train_command(command: str, config: Path, folder: Path) -> list[str]:
    """The command of a cell: an ordinary run that resumes, in a process that ends with this one."""
    module = [sys.executable, "-m", "nasaug.comparing.cell", str(os.getpid())]
    return [*module, command, "--config", str(config), "--out", str(folder), "--resume", "--json"]


@dataclass
class Runner:
    """Runs what the plan has ready until nothing is, `workers` cells at a time.

    A cell that fails is recorded and not tried again by this runner. A context: its end, however it
    comes, stops the cells that still run; they go on where they stopped the next time.
    """

    planner: Planner
    workers: int
    code: Code | None = None
    command: Command = train_command
    running: dict[str, tuple[Cell, subprocess.Popen[bytes]]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)

    @property
    def store(self) -> Store:
        return self.planner.store

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        for _, process in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + GOODBYE_SECONDS
        for _, process in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()

    def run(self, watch: Callable[[Cell, Plan], object]) -> bool:
        """Run everything; `watch(cell, plan)` after every cell that ended.

        Returns whether it was stopped because the code changed meanwhile.
        """
        plan, stale = self.planner.plan(), False
        while True:
            if not stale and len(self.running) < self.workers:
                ready, busy = self._ready(plan)
                for cell in ready[: self.workers - len(self.running)]:
                    stale = stale or (self.code is not None and self.code.changed())
                    if not stale:
                        self._start(cell)
                if not self.running and (stale or not (ready or busy)):
                    return stale
            elif not self.running:
                return stale
            time.sleep(SECONDS_BETWEEN_LOOKS)
            ended = [one for one in self.running.values() if one[1].poll() is not None]
            for cell, process in ended:
                del self.running[cell.name]
                self._end(cell, process.returncode)
            if ended or not self.running:
                plan = self.planner.plan()
            for cell, _ in ended:
                watch(cell, plan)

    def _ready(self, plan: Plan) -> tuple[list[Cell], bool]:
        """Cells that can be started now, in their order; and whether others work on some."""
        ready, busy = [], False
        for cell in plan.cells:
            if cell.name in self.running or cell.name in self.tried:
                continue
            state = self.store.state(cell.name)
            if state == "running":
                busy = True
            elif state in ("waiting", "failed") and all(map(self.store.result, cell.needs)):
                ready.append(cell)
        return ready, busy

    def _start(self, cell: Cell) -> None:
        config, log = (self.store.beside(cell.name, ending) for ending in ("yaml", "log"))
        write_atomically(config, dump_config(cell.config()))
        self.store.forget_failure(cell.name)
        threads = str(self.planner.study.threads)
        command = self.command(cell.command, config, self.store.folder(cell.name))
        with open(log, "wb") as file:
            # A session of its own: Ctrl-C on the terminal reaches the study, which tells its cells.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                start_new_session=True,
            )
        self.running[cell.name] = cell, process

    def _end(self, cell: Cell, code: int) -> None:
        if code == 0 and self.store.result(cell.name) is not None:
            shutil.rmtree(self.store.folder(cell.name) / "checkpoint", ignore_errors=True)
            return
        failure = self.store.fail(cell, code)
        if failure.lines and IN_USE in failure.lines[-1]:
            # Somebody looked at, or still worked in, its folder: it is started again.
            self.store.forget_failure(cell.name)
            return
        self.tried.add(cell.name)
        say(f"{cell.name} {'diverged' if failure.diverged else 'failed'}: {failure.text}")
