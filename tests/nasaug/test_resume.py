"""Runs that were killed, interrupted or finished go on where they were, and only where asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from nasaug.__main__ import run
from nasaug.search import InheritedAccuracy

Nasaug = Callable[..., Any]
WeightsIn = Callable[[Path | str], bytes]
# Eight epochs of four steps, wide and narrow ones, with checkpoints within epochs too.
LONG = ("--epochs=8", "--set=train.checkpoint_every=3", "--set=train.ema=0.9")
SEARCH = ("--budget=2M", "--trials=8", "--sampler=evolution")
# A search that dies by SIGKILL while its fifth candidate is judged.
DYING = """
import os, signal, sys
from nasaug.__main__ import run
from nasaug.__main__ import run
from nasaug.search import InheritedAccuracy
judge, judged = InheritedAccuracy.__call__, []
def dying(self, arch):
    judged.append(arch)
    if len(judged) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(self, arch)
InheritedAccuracy.__call__ = dying
sys.exit(run(sys.argv[1:]))
"""


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until `path` exists; the process must still be at work then."""
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"it ended before {path} was there: {process.communicate()[1]}")
        time.sleep(0.002)


def _metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def _trials(run: Path, state: str = "COMPLETE") -> list[tuple[dict[str, Any], float | None]]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    study = optuna.load_study(study_name=None, storage=storage)
    return [(trial.params, trial.value) for trial in study.trials if trial.state.name == state]


def test_a_killed_training_ends_in_the_same_weights(
    nasaug: Nasaug,
    shell: Any,
    quick: tuple[str, ...],
    tmp_path: Path,
    weights_in: WeightsIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["train", *quick, *LONG, "--largest=published", "--out=run", "--resume", "--json"]
    process = shell.nasaug(*command)
    _wait_for(tmp_path / "run" / "checkpoint" / "step-000000006.json", process)
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / "result.json").exists()
    done = shell.finish(shell.nasaug(*command))
    assert done.code == 0
    match = re.search(r"after step (\d+)", done.said)
    assert match is not None
    assert 6 <= int(match[1]) < 32

    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert nasaug(*command).code == 0
    whole = tmp_path / "whole" / "run"
    assert weights_in(tmp_path / "run") == weights_in(whole)
    assert _metrics(tmp_path / "run") == _metrics(whole)
    results = [json.loads((run / "result.json").read_text()) for run in (tmp_path / "run", whole)]
    assert results[0] == done.json
    for key in ("train_seconds", "train_cpu_seconds"):
        assert all(result.pop(key) > 0 for result in results)
    assert results[0] == results[1]
    assert (tmp_path / "run" / "config.yaml").read_text() == (whole / "config.yaml").read_text()


def test_a_damaged_checkpoint_costs_the_time_back_to_the_one_before(
    nasaug: Nasaug, quick: tuple[str, ...], tmp_path: Path, weights_in: WeightsIn
) -> None:
    command = ["train", *quick, "--epochs=3", "--method=baseline"]
    assert nasaug(*command, "--out=whole").code == 0
    shutil.copytree("whole", "broken")
    for name in ("result.json", "weights.safetensors"):
        Path("broken", name).unlink()
    newest = Path("broken/checkpoint/step-000000012.safetensors")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = nasaug(*command, "--out=broken", "--resume")
    assert done.code == 0
    assert "damaged" in done.said
    assert "after step 8" in done.said
    assert weights_in("broken") == weights_in("whole")
    assert _metrics(Path("broken")) == _metrics(Path("whole"))

    for path in Path("broken/checkpoint").glob("*.safetensors"):
        path.write_bytes(b"")
    Path("broken/result.json").unlink()
    done = nasaug(*command, "--out=broken", "--resume")
    assert done.code == 2
    assert "all checkpoints" in done.said
    assert "remove the folder" in done.said


