"""Which way of training a supernet ranks best, at equal compute.

    python benchmarks/ranking.py --out runs/ranking

Some members of the space around a micro network, stratified over MACs, are trained alone once;
every method of `SUPERNET_METHODS` then trains a supernet per seed, and its inherited accuracies are
compared with those (validation images of fashion-mnist-mini at 28 x 28). Equal compute is an equal
number of passes x images: a method with m passes a step takes 1/m of the steps, at the same
learning rate. Passes differ in MACs (those of edge-dropout and sandwich are larger), so that the
seconds are printed too.

The table is Markdown: Kendall's tau, mean over the seeds, with a 95 % percentile interval of the
bootstrap over candidates, and its difference to the MACs' tau and to single-path's on the same
resamples. What is finished is kept in --out, and the same command goes on after an interruption.

    python benchmarks/ranking.py --intervals

prints what the intervals of n candidates are worth, on normal accuracies with a known tau: how many
hold it (should be 95 %), and how many lie above 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nasaug.search import (
    InheritedAccuracy,
    SupernetOptions,
    draw_stratified,
    passes_per_step,
    rank_report,
    supernet_step,
)
from nasaug.search.rank import Numbers, resampled_tau_b, tau_b
from nasaug.supernet import ChoicePath, Limits, Network, SearchSpace, load_target
from nasaug.training import (
    Recipe,
    RunFolder,
    Step,
    View,
    calibration_batches,
    evaluate,
    evaluation_batches,
    fit,
    keep_caches,
    load_dataset,
    plain_step,
    reestimate_batch_norm,
    training_batches,
)
from nasaug.training.files import append_line, read_json_object, write_json

METHODS = {
    "single-path": SupernetOptions(),
    "fair, over choices": SupernetOptions(method="fair"),
    "fair, over decisions": SupernetOptions(method="fair", fair_over="decisions"),
    "edge-dropout": SupernetOptions(method="edge-dropout"),
    "sandwich": SupernetOptions(method="sandwich"),
}
BASE = "single-path"
RESAMPLES = 10_000
# 2,700 validation images instead of 900: a third of the variance of an accuracy.
VALIDATION, BN_IMAGES = 0.3, 1024


@dataclass(frozen=True)
class Settings:
    """`epochs`: passes over the training images that each supernet gets, all its paths together.
    `images`: as many for training and for validation; None is all."""

    target: str
    n: int
    bands: int
    epochs: int
    alone_epochs: int
    batch_size: int
    lr: float
    seeds: int
    images: int | None = None


QUICK = Settings("micro_10k", 4, 2, 12, 1, 64, 0.1, 1, images=512)


class Bench:
    """The space, the data, and how one network is trained and judged."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        target = load_target(settings.target, 10, in_channels=1)
        self.space = SearchSpace.around(target, (1, 1.8, 2.6), (1, 2.2), (0, 2), (0, 1))
        data = load_dataset("fashion-mnist-mini", validation=VALIDATION)
        if settings.images is not None:
            some = torch.arange(settings.images)
            data = replace(
                data, train=data.train.subset(some), validation=data.validation.subset(some)
            )
        self.data = data
        self.view = View(28, 1)
        self.calibration = calibration_batches(self.data, self.view, BN_IMAGES)
        self.validation = evaluation_batches(self.data, self.data.validation, self.view)
        self.paths = draw_stratified(
            self.space, settings.n, settings.bands, Limits(), random.Random(0)
        )

    def trained(self, net: Network, step: Step, epochs: int, seed: int, name: str) -> Network:
        """`net` after `epochs`, a tenth more of warm-up; goes on from a checkpoint below `out`."""
        recipe = Recipe(
            epochs=epochs,
            warmup_epochs=epochs / 10,
            batch_size=self.settings.batch_size,
            lr=self.settings.lr,
        )
        batches = training_batches(self.data, self.view, recipe.batch_size, seed)
        return fit(net, step, batches, recipe, RunFolder(self.out / name), seed=seed, resume=True)

    def accuracy_alone(self, path: ChoicePath, name: str) -> float:
        arch = self.space.architecture(path).canonical()
        net = Network(arch, "fan_out", torch.Generator().manual_seed(0))
        net = self.trained(net, plain_step, self.settings.alone_epochs, 0, name).export(arch)
        reestimate_batch_norm(net, self.calibration)
        return evaluate(net, self.validation)["top1"]

    def inherited(self, options: SupernetOptions, seed: int, name: str) -> list[float]:
        """The accuracies of all candidates by a supernet trained as `options` say."""
        passes = passes_per_step(self.space, options)
        epochs, rest = divmod(self.settings.epochs, passes)
        if rest:
            raise ValueError(
                f"--epochs must be a multiple of all numbers of passes, such as {passes}, but got "
                f"{self.settings.epochs}"
            )
        generator = torch.Generator().manual_seed(seed)
        net = Network(self.space.largest.canonical(), "kaiming_uniform", generator)
        net = self.trained(net, supernet_step(self.space, options), epochs, seed, name)
        judge = InheritedAccuracy(net, self.calibration, self.validation)
        return [judge(self.space.architecture(path)) for path in self.paths]


