"""Where a study is kept, opened to be read: a journal file or a database.

Neither is made, mended or locked, so that a search may be writing meanwhile.
"""

from __future__ import annotations

import re
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nasaug.config import SearchConfig

JOURNAL_BEGINS = b'{"op_code"'


def open_storage(place: str | Path) -> BaseStorage:
    """The storage of a journal file's path or a database URL. Raises: ValueError."""
    if isinstance(place, Path):
        return _open_journal(place)
    try:
        url = make_url(place)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise ValueError(f"{url.database} does not exist")
        return RDBStorage(place, skip_table_creation=True)
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError, ValueError) as error:
        raise ValueError(_unusable(hide_password(place), error)) from None


def _open_journal(path: Path) -> JournalStorage:
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: the search has not come to its study yet, or is kept in a "
            "database (name it by --storage)"
        )
    with path.open("rb") as file:
        if file.read(len(JOURNAL_BEGINS)) not in (JOURNAL_BEGINS, b""):
            raise ValueError(f"{path} is no Optuna journal")
    try:
        # In full: the lock is a symbolic link to this path, and Optuna waits for ever for one that
        # leads nowhere.
        return JournalStorage(JournalFileBackend(str(path.resolve())))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        # What Optuna makes of lines that are no JSON, and of records that it does not know.
        raise ValueError(f"{path} is damaged: {error!r}") from None


def load_study(
    storage: BaseStorage, name: str | None, config: SearchConfig, target: str
) -> optuna.Study:
    """The study of that name; without a name the only one that is a search as `config` says.

    Raises: ValueError naming the studies to choose from.
    """
    made = {
        "target": target,
        "limits": config.limits.given,
        "objectives": list(config.objectives),
    }
    try:
        there = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
        known = ", ".join(sorted(there)) or "none"
        if name is None:
            fitting = [one for one, facts in there.items() if made.items() <= facts.items()]
            if len(fitting) != 1:
                which = "no study of this search" if not fitting else "several studies like it"
                raise ValueError(f"the storage holds {which}; name one by --study: {known}")
            name = fitting[0]
        if name not in there:
            raise ValueError(f"the storage holds no study {name!r}; it holds {known}")
        return optuna.load_study(study_name=name, storage=storage)
    except (optuna.exceptions.OptunaError, SQLAlchemyError) as error:
        raise ValueError(_unusable("of the search", error)) from None


def hide_password(url: str) -> str:
    """A database URL as it may be shown."""
    try:
        parsed = make_url(url)
        secret = {key: "hidden" for key in parsed.query if "pass" in key.lower()}
        return parsed.update_query_dict(secret).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # a port that is no number
        return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", url)


def _unusable(place: str, error: Exception) -> str:
    reason = str(error.__cause__ or error).strip().splitlines()
    return f"the storage {place} cannot be used: {reason[0] if reason else type(error).__name__}"
