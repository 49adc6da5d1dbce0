"""Racing on recorded searches: images saved, and whether the final choice stays the same.

    python benchmarks/racing.py --out FOLDER                     (15 minutes on one core)
    python benchmarks/racing.py --out FOLDER --data fashion-mnist --seeds 3     (25 minutes)
    python benchmarks/racing.py --out FOLDER --quick             (a minute; only tries it)

A supernet of the space around micro_10k is trained (28 x 28 grey images, single path one-shot),
and a search by evolution is recorded for every seed: all answers of all its candidates, nothing
raced. Replayed on the records are
- the same sequences with races at several confidences, and shuffled draws of all candidates;
- the same with a predictor before the race: ridge regression on one-hot decisions, refitted before
  every candidate, which drops what it predicts to be 2 or 3 standard errors below the best;
- with --live, the searches themselves with races, where the sampler sees interim accuracies.
Images are counted with and without those that re-estimate batch norm; an interim accuracy less that
on all images is shown as mean and deviation. --calibration asks what the number of images for batch
norm is worth: the rank correlation of validation with test accuracy, for several numbers. Intervals
are 95 %: of the bootstrap over sequences, Clopper and Pearson's for shares.

FOLDER keeps the supernet and the records; the same command goes on from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
from optuna.storages import InMemoryStorage
from scipy.stats import binomtest, bootstrap
from torch import Tensor

from nasaug.search import (
    Answers,
    InheritedAccuracy,
    PairedRace,
    rank_report,
    search,
    single_path_step,
)
from nasaug.supernet import Architecture, ChoicePath, Network, SearchSpace, load_target
from nasaug.training import (
    Dataset,
    Recipe,
    RunFolder,
    View,
    calibration_batches,
    evaluate,
    evaluation_batches,
    fit,
    keep_caches,
    load_dataset,
    load_weights,
    reestimate_batch_norm,
    save_weights,
    training_batches,
)

SPACE = SearchSpace.around(load_target("micro_10k", 10, 28, 1))
BUDGET = SPACE.source.dearest // 3
VIEW = View(28, 1)
CONFIDENCES = (1.0, 0.99, 0.95, 0.9)
SHUFFLED = 100
FIRST_PREDICTED, RIDGE = 16, 10.0
HEADER = """| sequences | race | validation images | all | same choice | lost (%) | interim (%) |
|---|---|---|---|---|---|---|"""


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    keep_caches()
    options.out.mkdir(parents=True, exist_ok=True)
    data = load_dataset(options.data)
    name = f"{options.data}-{options.epochs}"
    supernet = trained_supernet(data, options.epochs, options.out / f"supernet-{name}")
    records = [recorded(supernet, data, seed, options) for seed in range(options.seeds)]
    everything = Record.of(records)
    images = everything.margins.shape[1]
    print(
        f"\n{options.data}: {images:,} validation images, {options.bn} to re-estimate batch norm; "
        f"{options.seeds} searches of {options.trials} trials within {BUDGET:,} MACs\n"
    )
    rng = np.random.default_rng(0)
    count = min(options.trials, len(everything.paths))
    shuffled = [
        everything.part(rng.permutation(len(everything.paths))[:count]) for _ in range(SHUFFLED)
    ]
    print(HEADER)
    for name, sequences in (("recorded", records), ("shuffled", shuffled)):
        for confidence in CONFIDENCES:
            rows = [replay(one, options.bn, confidence) for one in sequences]
            print(line(name, f"confidence {confidence:g}", rows))
        for errors in (2.0, 3.0):
            rows = [replay(one, options.bn, 0.95, Predictor(errors)) for one in sequences]
            print(line(name, f"confidence 0.95, predictor {errors:g} errors", rows))
    if options.live:
        rows = [live(supernet, data, records[seed], seed, options) for seed in range(options.seeds)]
        print(line("searched again", "confidence 0.95", rows))
    if options.calibration:
        compare_calibrations(supernet, data, everything)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="fashion-mnist-mini")
    parser.add_argument("--epochs", type=int, default=5, help="of the supernet, after one more")
    parser.add_argument("--seeds", type=int, default=6, help="searches")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--bn", type=int, default=512, help="images to re-estimate batch norm")
    parser.add_argument("--live", action="store_true", help="search again, with races")
    parser.add_argument("--calibration", action="store_true", help="compare numbers of BN images")
    parser.add_argument("--quick", action="store_true", help="2 searches of 20 trials")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.seeds, options.trials = 1, 2, 20
    return options


class Record:
    """What the candidates of a search answered, in its order: a judge for races.

    `margins` (candidates, images). `asked` counts the images that a race asks for.
    """

    def __init__(self, paths: list[ChoicePath], margins: Tensor) -> None:
        self.paths, self.margins = paths, margins
        self.archs = [SPACE.architecture(path).canonical() for path in paths]
        self.right = margins > 0
        self.accuracies = self.right.double().mean(1).tolist()
        self.macs = [SPACE.macs(path) for path in paths]
        self._rows = {arch: row for row, arch in enumerate(self.archs)}
        self.asked = torch.zeros(margins.shape, dtype=torch.bool)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Record:
        """All candidates of several searches, each once."""
        rows = {
            path: row for one in records for path, row in zip(one.paths, one.margins, strict=True)
        }
        return cls([*rows], torch.stack([*rows.values()]))

    def part(self, indices: Any) -> Record:
        return Record([self.paths[i] for i in indices], self.margins[torch.as_tensor(indices)])

    def answers(self, arch: Architecture, chosen: Tensor | None = None) -> Answers:
        row = self._rows[arch]
        chosen = torch.arange(self.margins.shape[1]) if chosen is None else chosen
        self.asked[row, chosen] = True
        return Answers(self.right[row, chosen], self.margins[row, chosen])

    def better(self, one: int, other: int) -> int:
        """As `nasaug.search.ranking`: accuracy, fewer MACs among equals, the earlier one."""
        return max(other, one, key=lambda i: (self.accuracies[i], -self.macs[i]))

    def best(self) -> int:
        found = 0
        for index in range(1, len(self.paths)):
            found = self.better(index, found)
        return found


def recorded(supernet: Network, data: Dataset, seed: int, options: Any) -> Record:
    """A search without races, its candidates' answers kept in a file."""
    path = (
        options.out / f"{options.data}-{options.epochs}-bn{options.bn}-{options.trials}-{seed}.npz"
    )
    if not path.exists():
        judge, paths = make_judge(supernet, data, options.bn), []
        answers = []

        def judged(arch: Architecture) -> float:
            paths.append(SPACE.path(arch))
            answers.append(judge.answers(arch).margins)
            return judge(arch)

        search(SPACE, judged, BUDGET, InMemoryStorage(), trials=options.trials, seed=seed)
        np.savez_compressed(path, paths=np.array(paths), margins=torch.stack(answers).numpy())
        print(f"recorded {path}: {judge.spent}", flush=True)
    with np.load(path) as file:
        paths = [tuple(map(int, one)) for one in file["paths"]]
        return Record(paths, torch.from_numpy(file["margins"]))


