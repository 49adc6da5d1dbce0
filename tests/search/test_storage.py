"""Where a study is kept, and what is refused of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from nasaug.search import search
from nasaug.supernet import Architecture, SearchSpace, load_target

MakeSurface = Callable[..., Any]


def _search(
    space: SearchSpace, judge: Callable[[Architecture], float], budget: int, **options: Any
) -> list[FrozenTrial]:
    return search(space, judge, budget, **options).trials


@pytest.fixture
def budget(space: SearchSpace) -> int:
    return 2 * space.source.cheapest


def test_finished_search_is_resumed_without_work(
    space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    judge, journal = surface(space), tmp_path / "study.journal"
    options: dict[str, Any] = {"storage": journal, "resume": True}
    _search(space, judge, budget, trials=6, **options)
    assert len(_search(space, judge, budget, trials=6, **options)) == 6
    assert len(_search(space, judge, budget, trials=4, **options)) == 6
    assert len(judge.asked) == 6


def test_stored_study_of_another_budget_is_refused(
    space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    storage = InMemoryStorage()
    _search(space, surface(space), budget, storage=storage, trials=2)
    with pytest.raises(ValueError, match=f"another limits: macs {budget}, not {budget + 1}"):
        _search(space, surface(space), budget + 1, storage=storage, trials=4, resume=True)


def test_stored_study_of_another_space_is_refused(
    space: SearchSpace, tiny_space: SearchSpace, surface: MakeSurface
) -> None:
    storage, budget = InMemoryStorage(), tiny_space.source.dearest
    _search(tiny_space, surface(tiny_space), budget, storage=storage, trials=2)
    with pytest.raises(ValueError, match=r"another decisions: head\.width .*, not \[64"):
        _search(space, surface(space), budget, storage=storage, trials=4, resume=True)


def test_stored_study_of_a_space_that_rounds_otherwise_is_refused() -> None:
    """Decisions alone do not say what an expansion comes to."""
    target, storage = load_target("micro_10k", 10), InMemoryStorage()
    fine, coarse = (SearchSpace.around(target, (1,), (1, 1.3), divisor=d) for d in (1, 8))
    assert fine.decisions == coarse.decisions
    assert fine.largest != coarse.largest
    budget = fine.source.dearest
    _search(fine, lambda arch: 0.5, budget, storage=storage, trials=2)
    with pytest.raises(ValueError, match="another space: "):
        _search(coarse, lambda arch: 0.5, budget, storage=storage, trials=4, resume=True)
    again = SearchSpace.around(target, (1,), (1, 1.3), divisor=1)
    _search(again, lambda arch: 0.5, budget, storage=storage, trials=4, resume=True)


def test_search_is_not_resumed_unasked(
    space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    storage = InMemoryStorage()
    _search(space, surface(space), budget, storage=storage, trials=2)
    with pytest.raises(ValueError, match="already holds a study 'nasaug'"):
        _search(space, surface(space), budget, storage=storage, trials=2)


def test_database_is_a_storage(
    space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    _search(space, surface(space), budget, storage=url, trials=2)
    trials = _search(space, surface(space), budget, storage=url, trials=3, resume=True)
    assert len(trials) == 3


def test_path_written_as_text_is_a_journal(
    space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    journal = tmp_path / "study.journal"
    _search(space, surface(space), budget, storage=str(journal), trials=2)
    assert journal.is_file()


@pytest.mark.parametrize("cut", [1, 10, 200, 1000, 5000])
def test_journal_that_was_cut_off_anywhere_is_resumed_to_the_same_end(
    cut: int, space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    """As a full disk leaves it: the trials that are lost with it are run again."""
    journal = tmp_path / "study.journal"
    whole = _search(space, surface(space), budget, storage=InMemoryStorage(), trials=6)
    _search(space, surface(space), budget, storage=journal, trials=4)
    journal.write_bytes(journal.read_bytes()[:-cut])
    trials = _search(space, surface(space), budget, storage=journal, trials=6, resume=True)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert [trial.params for trial in finished] == [trial.params for trial in whole]


def test_lock_that_a_killed_process_left_is_removed(
    space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    """Optuna would wait for it for half a minute."""
    journal = tmp_path / "study.journal"
    _search(space, surface(space), budget, storage=journal, trials=2)
    (tmp_path / "study.journal.lock").symlink_to(journal)
    begun = time.monotonic()
    options: dict[str, Any] = {"storage": journal, "resume": True}
    assert len(_search(space, surface(space), budget, trials=3, **options)) == 3
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "storage", ["sqlite:////nowhere/study.db", "nosuch://host/study", "postgresql://localhost/x"]
)
def test_storage_that_cannot_be_used_is_refused_by_name(
    storage: str, space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    with pytest.raises(ValueError, match=f"the storage {storage} cannot be used"):
        _search(space, surface(space), budget, storage=storage, trials=1)


def test_studies_of_two_names_share_a_storage(
    space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    storage = InMemoryStorage()
    for name in ("one", "two"):
        trials = _search(space, surface(space), budget, storage=storage, trials=2, name=name)
        assert len(trials) == 2


def test_password_of_a_database_is_not_shown(
    space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/x"
    with pytest.raises(ValueError, match=r"me:\*\*\*@127\.0\.0\.1:1/x cannot be used") as caught:
        _search(space, surface(space), budget, storage=url, trials=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 5, 9, 12])
def test_journal_cut_off_in_its_first_line_is_begun_again(
    kept: int, space: SearchSpace, surface: MakeSurface, tmp_path: Path, budget: int
) -> None:
    journal = tmp_path / "study.journal"
    _search(space, surface(space), budget, storage=journal, trials=1)
    journal.write_bytes(journal.read_bytes()[:kept])
    assert len(_search(space, surface(space), budget, storage=journal, trials=2)) == 2


def test_stored_study_of_another_latency_table_is_refused(
    space: SearchSpace, surface: MakeSurface, budget: int
) -> None:
    storage = InMemoryStorage()
    slow, fast = space.priced(lambda *_: 2), space.priced(lambda *_: 1)
    _search(slow, surface(slow), budget, storage=storage, trials=1)
    with pytest.raises(ValueError, match="another latencies"):
        _search(fast, surface(fast), budget, storage=storage, trials=2, resume=True)
