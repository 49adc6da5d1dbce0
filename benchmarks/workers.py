"""Trials a minute of one worker and of two, on one real supernet.

    python benchmarks/workers.py RUN --rounds 3 --trials 240

RUN is a finished search; its supernet is used again, and every candidate is judged in full (no
races). Rounds alternate between the three settings. Prints medians over the rounds, and the ratios
that `nasaug search --workers 2` is to reach on two cores: 1.7 over one worker of one thread, and
1.0 over one worker of two threads.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from statistics import median

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

SETTINGS = {"1 worker, 1 thread": (1, 1), "1 worker, 2 threads": (1, 2), "2 workers": (2, 2)}


def trials_a_minute(run: Path, workers: int, threads: int, trials: int) -> float:
    """Of a new search beside `run`, from the last worker's first trial to the last trial's end."""
    out = run.parent / f"workers-{workers}-{threads}"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "nasaug", "search", "--config", run / "config.yaml"]
    command += ["--out", out, "--no-race", f"--trials={trials}", f"--workers={workers}"]
    command += ["--set", f"threads={threads}"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    storage = JournalStorage(JournalFileBackend(str((out / "study.journal").resolve())))
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    first: dict[str, datetime] = {}
    for trial in done:
        assert trial.datetime_start is not None
        first.setdefault(trial.user_attrs["worker"], trial.datetime_start)
    assert len(first) == workers, "the search was over before the last worker came"
    begun = max(first.values())
    ends = [trial.datetime_complete for trial in done if trial.datetime_complete]
    counted = sum(end > begun for end in ends)
    shutil.rmtree(out)
    return 60 * counted / (max(ends) - begun).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=240)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for number in range(given.rounds):
        for name, (workers, threads) in SETTINGS.items():
            rates[name].append(trials_a_minute(given.run, workers, threads, given.trials))
            print(f"round {number}, {name}: {rates[name][-1]:.1f} trials a minute", flush=True)
    middle = {name: median(values) for name, values in rates.items()}
    for name, value in middle.items():
        print(f"{name}: median {value:.1f} trials a minute")
    for name in list(SETTINGS)[:2]:
        ratios = [two / one for one, two in zip(rates[name], rates["2 workers"], strict=True)]
        print(f"2 workers over {name}: median {median(ratios):.2f}")


if __name__ == "__main__":
    main()