def make_judge(supernet: Network, data: Dataset, bn: int) -> InheritedAccuracy:
    def select(chosen: Tensor) -> Any:
        return evaluation_batches(data, data.validation.subset(chosen), VIEW)

    validation = evaluation_batches(data, data.validation, VIEW)
    return InheritedAccuracy(supernet, calibration_batches(data, VIEW, bn), validation, select)


@dataclass(frozen=True)
class Outcome:
    """How many times fewer images, whether the final choice is the same, the accuracy lost, and
    interim accuracies less those on all images."""

    validation: float
    total: float
    same: bool
    lost: float
    errors: list[float]


def replay(
    record: Record, bn: int, confidence: float, predictor: Predictor | None = None
) -> Outcome:
    """A recorded sequence with races."""
    record.asked[:] = False
    race = PairedRace(record, confidence)
    best, judged = 0, 1
    seen, values = [0], [record.accuracies[0]]
    errors = []
    record.answers(record.archs[0])
    for index in range(1, len(record.paths)):
        if predictor and predictor.drops(record, seen, values, index, record.accuracies[best]):
            continue
        judged += 1
        interim = race(record.archs[index], [record.archs[best]])
        if interim is None:
            record.answers(record.archs[index])
            best = record.better(index, best)
        else:
            errors.append(interim - record.accuracies[index])
        seen.append(index)
        values.append(record.accuracies[index] if interim is None else interim)
    candidates, images = record.margins.shape
    spent = int(record.asked.sum())
    wanted = record.best()
    return Outcome(
        candidates * images / spent,
        candidates * (images + bn) / (spent + judged * bn),
        best == wanted,
        record.accuracies[wanted] - record.accuracies[best],
        errors,
    )


