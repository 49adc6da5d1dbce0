"""The other workers of a search on this machine: the same command, joining."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from nasaug.console import say

GOODBYE_SECONDS = 60.0


class Fellows:
    """Up to `workers` - 1 processes that join the search in `run`; this process is one more.

    `start` begins them and shares the threads out: torch's here become so many fewer. A fellow that
    dies is remarked on, and the others do its work. A context: its end waits for them, or ends them
    when an error ends it.
    """

    def __init__(self, run: Path, workers: int) -> None:
        self._run, self._count = run, workers - 1
        self._fellows: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self) -> None:
        if self._count == 0:
            return
        threads = max(1, torch.get_num_threads() // (self._count + 1))
        torch.set_num_threads(threads)
        command = [sys.executable, "-m", "nasaug", "search"]
        command += ["--config", str(self._run / "config.yaml"), "--out", str(self._run)]
        command += ["--join", "--set", f"threads={threads}"]
        folder = self._run / "workers"
        for number in range(1, self._count + 1):
            log = folder / f"worker-{number}.log"
            with open(log, "w") as file:
                self._fellows.append((subprocess.Popen(command, stdout=file, stderr=file), log))
        say(f"{self._count + 1} workers of {threads} thread(s) each; their logs: {folder}")

    def __enter__(self) -> Fellows:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        for fellow, log in self._fellows:
            if error is not None:
                fellow.terminate()
                fellow.wait()
                continue
            try:
                code = fellow.wait(GOODBYE_SECONDS)
            except subprocess.TimeoutExpired:
                fellow.terminate()
                fellow.wait()
                say("a worker was still judging a candidate beyond the last one, and was stopped")
                continue
            if code != 0:
                say(f"a worker ended early (exit code {code}); see {log}")
