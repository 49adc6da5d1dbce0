"""Running cells side by side: failures, interruptions, what is tried again and what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.comparing.cells import Cell
from nasaug.comparing.plan import Plan, Planner
from nasaug.comparing.runner import IN_USE, Runner
from nasaug.comparing.status import status
from nasaug.comparing.store import Store
from nasaug.study_config import Study

SMALL = {"tune": {"grid": [0.1, 0.2, 0.3]}, "seeds": 2}
TUNED = "micro_10k-baseline-e10-lr0.1-s1000000"


@pytest.fixture
def run(tmp_path: Path, stand_in: Any) -> Callable[..., Planner]:
    """Runs a study with the stand-in and returns its planner."""

    def start(study: Study, workers: int = 2, watch: Any = None) -> Planner:
        planner = Planner(study, Store(tmp_path / "cells", "code"))
        with Runner(planner, workers, command=stand_in) as runner:
            runner.run(watch or (lambda cell, plan: None))
        return planner

    return start


def states(planner: Planner) -> dict[str, int]:
    return {k: v for k, v in status(planner, planner.plan(), 1).counts.items() if v}


def test_all_cells_run_and_leave_their_results(kit: Any, run: Any, stand_in: Any) -> None:
    seen: list[str] = []

    def watch(cell: Cell, plan: Plan) -> None:
        seen.append(cell.name)

    planner = run(kit.study(**SMALL), watch=watch)
    assert states(planner) == {"done": 10}
    began = [name for what, name, _ in stand_in.log if what == "begin"]
    cells = planner.plan().cells
    assert sorted(seen) == sorted(cell.name for cell in cells)
    assert sorted(began) == sorted(cell.identity for cell in cells)
    assert not list((planner.store.root).glob("*/checkpoint"))
    for name in began:
        assert planner.store.beside(name, "yaml").is_file()


def test_cells_run_side_by_side_as_many_as_workers(kit: Any, run: Any, stand_in: Any) -> None:
    stand_in.act({}, seconds=0.6)
    run(kit.study(**SMALL), workers=3)
    now, most = 0, 0
    for what, _, _ in stand_in.log:
        now += 1 if what == "begin" else -1
        most = max(most, now)
    assert most == 3


def test_what_is_done_is_not_done_again(kit: Any, run: Any, stand_in: Any) -> None:
    run(kit.study(**SMALL))
    before = len(stand_in.log)
    planner = run(kit.study(**{**SMALL, "seeds": 3}))
    new = {name.rpartition("-")[0] for _, name, _ in stand_in.log[before:]}
    assert new == {f"micro_10k-{method}-e10-lr0.2-s2" for method in ("baseline", "netaug")}
    assert states(planner) == {"done": 12}


def test_a_failed_cell_stops_nobody_and_is_tried_again_next_time(
    kit: Any, run: Any, stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = "micro_10k-netaug-e10-lr0.2-s0"
    text = "first\nnasaug: No space left on device"
    stand_in.act({f"{broken}": {"do": "say", "text": text, "code": 1}})
    planner = run(kit.study(**SMALL))
    assert states(planner) == {"done": 9, "failed": 1}
    (cell,) = [cell for cell in planner.plan().cells if cell.name == broken]
    failure = planner.store.failure(cell.identity)
    assert (failure.code, failure.lines[-1]) == (1, "nasaug: No space left on device")
    assert f"{broken} failed: exit code 1: nasaug: No space left" in capsys.readouterr().err
    assert [name for _, name, _ in stand_in.log].count(cell.identity) == 1
    stand_in.act({})
    assert states(run(kit.study(**SMALL))) == {"done": 10}


def test_a_rate_that_diverges_is_not_tried_again(kit: Any, run: Any, stand_in: Any) -> None:
    text = "nasaug: the loss of target became nan at step 3: the learning rate of 0.3 is probably"
    stand_in.act({"netaug-e10-lr0.3": {"do": "say", "text": text, "code": 1}})
    for _ in range(2):
        planner = run(kit.study(**SMALL))
        assert states(planner) == {"done": 9, "diverged": 1}
    began = [name for what, name, _ in stand_in.log if what == "begin"]
    assert len(began) == len(set(began)) == 10


def test_a_cell_whose_folder_was_in_use_is_started_again(kit: Any, run: Any, stand_in: Any) -> None:
    """Somebody who asks for the state of a folder holds its lock for a moment."""
    stand_in.act({TUNED: {"do": "say", "text": f"nasaug: {IN_USE} x", "code": 2}})
    timer = threading.Timer(0.5, lambda: stand_in.act({}))
    timer.start()
    planner = run(kit.study(**SMALL))
    timer.join()
    assert states(planner) == {"done": 10}
    assert sum(name.startswith(TUNED) for _, name, _ in stand_in.log) > 2


def test_cells_wait_for_what_they_build_on(kit: Any, run: Any, stand_in: Any) -> None:
    methods = {"baseline": {}, "netaug": {"largest": "before:other"}}
    before = {"other": {"train": {"target": "micro_40k", "train": {"lr": 0.2}}}}
    study = kit.study(**SMALL, methods=methods, before=before)
    text = {"do": "say", "text": "nasaug: broken", "code": 1}
    stand_in.act({"micro_40k": text})
    planner = run(study)
    assert states(planner) == {"done": 5, "failed": 1, "waiting": 3 + 2}
    assert not any("netaug" in name for _, name, _ in stand_in.log)
    stand_in.act({})
    assert states(run(study)) == {"done": 11}


def test_an_error_stops_the_running_cells(kit: Any, run: Any, stand_in: Any) -> None:
    stand_in.act({"lr0.3": {"do": "hang"}})

    def interrupt(cell: Cell, plan: Plan) -> None:
        if len([w for w, _, _ in stand_in.log if w == "begin"]) >= 3:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(kit.study(**SMALL), watch=interrupt)
    assert time.monotonic() - began < 20
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(stand_in.plan) not in left


def test_no_cell_begins_once_the_code_has_changed(kit: Any, tmp_path: Path, stand_in: Any) -> None:
    class Edited:
        version = "code"

        def changed(self) -> bool:
            return len(stand_in.log) >= 4

    study = kit.study(**SMALL)
    planner = Planner(study, Store(tmp_path / "cells", "code"))
    with Runner(planner, 1, Edited(), command=stand_in) as runner:  # type: ignore[arg-type]
        assert runner.run(lambda cell, plan: None)
    assert 2 <= states(planner)["done"] < 6


def test_a_cell_ends_when_the_study_that_began_it_is_killed(tmp_path: Path) -> None:
    """Its process asks who its parent is; SIGKILL leaves no other way to tell it."""
    program = (
        "import os, subprocess, sys, time\n"
        "child = 'import nasaug.comparing.cell as c, time; c.run = lambda a: time.sleep(600); "
        "c.main()'\n"
        "p = subprocess.Popen([sys.executable, '-c', child, str(os.getpid()), 'train'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    assert _alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.returncode == 0 and not found.stdout.startswith("Z")
