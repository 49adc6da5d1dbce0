"""Ctrl-C during a search: it comes while a candidate is judged, or when its trial is written."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from nasaug.search import SearchInterrupted, search
from nasaug.search.journal import join_journal
from nasaug.supernet import Architecture, SearchSpace


@pytest.fixture(params=["memory", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    if request.param == "memory":
        return InMemoryStorage()
    return join_journal(tmp_path / "study.journal")


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def _interrupted_in(storage: BaseStorage, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when a step of the storage has done its work, the second time that it is taken."""
    real, calls = getattr(storage, step), 0

    def patched(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*arguments, **options)
        if calls == 2:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(storage, step, patched)


def test_ctrl_c_while_a_value_is_told(
    space: SearchSpace,
    surface: Callable[..., Any],
    storage: BaseStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Optuna alone would end in an UnboundLocalError."""
    judge, budget = surface(space), 2 * space.source.cheapest
    _interrupted_in(storage, "set_trial_state_values", monkeypatch)
    with pytest.raises(SearchInterrupted) as interrupted:
        search(space, judge, budget, storage, trials=6)
    trials = interrupted.value.study.trials
    assert [trial.state for trial in trials] == 2 * [TrialState.COMPLETE]
    assert len(search(space, judge, budget, storage, trials=6, resume=True).trials) == 6
    assert len(judge.asked) == 6, "nothing is judged twice"


def test_ctrl_c_while_a_trial_is_made(
    space: SearchSpace,
    surface: Callable[..., Any],
    storage: BaseStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes before the candidate is judged."""
    judge, budget = surface(space), 2 * space.source.cheapest
    _interrupted_in(storage, "create_new_trial", monkeypatch)
    with pytest.raises(SearchInterrupted) as interrupted:
        search(space, judge, budget, storage, trials=6)
    states = [trial.state for trial in interrupted.value.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL]
    assert len(judge.asked) == 1
    search(space, judge, budget, storage, trials=6, resume=True)
    assert len(judge.asked) == 6


def test_ctrl_c_ends_the_judging_of_a_candidate_at_once(
    space: SearchSpace, surface: Callable[..., Any], storage: BaseStorage
) -> None:
    judge, ended = surface(space), False

    def long(arch: Architecture) -> float:
        nonlocal ended
        value: float = judge(arch)
        if len(judge.asked) == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)
            ended = True
        return value

    budget = 2 * space.source.cheapest
    with pytest.raises(SearchInterrupted) as interrupted:
        search(space, long, budget, storage, trials=6)
    assert not ended
    states = [trial.state for trial in interrupted.value.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]


def test_a_search_in_another_thread_is_as_ever(
    space: SearchSpace, surface: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        work = (space, surface(space), 2 * space.source.cheapest, InMemoryStorage())
        study = pool.submit(search, *work, trials=3).result()
    assert len(study.trials) == 3
