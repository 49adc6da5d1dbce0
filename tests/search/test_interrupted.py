"""A search that is killed loses no finished trial, repeats none, and ends as one left alone."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nasaug.search import search
from nasaug.supernet import SearchSpace

PROGRAM = Path(__file__).with_name("interrupted.py")


def _kill_while_judging(folder: Path, call: int) -> None:
    command = [sys.executable, str(PROGRAM), str(folder), str(call)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "judging\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def test_killed_search_resumes_to_the_result_of_one_left_alone(tmp_path: Path) -> None:
    """Killed at the 5th candidate and at the 40th, which evolution bred."""
    program = runpy.run_path(str(PROGRAM))
    folder, alone = tmp_path / "killed", tmp_path / "alone"
    folder.mkdir()
    alone.mkdir()
    _kill_while_judging(folder, 5)
    _kill_while_judging(folder, 36)
    space, study = program["run"](folder)
    _, whole = program["run"](alone)
    assert len(_finished(study)) == program["TRIALS"] == 45
    assert [t.params for t in _finished(study)] == [t.params for t in _finished(whole)]
    assert [t.value for t in _finished(study)] == [t.value for t in _finished(whole)]
    assert study.best_params == whole.best_params
    judged = Counter((folder / "judged").read_text().splitlines())
    twice = {path: count for path, count in judged.items() if count > 1}
    # Only the two that were being judged when the kill came.
    order = [str(space.path_of(trial.params)) for trial in _finished(whole)]
    assert twice == {order[4]: 2, order[39]: 2}


@pytest.mark.parametrize("suggestions", [1, 21, 22, 30, 205])
def test_search_stopped_between_two_decisions_of_a_trial_resumes_alike(
    suggestions: int,
    space: SearchSpace,
    surface: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the space's 20 decisions some are stored then, and some are not."""
    budget = 2 * space.source.cheapest
    whole = search(space, surface(space), budget, InMemoryStorage(), trials=12)
    storage, judge, left = InMemoryStorage(), surface(space), suggestions
    suggest = optuna.trial.Trial.suggest_categorical

    def stop(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return suggest(*arguments)

    monkeypatch.setattr(optuna.trial.Trial, "suggest_categorical", stop)
    with pytest.raises(KeyboardInterrupt):
        search(space, judge, budget, storage, trials=12)
    study = search(space, judge, budget, storage, trials=12, resume=True)
    assert [t.params for t in _finished(study)] == [t.params for t in whole.trials]
    assert max(Counter(judge.asked).values()) == 1