def test_a_search_killed_in_its_supernet_finds_the_same(
    nasaug: Nasaug, shell: Any, quick: tuple[str, ...], tmp_path: Path, weights_in: WeightsIn
) -> None:
    command = ["search", *quick, *LONG, "--epochs=5", "--budget=2M", "--trials=2"]
    process = shell.nasaug(*command, "--out=a/run")
    _wait_for(tmp_path / "a/run/supernet/checkpoint/step-000000003.json", process)
    process.kill()
    process.wait()
    assert not Path("a/run/supernet/result.json").exists()
    done = nasaug(*command, "--out=a/run", "--resume")
    assert done.code == 0
    assert "after step" in done.said
    assert nasaug(*command, "--out=b/run").code == 0
    assert weights_in("a/run/supernet") == weights_in("b/run/supernet")
    assert _metrics(Path("a/run/supernet")) == _metrics(Path("b/run/supernet"))
    assert Path("a/run/best.json").read_text() == Path("b/run/best.json").read_text()
    assert not list(Path("a/run/supernet").glob("checkpoint/*"))


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, quick: tuple[str, ...], finished: Path
) -> tuple[Path, Path]:
    """A search killed in its fifth trial, and the same search uninterrupted, both with the
    supernet of the finished search."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(finished / "searched", folder / "searched")
    command = ["search", *quick, *SEARCH]
    done = subprocess.run(
        [sys.executable, "-c", DYING, *command, "--out=run"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*command, "--out=whole"]) == 0
    return folder / "run", folder / "whole"


def test_a_search_killed_in_a_trial_finds_the_same(
    nasaug: Nasaug, quick: tuple[str, ...], killed: tuple[Path, Path], tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", killed[1]
    shutil.copytree(killed[0], run)
    before = _trials(run)
    assert len(before) == 4
    assert not (run / "best.json").exists()
    done = nasaug("search", *quick, *SEARCH, "--out=run", "--resume")
    assert done.code == 0
    assert "training a supernet" not in done.said
    assert _trials(run)[:4] == before
    assert _trials(run) == _trials(whole)
    assert len(_trials(run)) == 8
    found, expected = (json.loads((r / "best.json").read_text()) for r in (run, whole))
    assert {**found, "trials": 8} == expected


def test_a_killed_trial_leaves_no_trace_in_the_result(
    nasaug: Nasaug, quick: tuple[str, ...], killed: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(killed[0], tmp_path / "run")
    assert nasaug("search", *quick, *SEARCH, "--out=run", "--resume").code == 0
    assert (tmp_path / "run/best.json").read_text() == (killed[1] / "best.json").read_text()


def test_finished_trials_are_not_judged_again(
    nasaug: Nasaug,
    quick: tuple[str, ...],
    killed: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(killed[0], tmp_path / "run")
    judged = []
    judge = InheritedAccuracy.__call__

    def counting(self: InheritedAccuracy, arch: Any) -> float:
        judged.append(arch)
        return judge(self, arch)

    monkeypatch.setattr(InheritedAccuracy, "__call__", counting)
    assert nasaug("search", *quick, *SEARCH, "--out=run", "--resume").code == 0
    assert len(judged) == len(set(judged)) == 4


class _Stuck(BaseException):
    """Raised by the alarm clock; no command catches it."""


def test_a_journal_lock_of_a_killed_process_does_not_stop_anyone(
    nasaug: Nasaug, quick: tuple[str, ...], killed: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(killed[0], tmp_path / "run")
    # What is left when the process is killed while it writes to the journal.
    assert JournalFileSymlinkLock("run/study.journal").acquire()

    def ring(*parts: Any) -> None:
        raise _Stuck

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    try:
        done = nasaug("search", *quick, *SEARCH, "--out=run", "--resume")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert done.code == 0
    assert len(_trials(tmp_path / "run")) == 8


def test_a_journal_that_was_cut_off_goes_on(
    nasaug: Nasaug, quick: tuple[str, ...], killed: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(killed[0], tmp_path / "run")
    journal = tmp_path / "run" / "study.journal"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert nasaug("search", *quick, *SEARCH, "--out=run", "--resume").code == 0
    assert len(_trials(tmp_path / "run")) == 8


def test_a_finished_training_is_not_trained_again(
    nasaug: Nasaug,
    quick: tuple[str, ...],
    searched: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = json.loads((trained / "result.json").read_text())
    weights = (trained / "weights.safetensors").read_bytes()
    monkeypatch.setattr("nasaug.pipelines.train.fit", None)
    done = nasaug("train", *quick, "--out=trained", "--resume", "--json")
    assert done.code == 0
    assert done.json == result
    assert (trained / "weights.safetensors").read_bytes() == weights


def test_a_finished_search_is_not_searched_again(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (searched / "best.json").read_text()
    monkeypatch.setattr("nasaug.pipelines.supernet.fit", None)
    monkeypatch.setattr("nasaug.search.InheritedAccuracy.answers", None)
    done = nasaug("search", *quick, "--budget=2M", "--trials=3", "--out=searched", "--resume")
    assert done.code == 0
    assert (searched / "best.json").read_text() == before


def test_a_training_stays_inside_the_network_that_it_began_in(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, weights_in: WeightsIn
) -> None:
    command = ["train", *quick, "--epochs=2"]
    assert nasaug(*command, "--out=whole").code == 0
    shutil.copytree("whole", "halfway")
    for name in ("result.json", "weights.safetensors"):
        Path("halfway", name).unlink()
    for path in Path("halfway/checkpoint").glob("step-000000008.*"):
        path.unlink()
    # A newer search, with another winner.
    assert nasaug("search", *quick, "--budget=8M", "--trials=3", "--out=newer").code == 0
    done = nasaug(*command, "--out=halfway", "--resume")
    assert done.code == 0
    assert "searched/best.json" in done.said
    assert weights_in("halfway") == weights_in("whole")


def test_a_run_can_be_resumed_from_another_folder(
    nasaug: Nasaug,
    quick: tuple[str, ...],
    searched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.move(searched, "runs/x")
    command = ["train", *quick, f"--out={tmp_path}/elsewhere/run", "--json"]
    result = nasaug(*command).json
    Path("work").mkdir()
    monkeypatch.chdir("work")
    done = nasaug(*command, "--resume")
    assert done.code == 0
    assert done.json == result


@pytest.mark.parametrize("run", ["searched", "trained"])
def test_an_existing_run_is_left_alone(
    run: str,
    nasaug: Nasaug,
    quick: tuple[str, ...],
    searched: Path,
    trained: Path,
    files_below: Callable[[], dict[str, bytes]],
) -> None:
    before = files_below()
    for command in (["search", *quick, "--budget=2M", "--trials=3"], ["train", *quick]):
        done = nasaug(*command, f"--out={run}")
        assert done.code == 2
        assert f"{run} holds a run" in done.said
        assert "--resume" in done.said
        assert "another --out" in done.said
    assert files_below() == before


@pytest.mark.parametrize(
    ("command", "change", "differing"),
    [
        ("train", ["--seed=1"], "seed: 0"),
        ("train", ["--epochs=2"], "train.epochs: 1"),
        ("train", ["--set=train.lr=0.2"], "train.lr: 0.1"),
        ("train", ["--method=baseline"], "method: netaug"),
        ("train", ["--set=netaug.width=[1,2]"], "netaug.width: None"),
        ("search", ["--budget=3M"], "budget: 2000000"),
        ("search", ["--set=space.extra_depth=[0]"], "space.extra_depth: [0, 1]"),
        ("search", ["--sampler=random"], "sampler: evolution"),
    ],
)
def test_another_configuration_is_not_a_resumption(
    command: str,
    change: list[str],
    differing: str,
    nasaug: Nasaug,
    quick: tuple[str, ...],
    searched: Path,
    trained: Path,
    files_below: Callable[[], dict[str, bytes]],
) -> None:
    begun = {"search": ["--budget=2M", "--trials=3", "--out=searched"], "train": ["--out=trained"]}
    before = files_below()
    done = nasaug(command, *quick, *begun[command], *change, "--resume")
    assert done.code == 2
    assert "another configuration" in done.said
    assert differing in done.said
    assert "another --out" in done.said
    assert files_below() == before


def test_a_search_of_a_release_without_an_option_goes_on_where_it_is_off(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    config = searched / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("max_flash")]
    assert len(older) == len(lines) - 1
    config.write_text("".join(older))
    again = ("search", *quick, "--budget=2M", "--trials=3", f"--out={searched}", "--resume")
    assert nasaug(*again).code == 0
    config.write_text("".join(older))
    limited = nasaug(*again, "--max-flash=1MB")
    assert limited.code == 2 and "max_flash: absent" in limited.said


def test_a_folder_of_something_else_is_left_alone(
    nasaug: Nasaug, quick: tuple[str, ...], files_below: Callable[[], dict[str, bytes]]
) -> None:
    Path("letters").mkdir()
    Path("letters/a.txt").write_text("dear")
    before = files_below()
    for command in (["search", *quick, "--budget=2M"], ["train", *quick]):
        done = nasaug(*command, "--out=letters")
        assert done.code == 2
        assert "letters is not empty and holds no run" in done.said
        assert "another --out" in done.said
    assert files_below() == before


@pytest.mark.parametrize("name", ["config.yaml", "inside.json", "result.json"])
@pytest.mark.parametrize("content", ["{", "- 1\n", "\0"])
def test_a_damaged_file_of_a_run_is_named(
    name: str, content: str, nasaug: Nasaug, quick: tuple[str, ...], searched: Path, trained: Path
) -> None:
    if name != "result.json":
        # What a finished run was made of is not asked again.
        (trained / "result.json").unlink()
    (trained / name).write_text(content)
    done = nasaug("train", *quick, "--out=trained", "--resume")
    assert done.code == 2
    assert f"trained/{name}" in done.said


def test_a_folder_of_something_else_is_nothing_to_resume(
    nasaug: Nasaug, quick: tuple[str, ...], files_below: Callable[[], dict[str, bytes]]
) -> None:
    Path("letters").mkdir()
    Path("letters/a.txt").write_text("dear")
    before = files_below()
    done = nasaug("train", *quick, "--out=letters", "--resume")
    assert done.code == 2
    assert files_below() == before


def test_nothing_to_resume_begins(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    Path("empty").mkdir()
    for out in ("empty", "new/er"):
        assert nasaug("train", *quick, f"--out={out}", "--resume").code == 0
        assert Path(out, "result.json").exists()


def test_a_second_process_is_told_that_the_folder_is_in_use(
    nasaug: Nasaug, shell: Any, quick: tuple[str, ...], tmp_path: Path
) -> None:
    command = ["train", *quick, "--epochs=100", "--largest=published", "--out=run"]
    process = shell.nasaug(*command)
    _wait_for(tmp_path / "run" / "checkpoint" / "step-000000004.json", process)
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    done = nasaug(*command, "--resume")
    assert done.code == 2
    assert "another process is working in run" in done.said
    assert "another --out" in done.said
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    interrupted = shell.finish(process)
    assert interrupted.code == 130
    assert "interrupted; the same command with --resume goes on" in interrupted.said
    assert "Traceback" not in interrupted.err
    assert interrupted.out == ""
    assert not (tmp_path / "run" / "result.json").exists()
    # The lock went with the process; a change of mind about epochs is still another run.
    again = nasaug(*command, "--resume", "--epochs=1")
    assert "train.epochs: 100 there" in again.said
