"""A search that test_interrupted.py starts, kills while it judges a candidate, and resumes.

    python interrupted.py FOLDER CALLS

It prints `judging` at the given call and then waits to be killed. FOLDER/judged gets a line for
every candidate that is judged, by whichever process.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import optuna

from nasaug.search import search
from nasaug.supernet import Architecture, SearchSpace, load_target

TRIALS = 45


def run(folder: Path, hang_at: int = 0) -> tuple[SearchSpace, optuna.Study]:
    space = SearchSpace.around(load_target("micro_10k", 10, in_channels=1))
    rng = random.Random(0)
    table = [[rng.random() for _ in row.choices] for row in space.rows]
    calls = 0

    def judge(arch: Architecture) -> float:
        nonlocal calls
        calls += 1
        path = space.path(arch)
        with open(folder / "judged", "a") as file:
            file.write(f"{path}\n")
        if calls == hang_at:
            print("judging", flush=True)
            time.sleep(600)
        return sum(row[choice] for row, choice in zip(table, path, strict=True))

    journal, budget = folder / "study.journal", 2 * space.source.cheapest
    return space, search(space, judge, budget, journal, trials=TRIALS, resume=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
