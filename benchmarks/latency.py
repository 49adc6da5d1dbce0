"""How well latency tables predict whole networks, and what each part of the prediction brings.

    python benchmarks/latency.py --target mbv2_tiny --backend onnxruntime

Rows are measured as `nasaug latency-table` does, then 10 networks for the scale and 20 others to
judge by. Printed are Spearman and the mean absolute percentage error of: the plain sum of the rows;
the sum times the fitted scale (what the command does); the sum times a scale plus a constant, both
fitted; and MACs times a constant, which a table must beat to be worth measuring. The last line is
the noise: the judged networks measured a second time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from nasaug.devices import (
    BACKENDS,
    LatencyTable,
    Samples,
    Timing,
    calibrate,
    draw_networks,
    empty_run,
    measure_networks,
    measure_rows,
    open_backend,
    rows_of,
)
from nasaug.supernet import Architecture, SearchSpace, load_target, macs, published_factors
from nasaug.training import keep_caches

FIT, JUDGED = 10, 20
Predict = Callable[[Architecture], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="micro_10k")
    parser.add_argument("--backend", choices=BACKENDS, default="torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    keep_caches()
    factors = published_factors(arguments.target)
    space = SearchSpace.around(load_target(arguments.target, 10), factors.width, factors.expand)
    rng = random.Random(0)
    fit = draw_networks(space, FIT, rng)
    judged = draw_networks(space, JUDGED, rng, without=fit)
    start = time.perf_counter()
    with open_backend(arguments.backend, arguments.threads) as backend:
        samples: Samples = {}
        rows = measure_rows(backend, space, rows_of(space), samples, rng, arguments.repeats)
        print(f"{backend.versions}: {len(rows)} rows in {time.perf_counter() - start:.0f} s")
        whole = measure_networks(backend, [*fit, *judged], rng, arguments.repeats)
        again = measure_networks(backend, judged, rng, arguments.repeats)
    table = LatencyTable(rows, overhead=empty_run(samples))
    for name, predict in predictions(table, fit, whole[:FIT]).items():
        report(name, [predict(arch) for arch in judged], whole[FIT:])
    report("measured again", [timing.median for timing in again], whole[FIT:])


def predictions(
    table: LatencyTable, networks: Sequence[Architecture], measured: Sequence[Timing]
) -> dict[str, Predict]:
    """Ways to predict nanoseconds, fitted on `measured`."""
    plain = replace(table, scale=1.0)
    scaled = calibrate(table, networks, measured)
    times = np.array([timing.median for timing in measured], dtype=float)
    design = np.array([[plain.predict(arch), 1.0] for arch in networks])
    (slope, constant), _ = nnls(design / times[:, None], np.ones_like(times))
    per_mac = statistics.median(
        time / macs(arch) for time, arch in zip(times, networks, strict=True)
    )
    return {
        "sum of rows": plain.predict,
        f"sum x {scaled.scale}": scaled.predict,
        f"sum x {slope:.3f} + {constant / 1000:.0f} us": lambda arch: (
            slope * plain.predict(arch) + constant
        ),
        "MACs x constant": lambda arch: per_mac * macs(arch),
    }


def report(name: str, predicted: Sequence[float], measured: Sequence[Timing]) -> None:
    medians = [timing.median for timing in measured]
    rho = spearmanr(predicted, medians).statistic
    error = statistics.fmean(abs(p / m - 1) for p, m in zip(predicted, medians, strict=True))
    sys.stdout.write(f"{name:28} Spearman {rho:.3f}   mean absolute percentage error {error:.1%}\n")


if __name__ == "__main__":
    main()
