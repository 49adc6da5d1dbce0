"""`torchrun -m nasaug train`, as people call it: two workers, and one of them lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nasaug

WeightsIn = Callable[[Path | str], bytes]
# Eight steps an epoch, each of two times sixteen images; checkpoints within epochs too.
LENGTH = ("--epochs=2", "--set=train.batch_size=16", "--set=train.checkpoint_every=3")
STEPS = 16
ROOT = Path(nasaug.__file__).parents[1]
# nasaug whose first worker takes a minute over each validation, and says when it begins.
SLOW_TO_VALIDATE = """
import pathlib, sys, time
import nasaug.pipelines.train as train
def slowly(*arguments):
    pathlib.Path("validates").touch()
    time.sleep(60)
train._curves = slowly
from nasaug.__main__ import run
sys.exit(run(sys.argv[1:]))
"""


class Ended(NamedTuple):
    """A job that is over; `seconds` since one of its workers was killed."""

    code: int
    out: str
    err: str
    seconds: float


class Torchrun:
    """Starts jobs of two workers in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[subprocess.Popen[str]] = []

    def start(
        self,
        *arguments: str,
        program: tuple[str, ...] = ("-m", "nasaug"),
        options: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        # As `torchrun`, which need not be in the PATH of the tests.
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
        job = subprocess.Popen(
            [*launcher, "--nproc-per-node=2", *options, *program, *arguments],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.jobs.append(job)
        return job

    def finish(self, job: subprocess.Popen[str]) -> Ended:
        began = time.monotonic()
        out, err = job.communicate(timeout=240)
        return Ended(job.returncode, out, err, time.monotonic() - began)

    def kill(self, job: subprocess.Popen[str], rank: int, when: Path) -> Ended:
        """Kill a worker as soon as the file `when` is there; the job's end."""
        deadline = time.monotonic() + 120
        while not when.exists():
            assert job.poll() is None and time.monotonic() < deadline, self.finish(job)
            time.sleep(0.01)
        os.kill(_worker(job.pid, rank), signal.SIGKILL)
        return self.finish(job)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _worker(launcher: int, rank: int) -> int:
    """The process of a worker, which knows its rank from its environment."""
    name = f"RANK={rank}".encode()
    (found,) = (
        pid
        for pid in _children(launcher)
        if name in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )
    return found


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torchrun]:
    made = Torchrun(tmp_path_factory.mktemp("torchrun"))
    yield made
    for job in made.jobs:
        for worker in _children(job.pid) if job.poll() is None else ():
            os.kill(worker, signal.SIGKILL)
        job.kill()
        job.communicate()


@pytest.fixture(scope="module")
def command(quick: tuple[str, ...]) -> tuple[str, ...]:
    return ("train", "--method=rkd", "--largest=published", *quick, *LENGTH, "--json")


@pytest.fixture(scope="module")
def whole(torchrun: Torchrun, command: tuple[str, ...]) -> tuple[Path, Ended]:
    """The run of a job that was left alone, and its end."""
    done = torchrun.finish(torchrun.start(*command, "--out=whole/run"))
    assert done.code == 0, done.err
    return torchrun.folder / "whole" / "run", done


def _measured(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if "seconds" not in key} for row in rows]


def _assert_says_what_to_do(done: Ended, survivor: int) -> None:
    """The survivor learns of it from the connection or from torchrun, whichever is first."""
    assert done.code != 0
    assert done.seconds < 60
    said = [line for line in done.err.splitlines() if line.startswith("nasaug: ")]
    lost = r"has lost another worker \((Connection closed by peer|Read error|writev) [^()]*\)"
    told = r"was told to end \(SIGTERM\), as torchrun tells all workers when one is lost"
    end = "; start the same command again with --resume"
    assert said, done.err
    for line in said:
        assert re.fullmatch(f"nasaug: worker {survivor} of 2 ({lost}|{told}){end}", line)
    # What else is there is torchrun's own: no line of our code (an environment may lie below it).
    own = re.compile(rf'File "{re.escape(str(ROOT))}/(nasaug|training|netaug|supernet|search)/')
    assert own.search(done.err) is None
    assert "TrainingFailed" not in done.err


def test_a_job_of_two_workers_makes_one_run(whole: tuple[Path, Ended]) -> None:
    run, done = whole
    assert done.out.count("\n") == 1
    assert json.loads(done.out) == json.loads((run / "result.json").read_text())
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert [row["step"] for row in _measured(run)] == [8, STEPS]
    assert done.err.count("training micro_10k") == 1


def test_a_job_that_lost_a_worker_says_so_and_resumes_to_the_same_weights(
    torchrun: Torchrun, command: tuple[str, ...], whole: tuple[Path, Ended], weights_in: WeightsIn
) -> None:
    run = torchrun.folder / "broken" / "run"
    job = torchrun.start(*command, "--out=broken/run")
    done = torchrun.kill(job, 1, run / "checkpoint" / "step-000000003.json")
    _assert_says_what_to_do(done, survivor=0)
    assert not (run / "result.json").exists()
    assert max(int(path.stem[5:]) for path in run.glob("checkpoint/*.json")) < STEPS

    again = torchrun.finish(torchrun.start(*command, "--out=broken/run", "--resume"))
    assert again.code == 0, again.err
    assert "after step" in again.err
    assert weights_in(run) == weights_in(whole[0])
    assert _measured(run) == _measured(whole[0])
    scores = [json.loads((r / "result.json").read_text())["scores"] for r in (run, whole[0])]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_the_first_worker_is_missed_too(torchrun: Torchrun, command: tuple[str, ...]) -> None:
    job = torchrun.start(*command, "--out=first")
    checkpoint = torchrun.folder / "first" / "checkpoint" / "step-000000003.json"
    _assert_says_what_to_do(torchrun.kill(job, 0, checkpoint), survivor=1)


@pytest.mark.slow
def test_a_worker_that_is_lost_while_the_first_validates_is_missed_at_once(
    torchrun: Torchrun, command: tuple[str, ...]
) -> None:
    """The first is in no collective then, and hears of it from torchrun."""
    (torchrun.folder / "slowly.py").write_text(SLOW_TO_VALIDATE)
    job = torchrun.start(*command, "--out=validating", program=("slowly.py",))
    done = torchrun.kill(job, 1, torchrun.folder / "validates")
    _assert_says_what_to_do(done, survivor=0)
    assert "told to end (SIGTERM)" in done.err
    assert done.seconds < 20


@pytest.mark.slow
def test_a_job_that_may_restart_and_resume_heals_itself(
    torchrun: Torchrun, command: tuple[str, ...], whole: tuple[Path, Ended], weights_in: WeightsIn
) -> None:
    options = ("--max-restarts=1",)
    job = torchrun.start(*command, "--out=healed", "--resume", options=options)
    run = torchrun.folder / "healed"
    done = torchrun.kill(job, 1, run / "checkpoint" / "step-000000003.json")
    assert done.code == 0, done.err
    assert weights_in(run) == weights_in(whole[0])
    assert _measured(run) == _measured(whole[0])
