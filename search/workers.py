"""Who works on a study, and which running trials a dead worker left.

On one machine a worker holds a lock on a file of its own, which the kernel releases however the
worker ends. Across machines, on a database, Optuna's heartbeat tells.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

WORKER = "worker"
COMPLETE_PARAMS = "feasible"
"""Set on a trial when all its decisions are."""
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 30
NAMELESS_SECONDS = 60.0
"""A worker names itself on its trial within milliseconds after it began it."""


class Presence:
    """This worker's lock in `folder`, held until `leave` or the end of the process.

    Without a folder there is no lock, and only the database's heartbeat tells who is alive.
    elsewhere: other machines may work on the study too, whose locks are not to be seen here.
    """

    def __init__(self, folder: Path | None, elsewhere: bool = False) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._folder, self._elsewhere = folder, elsewhere
        self._lock: IO[str] | None = None
        self._nameless: dict[int, float] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / self.name, "w")  # noqa: SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def leave(self) -> None:
        if self._lock is not None and self._folder is not None:
            (self._folder / self.name).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def others(self) -> list[str]:
        """The other workers of this machine that are alive."""
        if self._folder is None:
            return []
        names = [path.name for path in self._folder.iterdir() if path.name != self.name]
        return [name for name in names if self._holds(name)]

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether a running trial's worker is known to be dead, by its released lock."""
        name = trial.user_attrs.get(WORKER)
        if self._folder is None or name == self.name:
            return False
        if name is not None:
            return (self._folder / name).exists() and not self._holds(name)
        seen = self._nameless.setdefault(trial.number, time.monotonic())
        alone = not self._elsewhere and not self.others()
        return alone or time.monotonic() - seen > NAMELESS_SECONDS

    def _holds(self, name: str) -> bool:
        assert self._folder is not None
        try:
            with open(self._folder / name) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def fail_lost_trials(study: optuna.Study, presence: Presence) -> None:
    """Fail the running trials of dead workers, and queue their candidates to be evaluated again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        fail_stale_trials(study)
    for trial in running(study):
        if presence.is_lost(trial):
            # Another worker may have found it at the same moment: one of the two requeues it.
            with suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
                study.tell(trial.number, state=TrialState.FAIL)
                requeue(study, trial)


def fail_abandoned_trials(study: optuna.Study) -> None:
    """As `fail_lost_trials`, where nobody else can be working on the study."""
    for trial in running(study):
        study.tell(trial.number, state=TrialState.FAIL)
        requeue(study, trial)


def requeue(study: optuna.Study, trial: Trial | FrozenTrial) -> None:
    """Queue a failed trial's candidate to be evaluated again, if it was wholly written."""
    if trial.user_attrs.get(COMPLETE_PARAMS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.enqueue_trial(trial.params)