class Results:
    """What is measured, a line each in `results.jsonl`; what is there is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {line["name"]: line for line in map(json.loads, lines)}

    def __call__(self, name: str, measure: Callable[[], float | list[float]]) -> None:
        if name in self.found:
            return
        began = time.monotonic()
        line = {"name": name, "value": measure(), "seconds": time.monotonic() - began}
        print(f"{name}: {line['seconds']:.0f} s", flush=True)
        append_line(self._path, json.dumps(line))
        self.found[name] = line

    def values(self, *names: str) -> Numbers:
        return np.array([self.found[name]["value"] for name in names], dtype=np.float64)

    def seconds(self, *names: str) -> float:
        """Mean; of an interrupted measurement only the last part counts."""
        return float(np.mean([self.found[name]["seconds"] for name in names]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--quick", action="store_true", help="a tiny setting: does it run?")
    parser.add_argument("--target", default="micro_10k")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--bands", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--alone-epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--intervals", action="store_true", help="what intervals are worth")
    given = vars(parser.parse_args())
    out, quick = given.pop("out"), given.pop("quick")
    if given.pop("intervals"):
        print(intervals())
        return
    keep_caches()
    print(report(QUICK if quick else Settings(**given), out))


def intervals(repeats: int = 400, resamples: int = 500) -> str:
    """A table: share of intervals that hold the true tau, and that lie above 0."""
    rng = np.random.default_rng(0)
    lines = ["| n | true tau | interval holds it | interval above 0 |", "|---|---|---|---|"]
    for n, tau in itertools.product((6, 8, 12, 16, 24), (0.0, 0.5)):
        # Of a bivariate normal: tau = 2 / pi arcsin(rho).
        rho = math.sin(math.pi / 2 * tau)
        found = []
        for seed in range(repeats):
            alone = rng.normal(size=n)
            inherited = rho * alone + math.sqrt(1 - rho**2) * rng.normal(size=n)
            found.append(rank_report(inherited, alone, alone, resamples, seed).tau)
        holds = sum(one.low <= tau <= one.high for one in found) / repeats
        above = sum(one.above_zero for one in found) / repeats
        lines.append(f"| {n} | {tau} | {100 * holds:.0f} % | {100 * above:.0f} % |")
    return "\n".join(lines)


def report(settings: Settings, out: Path) -> str:
    """Measure what is missing; the table. Raises: ValueError if `out` is of other settings."""
    out.mkdir(parents=True, exist_ok=True)
    saved = out / "settings.json"
    if saved.exists() and read_json_object(saved) != asdict(settings):
        raise ValueError(f"{out} holds results of other settings ({saved}); choose another --out")
    write_json(saved, asdict(settings))
    bench, results = Bench(settings, out), Results(out / "results.jsonl")
    alone = [f"alone-{index:02d}" for index in range(settings.n)]
    for name, path in zip(alone, bench.paths, strict=True):
        results(name, lambda name=name, path=path: bench.accuracy_alone(path, name))
    runs = {
        method: [f"{method}-seed{seed}" for seed in range(settings.seeds)] for method in METHODS
    }
    for seed in range(settings.seeds):
        for method, options in METHODS.items():
            name = runs[method][seed]
            results(name, lambda n=name, o=options, s=seed: bench.inherited(o, s, n))
    return table(bench, results, alone, runs)


def table(bench: Bench, results: Results, alone: list[str], runs: dict[str, list[str]]) -> str:
    y = results.values(*alone)
    costs = np.array([bench.space.macs(path) for path in bench.paths], dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(y), size=(RESAMPLES, len(y)))

    def taus(judges: Numbers) -> tuple[float, Numbers]:
        """tau, mean over the judges (rows), of the candidates and of every resample."""
        value = float(np.mean([tau_b(judge, y) for judge in judges]))
        return value, np.mean([resampled_tau_b(judge, y, drawn) for judge in judges], axis=0)

    def shown(value: float, resampled: Numbers) -> str:
        low, high = np.percentile(resampled, [2.5, 97.5])
        return f"{value:.2f} ({low:.2f} to {high:.2f})"

    macs = taus(costs[None, :])
    found = {method: taus(results.values(*names)) for method, names in runs.items()}
    settings = bench.settings
    lines = [
        f"{settings.n} candidates of {bench.space.count():,} ({costs.min():,.0f} to "
        f"{costs.max():,.0f} MACs), top-1 alone {100 * y.min():.1f} to {100 * y.max():.1f} %, "
        f"{len(bench.data.validation):,} validation images, {settings.seeds} supernet seeds, "
        f"{settings.epochs} epochs of passes, learning rate {settings.lr}",
        "",
        "| supernet | passes a step | tau | tau - tau of MACs | tau - tau of single-path | "
        "mean top-1 inherited (%) | seconds |",
        "|---|---|---|---|---|---|---|",
        f"| MACs alone | 0 | {shown(*macs)} | | | | 0 |",
    ]
    for method, (value, resampled) in found.items():
        differences = [
            shown(value - other, resampled - others) for other, others in (macs, found[BASE])
        ]
        inherited = 100 * results.values(*runs[method]).mean()
        lines.append(
            f"| {method} | {passes_per_step(bench.space, METHODS[method])} | "
            f"{shown(value, resampled)} | {differences[0]} | "
            f"{differences[1] if method != BASE else ''} | {inherited:.1f} | "
            f"{results.seconds(*runs[method]):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
