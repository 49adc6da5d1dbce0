"""A worker of a shared search, as a program: `sharing.py STORAGE FOLDER TRIALS [join]`.

Every candidate that it begins to judge is a line in FOLDER/judged. At its first it prints
`judging` and waits until FOLDER/go exists.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from nasaug.search import opening, search
from nasaug.supernet import Architecture, SearchSpace, load_target

opening.HEARTBEAT_SECONDS, opening.GRACE_SECONDS = 1, 3


def make_space() -> SearchSpace:
    return SearchSpace.around(load_target("micro_10k", 10, in_channels=1))


def run(storage: str, folder: Path, trials: int, join: bool) -> None:
    space = make_space()
    has_begun = False

    def judge(arch: Architecture) -> float:
        nonlocal has_begun
        path = space.path(arch)
        with open(folder / "judged", "a") as file:
            file.write(f"{os.getpid()} {path}\n")
        if not has_begun:
            has_begun = True
            print("judging", flush=True)
            while not (folder / "go").exists():
                time.sleep(0.02)
        time.sleep(0.05)
        return sum(path) / 1000

    has_folder = "://" not in storage or "own-folder" in sys.argv
    workers = folder / "workers" if has_folder else None
    budget = (space.source.cheapest + space.source.dearest) // 3
    search(space, judge, budget, storage, trials=trials, workers=workers, join=join, resume=join)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), "join" in sys.argv)
