"""Two trainings on two cores: side by side with one thread each, or one after the other with two.

    python benchmarks/cells.py --rounds 5

It decides how `nasaug compare` uses its cores. Rounds alternate between the two ways; printed is
the median of the rounds' ratios with its extremes, for a target alone and for one with helpers.
micro_10k on the embedded images, batch 128, whole processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("baseline", "netaug")


def process(method: str, threads: int, epochs: int, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nasaug", "train", "--target=micro_10k", f"--method={method}"]
    command += ["--largest=published"] if method == "netaug" else []
    command += [f"--epochs={epochs}", f"--out={out}"]
    for key in ("in_channels=1", f"threads={threads}", "train.batch_size=128"):
        command += ["--set", key]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment)


def seconds(method: str, side_by_side: bool, epochs: int, folder: Path) -> float:
    begun = time.perf_counter()
    if side_by_side:
        both = [process(method, 1, epochs, folder / f"{begun}-{index}") for index in range(2)]
        codes = [one.wait() for one in both]
    else:
        codes = [process(method, 2, epochs, folder / f"{begun}-{i}").wait() for i in range(2)]
    assert codes == [0, 0], codes
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    for method in METHODS:
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(given.rounds):
                together, in_turn = (
                    seconds(method, way, given.epochs, Path(folder)) for way in (True, False)
                )
                ratios.append(in_turn / together)
        print(
            f"{method}: two threads in turn take {statistics.median(ratios):.2f} times as long as "
            f"one thread each side by side ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
