"""Opening the study of a search: a journal file or a database, new, resumed or joined."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from nasaug.search.interrupts import InterruptibleStudy
from nasaug.search.journal import join_journal, open_journal
from nasaug.search.workers import (
    GRACE_SECONDS,
    HEARTBEAT_SECONDS,
    Presence,
    fail_abandoned_trials,
    fail_lost_trials,
    requeue,
    running,
)
from nasaug.supernet import SearchSpace

COSTS = ("macs", "params", "memory", "flash", "latency")
"""Objectives that are minimised, and need no judging."""


def open_storage(storage: str | Path | BaseStorage, exclusive: bool) -> BaseStorage:
    """A journal file's path, a database URL or an Optuna storage as the latter. An `exclusive`
    journal is mended. Raises: ValueError for a storage that cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(storage, BaseStorage):
        return storage
    if isinstance(storage, Path) or "://" not in storage:
        return (open_journal if exclusive else join_journal)(Path(storage))
    with warnings.catch_warnings(), name_errors_of(storage_name(storage)):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(
            storage,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=requeue,
        )


def open_study(
    storage: BaseStorage,
    place: str,
    name: str,
    sampler: BaseSampler,
    objectives: Sequence[str],
    facts: Mapping[str, Any],
    presence: Presence,
    resume: bool,
    join: bool,
) -> optuna.Study:
    """The study `name`, its facts checked, the trials of dead workers failed and queued again.

    `place` is what people call the storage.

    Raises: ValueError for a storage that cannot be used, for a stored study of other facts (the
        difference named), for one that is there unasked or in use, and for none to join.
    """
    directions = [
        StudyDirection.MINIMIZE if one in COSTS else StudyDirection.MAXIMIZE for one in objectives
    ]
    with name_errors_of(place):
        try:
            if not join:
                optuna.create_study(
                    storage=storage,
                    study_name=name,
                    directions=directions,
                    load_if_exists=resume,
                )
            study = InterruptibleStudy(name, storage, sampler)
        except KeyError:
            raise ValueError(
                f"{place} holds no study {name!r} to join; begin it without --join (a study is "
                "named by its supernet's weights: another machine needs a copy of the run's "
                "config.yaml and supernet/)"
            ) from None
        except optuna.exceptions.DuplicatedStudyError:
            raise ValueError(f"{place} already holds a study {name!r}: resume it") from None
    _check_facts(study, facts)
    if join:
        fail_lost_trials(study, presence)
    else:
        _take_over(study, storage, presence)
    return study


def check_storage(url: str) -> None:
    """Raises: ValueError for a database that cannot be used."""
    close_storage(open_storage(url, exclusive=False))


def storage_name(storage: str | Path | BaseStorage) -> str:
    """What people call a storage: a database's URL has no password here."""
    try:
        return make_url(str(storage)).render_as_string(hide_password=True)
    except ArgumentError:
        return str(storage)


@contextmanager
def name_errors_of(place: str) -> Iterator[None]:
    """Raises: ValueError naming the storage instead of a database's or a driver's error."""
    try:
        yield
    except UpdateFinishedTrialError:
        raise
    except (OptunaError, SQLAlchemyError, NoSuchModuleError, ModuleNotFoundError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"the storage {place} cannot be used: {reason}") from None


def close_storage(storage: BaseStorage) -> None:
    """Give a database's connections back; they are opened again when needed."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def space_facts(space: SearchSpace) -> dict[str, Any]:
    """What tells spaces apart across processes: the decisions by name, and a digest of the rest."""
    text = repr((space.target.to_json(), space.rows))
    return {
        "target": space.target.name,
        "decisions": {name: list(values) for name, values in space.decisions.items()},
        "space": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        "latencies": space.latencies_digest(),
    }


def _check_facts(study: optuna.Study, facts: Mapping[str, Any]) -> None:
    stored = study.user_attrs
    for name, value in facts.items():
        if stored.get(name, value) != value:
            raise ValueError(
                f"the stored study {study.study_name!r} has another {name}: "
                f"{_difference(stored[name], value)}; choose another name or storage"
            )
        if name not in stored:
            study.set_user_attr(name, value)


def _difference(stored: Any, mine: Any) -> str:
    if isinstance(stored, dict) and isinstance(mine, dict):
        keys = [key for key in sorted({*stored, *mine}) if stored.get(key) != mine.get(key)]
        shown = ", ".join(f"{key} {stored.get(key)}, not {mine.get(key)}" for key in keys[:3])
        return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown
    return f"{stored}, not {mine}"


def _take_over(study: optuna.Study, storage: BaseStorage, presence: Presence) -> None:
    """Make sure that nobody else works on the study. Raises: ValueError if somebody does."""
    rule = f"another process is working on the study {study.study_name!r}; join it (--join)"
    if presence.others():
        raise ValueError(rule)
    if not isinstance(storage, RDBStorage):
        fail_abandoned_trials(study)
        return
    fail_lost_trials(study, presence)
    waited_until = time.monotonic() + GRACE_SECONDS + HEARTBEAT_SECONDS
    while running(study):
        if time.monotonic() > waited_until:
            raise ValueError(rule)
        time.sleep(1)
        fail_lost_trials(study, presence)
