"""Compares the samplers of `nasaug search` at equal numbers of evaluations.

    python benchmarks/samplers.py synthetic --seeds 10 --trials 200
    python benchmarks/samplers.py supernet RUN --seeds 10 --trials 60

`synthetic`: an additive surface over mbv2_tiny's default space within 100M MACs (every choice of
every row has a worth, drawn from a seed); its optimum is known from exact Pareto labels, and what
is shown is the share of the way from a random member's mean worth to it. `supernet`: the real
inherited accuracies of a finished search's supernet; a candidate is judged once and remembered in
RUN/judged.jsonl, whichever sampler asks. Prints Markdown: mean over seeds, the 95 % interval of the
mean (Student's t), and the paired difference from the default.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from optuna.storages import InMemoryStorage
from scipy.stats import t as student

from nasaug.config import SearchConfig
from nasaug.pipelines.judging import inherited_accuracy
from nasaug.search import SAMPLERS, Evaluate, search
from nasaug.setting import prepare
from nasaug.supernet import Architecture, ChoicePath, Limits, Network, SearchSpace, load_target
from nasaug.training import load_weights

BUDGET = 100_000_000
UNIT = 10**6


class Surface:
    """Worths as integers, so that the optimum's labels are exact."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        rng = random.Random(f"surface/{seed}")
        self._space = space
        self._worth = [[rng.randrange(UNIT) for _ in row.choices] for row in space.rows]

    def total(self, path: ChoicePath) -> int:
        return sum(row[choice] for row, choice in zip(self._worth, path, strict=True))

    def __call__(self, arch: Architecture) -> float:
        return self.total(self._space.path(arch)) / UNIT

    def optimum(self, budget: int) -> float:
        """The most worth within `budget` MACs, by labels (MACs, worth) that none dominates."""
        space = self._space
        layers = {id(space.source): space.source}
        labels = {id(space.source): np.zeros((1, 2), np.int64)}
        for worths in self._worth:
            heads: dict[int, list[np.ndarray]] = {}
            following = {}
            for key, node in layers.items():
                for edge in node.edges:
                    following[id(edge.head)] = edge.head
                    grown = labels[key] + (edge.macs, worths[edge.choice])
                    fits = grown[:, 0] + edge.head.cheapest <= budget
                    heads.setdefault(id(edge.head), []).append(grown[fits])
            labels = {key: _front(np.concatenate(pairs)) for key, pairs in heads.items()}
            layers = following
        return max(int(pairs[:, 1].max()) for pairs in labels.values()) / UNIT


def _front(pairs: np.ndarray) -> np.ndarray:
    """Of (MACs, worth), those with more worth than all cheaper ones."""
    pairs = pairs[np.lexsort((-pairs[:, 1], pairs[:, 0]))]
    best = np.maximum.accumulate(pairs[:, 1])
    return pairs[np.concatenate(([True], pairs[1:, 1] > best[:-1]))]


def synthetic(seeds: int, trials: int) -> None:
    space = SearchSpace.around(load_target("mbv2_tiny", 10))
    region = space.within(Limits(macs=BUDGET))
    rng = random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for seed in range(seeds):
        surface = Surface(space, seed)
        draws = [surface.total(region.sample_path(rng)) / UNIT for _ in range(2000)]
        low, high = float(np.mean(draws)), surface.optimum(BUDGET)
        for name in SAMPLERS:
            best = _best(space, surface, Limits(macs=BUDGET), name, trials, seed)
            found[name].append((best - low) / (high - low))
        print(
            f"<!-- seed {seed}: " + ", ".join(f"{n} {v[-1]:.3f}" for n, v in found.items()), "-->"
        )
    _report(f"synthetic surface, {trials} trials: share of the way to the optimum", found)


def supernet(run: Path, seeds: int, trials: int) -> None:
    config = SearchConfig.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    setting = prepare(config)
    space = config.make_space(setting.target)
    weights = load_weights(run / "supernet" / "weights.safetensors")
    judge = Remembered(space, weights, inherited_accuracy(setting, weights), run)
    found: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for seed in range(seeds):
        for name in SAMPLERS:
            found[name].append(100 * _best(space, judge, config.limits, name, trials, seed))
        print(
            f"<!-- seed {seed}: " + ", ".join(f"{n} {v[-1]:.2f}" for n, v in found.items()), "-->"
        )
    _report(f"supernet of {config.target}, {trials} trials: best inherited top-1 (%)", found)


class Remembered:
    """A judge that writes down what it judged, and reads it when the benchmark is run again."""

    def __init__(self, space: SearchSpace, weights: Network, judge: Evaluate, run: Path) -> None:
        self._space, self._judge, self._file = space, judge, run / "judged.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self._known = {tuple(path): value for path, value in map(json.loads, lines)}

    def __call__(self, arch: Architecture) -> float:
        path = self._space.path(arch)
        if path not in self._known:
            self._known[path] = float(self._judge(arch))  # type: ignore[arg-type]
            with self._file.open("a") as file:
                file.write(json.dumps([path, self._known[path]]) + "\n")
        return self._known[path]


def _best(
    space: SearchSpace,
    judge: Callable[[Architecture], float],
    limits: Limits,
    sampler: str,
    trials: int,
    seed: int,
) -> float:
    study = search(space, judge, limits, InMemoryStorage(), sampler, trials, seed)
    return float(study.best_value)


def _report(title: str, found: dict[str, list[float]]) -> None:
    default = np.array(found["evolution"])
    print(
        f"\n{title}, {len(default)} seeds\n\n| sampler | mean | 95 % interval | minus evolution |"
    )
    print("|---|---|---|---|")
    for name, values in found.items():
        mean, half = _interval(np.array(values))
        difference, spread = _interval(np.array(values) - default)
        paired = "" if name == "evolution" else f"{difference:+.3f} ± {spread:.3f}"
        print(f"| {name} | {mean:.3f} | {mean - half:.3f} to {mean + half:.3f} | {paired} |")


def _interval(values: np.ndarray) -> tuple[float, float]:
    """The mean and half the width of its 95 % interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["synthetic", "supernet"])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=100)
    given = parser.parse_args()
    if given.what == "synthetic":
        synthetic(given.seeds, given.trials)
    else:
        supernet(given.run, given.seeds, given.trials)
