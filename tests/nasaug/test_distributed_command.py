"""`nasaug train` in two processes, as torchrun starts them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

WeightsIn = Callable[[Path | str], bytes]
# The second process comes to the run's folder when the first has long begun in it.
LATE = """
import os, pathlib, sys, time
import nasaug.pipelines.train as train
locate, folder = train.locate_run, pathlib.Path(sys.argv[1])
def late(*arguments, **options):
    for _ in range(500 if os.environ["RANK"] == "1" else 0):
        if (folder / "config.yaml").exists():
            break
        time.sleep(0.01)
    return locate(*arguments, **options)
train.locate_run = late
from nasaug.__main__ import run
sys.exit(run(sys.argv[2:]))
"""


def _in_two_processes(shell: Any, out: str, *arguments: str) -> list[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        shell.python(LATE, out, *arguments, f"--out={out}", RANK=rank, LOCAL_RANK=rank, **group)
        for rank in ("0", "1")
    ]
    return [shell.finish(process) for process in processes]


def test_the_first_process_writes_and_prints(
    shell: Any, quick: tuple[str, ...], tmp_path: Path
) -> None:
    first, second = _in_two_processes(shell, "here", "train", *quick, "--json")
    assert (first.code, second.code) == (0, 0)
    assert first.json == json.loads((tmp_path / "here" / "result.json").read_text())
    assert second.out == ""
    assert len((tmp_path / "here" / "metrics.jsonl").read_text().splitlines()) == 1
