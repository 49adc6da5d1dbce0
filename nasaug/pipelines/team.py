"""The other workers of a search on this machine: the same command, joining."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nasaug.console import say

GOODBYE_SECONDS = 60.0


@contextmanager
def fellow_workers(run: Path, workers: int) -> Iterator[None]:
    """`workers` - 1 processes that join the search in `run`; this process is one more.

    The threads are shared out: torch's here become so many fewer. A fellow that dies is remarked
    on, and the others do its work.
    """
    if workers == 1:
        yield
        return
    threads = max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(threads)
    command = [sys.executable, "-m", "nasaug", "search", "--config", str(run / "config.yaml")]
    command += ["--out", str(run), "--join", "--set", f"threads={threads}"]
    logs = [run / "workers" / f"worker-{number}.log" for number in range(1, workers)]
    logs[0].parent.mkdir(exist_ok=True)
    fellows = []
    for log in logs:
        with open(log, "w") as file:
            fellows.append(subprocess.Popen(command, stdout=file, stderr=file))
    say(f"{workers} workers of {threads} thread(s) each; their logs: {logs[0].parent}")
    try:
        yield
    except BaseException:
        for fellow in fellows:
            fellow.terminate()
        raise
    finally:
        for fellow, log in zip(fellows, logs, strict=True):
            if fellow.wait(GOODBYE_SECONDS) != 0:
                say(f"a worker ended early (exit code {fellow.returncode}); see {log}")
