"""Several processes on one study: they share its trials, and outlive each other."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasaug.search import search
from nasaug.search.workers import WORKER, Presence
from nasaug.supernet import SearchSpace, load_target

# Optuna's check of a database's version leaves its own connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PROGRAM = Path(__file__).with_name("sharing.py")
SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _start(storage: str, folder: Path, trials: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), storage, str(folder), str(trials)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _wait_until_judging(process: subprocess.Popen[str]) -> None:
    output: IO[str] | None = process.stdout
    assert output is not None
    assert output.readline() == "judging\n", process.communicate()


def _wait_for_the_end(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said


@contextmanager
def _opened(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def _clear(url: str) -> None:
    with _opened(url) as database:
        for summary in optuna.get_all_study_summaries(database):
            optuna.delete_study(study_name=summary.study_name, storage=database)


def _judged(folder: Path) -> list[tuple[int, str]]:
    lines = [line.split(" ", 1) for line in (folder / "judged").read_text().splitlines()]
    return [(int(pid), path) for pid, path in lines]


def _trials(storage: str) -> list[FrozenTrial]:
    opened = (
        RDBStorage(storage) if "://" in storage else JournalStorage(JournalFileBackend(storage))
    )
    return optuna.load_study(study_name="nasaug", storage=opened).trials


@pytest.fixture(autouse=True)
def _collect_connections() -> Iterator[None]:
    """While the warning about them is ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a database on a real server, started for these tests on loopback."""
    if not SERVERS:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not below pytest's own folder, which another test run may clear.
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        yield url


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    programs = SERVERS[-1].parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The server refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data, options = folder / "data", f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    for safety in ("fsync", "synchronous_commit", "full_page_writes"):  # against power cuts only
        options += f" -c {safety}=off"

    def run(*command: str | Path) -> None:
        with open(folder / "output", "a") as output:
            subprocess.run(command, user=user, check=True, cwd=folder, stdout=output, stderr=output)

    run(programs / "initdb", "-N", "-D", data, "-U", "nasaug", "-A", "trust")
    run(programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    try:
        yield f"postgresql+psycopg://nasaug@127.0.0.1:{port}/postgres"
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "journal":
        yield str(tmp_path / "study.journal")
        return
    url = str(request.getfixturevalue("postgresql"))
    _clear(url)
    yield url


def test_two_workers_share_a_study_and_judge_nothing_twice(storage: str, tmp_path: Path) -> None:
    first = _start(storage, tmp_path, 24)
    _wait_until_judging(first)
    second = _start(storage, tmp_path, 24, "join")
    _wait_until_judging(second)
    (tmp_path / "go").touch()
    for process in (first, second):
        _wait_for_the_end(process)
    trials = _trials(storage)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == len(trials)
    assert 24 <= len(complete) <= 25, "both may begin the last one at the same moment"
    judged = _judged(tmp_path)
    assert max(Counter(path for _, path in judged).values()) == 1
    assert set(Counter(pid for pid, _ in judged)) == {first.pid, second.pid}
    assert len({trial.user_attrs[WORKER] for trial in complete}) == 2


@pytest.mark.parametrize("killed", ["first", "second"])
def test_worker_that_is_killed_is_outlived_and_its_candidate_judged_again(
    killed: str, storage: str, tmp_path: Path
) -> None:
    first = _start(storage, tmp_path, 10)
    _wait_until_judging(first)
    second = _start(storage, tmp_path, 10, "join")
    _wait_until_judging(second)
    victim, other = (first, second) if killed == "first" else (second, first)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (tmp_path / "go").touch()
    _wait_for_the_end(other)
    trials = _trials(storage)
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.FAIL] == 1
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.COMPLETE] >= 10
    judged = _judged(tmp_path)
    lost = [path for pid, path in judged if pid == victim.pid][-1]
    assert (other.pid, lost) in judged
    assert Counter(path for _, path in judged)[lost] == 2


def test_second_run_is_refused_unless_it_joins(storage: str, tmp_path: Path) -> None:
    first = _start(storage, tmp_path, 1000)
    _wait_until_judging(first)
    try:
        space = SearchSpace.around(load_target("micro_10k", 10, in_channels=1))
        budget = (space.source.cheapest + space.source.dearest) // 3
        workers = tmp_path / "workers" if "://" not in storage else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nasaug.search.opening.GRACE_SECONDS", 2)
            patch.setattr("nasaug.search.opening.HEARTBEAT_SECONDS", 1)
            with pytest.raises(ValueError, match=r"another process is working .* \(--join\)"):
                search(space, len, budget, storage, trials=1, workers=workers, resume=True)  # type: ignore[arg-type]
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    running = [trial for trial in _trials(storage) if trial.state == TrialState.RUNNING]
    assert len(running) <= 1, "nobody failed the live worker's trial"
    assert not [trial for trial in _trials(storage) if trial.state == TrialState.FAIL]


def test_there_must_be_a_study_to_join(space: SearchSpace, storage: str) -> None:
    with pytest.raises(ValueError, match="holds no study 'nasaug' to join"):
        search(space, lambda _: 0.5, space.source.dearest, storage, trials=1, join=True)


def _trial(name: str | None) -> FrozenTrial:
    attributes = {} if name is None else {WORKER: name}
    return create_trial(state=TrialState.RUNNING, user_attrs=attributes)


def test_worker_is_lost_when_its_lock_is_released(tmp_path: Path) -> None:
    mine, other = Presence(tmp_path), Presence(tmp_path)
    assert mine.others() == [other.name]
    assert not mine.is_lost(_trial(other.name))
    assert not mine.is_lost(_trial(mine.name))
    other._lock.close()  # type: ignore[union-attr]
    assert mine.others() == []
    assert mine.is_lost(_trial(other.name))
    other.leave()
    mine.leave()
    assert list(tmp_path.iterdir()) == []


def test_worker_of_another_machine_or_folder_is_not_judged_by_a_lock(tmp_path: Path) -> None:
    mine = Presence(tmp_path)
    host = socket.gethostname()
    for name in ("elsewhere-12-ab", f"{host}-2-77-ab", f"{host}-77-ab"):
        assert not mine.is_lost(_trial(name)), "its lock is not here"
        assert not Presence(None).is_lost(_trial(name))
    mine.leave()


def test_nameless_trial_is_lost_when_alone_or_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Presence(tmp_path / "alone")
    assert alone.is_lost(_trial(None))
    alone.leave()
    mine, other = Presence(tmp_path / "both"), Presence(tmp_path / "both")
    shared = Presence(tmp_path / "here", elsewhere=True)
    now = time.monotonic()
    for seconds, lost in ((0, False), (30, False), (70, True)):
        monkeypatch.setattr(time, "monotonic", lambda now=now + seconds: now)
        for presence in (mine, shared):
            assert presence.is_lost(_trial(None)) == lost
    for presence in (mine, other, shared):
        presence.leave()


def test_machines_with_folders_of_their_own_share_a_database(
    postgresql: str, tmp_path: Path
) -> None:
    """Neither takes the other's fresh trials for lost."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    _clear(postgresql)
    first = _start(postgresql, folders[0], 30, "own-folder")
    _wait_until_judging(first)
    second = _start(postgresql, folders[1], 30, "own-folder", "join")
    _wait_until_judging(second)
    for folder in folders:
        (folder / "go").touch()
    for process in (first, second):
        _wait_for_the_end(process)
    states = Counter(trial.state for trial in _trials(postgresql))
    assert states[TrialState.FAIL] == 0
    assert 30 <= states[TrialState.COMPLETE] <= 31


def test_trial_left_in_a_storage_of_ones_own_is_run_again(space: SearchSpace) -> None:
    storage, asked = InMemoryStorage(), []
    options = {"storage": storage, "trials": 3}

    def judge(arch: object) -> float:
        asked.append(arch)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        search(space, judge, space.source.dearest, **options)  # type: ignore[arg-type]
    study = search(space, judge, space.source.dearest, resume=True, **options)  # type: ignore[arg-type]
    assert asked[2] == asked[1]
    assert len([t for t in study.trials if t.state == TrialState.COMPLETE]) == 3