class Predictor:
    """Accuracy from one-hot decisions by ridge regression; drops what is `errors` of its
    leave-one-out standard errors below the best."""

    def __init__(self, errors: float) -> None:
        self._errors = errors

    def drops(
        self, record: Record, seen: list[int], values: list[float], index: int, best: float
    ) -> bool:
        if len(seen) < FIRST_PREDICTED:
            return False
        features = np.array([one_hot(record.paths[i]) for i in [*seen, index]])
        features -= features[:-1].mean(0)
        known, y = features[:-1], np.array(values)
        inner = known @ known.T
        weights = np.linalg.inv(inner + RIDGE * np.eye(len(y)))
        hat = inner @ weights + 1 / len(y)
        residuals = (y - y.mean() - inner @ weights @ (y - y.mean())) / (1 - np.diag(hat))
        predicted = y.mean() + features[-1] @ known.T @ weights @ (y - y.mean())
        return bool(predicted + self._errors * residuals.std() < best)


def one_hot(path: ChoicePath) -> list[float]:
    chosen = SPACE.parameters(path)
    return [
        float(chosen[name] == value) for name, values in SPACE.decisions.items() for value in values
    ]


def live(supernet: Network, data: Dataset, record: Record, seed: int, options: Any) -> Outcome:
    """The search of `record` again, with races."""
    judge = make_judge(supernet, data, options.bn)
    race = PairedRace(judge)
    study = search(
        SPACE, judge, BUDGET, InMemoryStorage(), trials=options.trials, seed=seed, race=race
    )
    candidates, images = record.margins.shape
    lost = max(record.accuracies) - study.best_value
    return Outcome(
        candidates * images / judge.spent.validation,
        candidates * (images + options.bn) / judge.spent.total,
        lost == 0,
        lost,
        [],
    )


def line(name: str, race: str, rows: list[Outcome]) -> str:
    same = sum(row.same for row in rows)
    share = binomtest(same, len(rows)).proportion_ci()
    errors = [100 * error for row in rows for error in row.errors]
    return (
        f"| {name} ({len(rows)}) | {race} | {interval([row.validation for row in rows])} x fewer | "
        f"{interval([row.total for row in rows])} x fewer | {same} of {len(rows)} "
        f"({share.low:.2f} to {share.high:.2f}) | {100 * mean(row.lost for row in rows):.3f} | "
        + (f"{mean(errors):.2f} ± {pstdev(errors):.2f} |" if errors else "|")
    )


def interval(values: list[float]) -> str:
    if len(set(values)) < 2:
        return f"{mean(values):.2f}"
    found = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{mean(values):.2f} ({found.low:.2f} to {found.high:.2f})"


def trained_supernet(data: Dataset, epochs: int, path: Path) -> Network:
    folder = RunFolder(path)
    if not folder.weights.exists():
        net = Network(SPACE.largest.canonical(), generator=torch.Generator().manual_seed(0))
        batches = training_batches(data, VIEW, 64, seed=0)
        net = fit(net, single_path_step(SPACE), batches, Recipe(epochs=epochs), folder, resume=True)
        save_weights(folder.weights, net)
    return load_weights(folder.weights)


def compare_calibrations(supernet: Network, data: Dataset, record: Record, count: int = 40) -> None:
    """Rank correlation with test accuracy (batch norm on 2,048 images) of validation accuracy."""
    chosen = np.random.default_rng(0).permutation(len(record.archs))[:count]
    archs = [record.archs[i] for i in chosen]

    def accuracies(bn: int, batches: Any) -> list[float]:
        found = []
        for arch in archs:
            candidate = supernet.export(arch)
            reestimate_batch_norm(candidate, calibration_batches(data, VIEW, bn))
            found.append(evaluate(candidate, batches)["top1"])
        return found

    macs = [record.macs[i] for i in chosen]
    test = accuracies(2048, evaluation_batches(data, data.test, VIEW))
    print(f"\n| images for batch norm | Spearman with test accuracy, {len(archs)} candidates |")
    print("|---|---|")
    for bn in (64, 128, 256, 512, 1024):
        validation = accuracies(bn, evaluation_batches(data, data.validation, VIEW))
        print(f"| {bn} | {rank_report(validation, test, macs).spearman} |", flush=True)


if __name__ == "__main__":
    main()
