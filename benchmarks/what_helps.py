"""What helps the target? Which judgement of a largest network predicts the target trained in it.

    python benchmarks/what_helps.py --out FOLDER            (about 20 minutes on one core)
    python benchmarks/what_helps.py --out FOLDER --quick    (a minute; says nothing, only tries it)

Largest networks are drawn uniformly from bands of MACs of the space around micro_10k (28 x 28 grey
images of fashion-mnist-mini). Each is judged on one supernet (single path one-shot): by its own
inherited accuracy, by its help (see docs/judging.md), by the mean help of the helpers below it, and
by its MACs. Then the target is trained by NetAug inside each, from the same start and on the same
batches, and judged on the test part. Printed are Spearman's rank correlations of the judgements
with the trained target's top-1 and test loss, with 95 % bootstrap intervals over the networks.

FOLDER/results.jsonl gets a line as soon as one is known; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasaug.netaug import Augmentation, NetAugOptions, netaug_step
from nasaug.search import (
    Helpfulness,
    InheritedAccuracy,
    draw_stratified,
    rank_report,
    single_path_step,
)
from nasaug.supernet import Architecture, Limits, Network, SearchSpace, load_target, macs
from nasaug.training import (
    Batches,
    Dataset,
    ImageArray,
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
    load_weights,
    plain_step,
    reestimate_batch_norm,
    save_weights,
    training_batches,
)

TARGET = load_target("micro_10k", 10, 28, 1)
SPACE = SearchSpace.around(TARGET)
VIEW = View(28, 1)
BATCH, PAIRS, HELPERS, BN_IMAGES = 64, 12, 4, 2048
# Judgement -> its words in the table.
JUDGEMENTS = {
    "accuracy": "inherited accuracy",
    "help": "help",
    "cosine": "help, cosine",
    "helpers_help": f"help, mean of {HELPERS} helpers",
    "macs": "MACs",
}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    keep_caches()
    run = RunFolder(options.out)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    check_settings(run.path / "settings.json", settings)
    data = load_dataset("fashion-mnist-mini")
    if options.quick:
        data = shortened(data)
    recipe = Recipe(epochs=options.epochs, batch_size=BATCH, lr=options.lr, bn_images=BN_IMAGES)
    supernet = trained_supernet(data, options.supernet_epochs, run.path / "supernet")
    paths = draw_stratified(SPACE, options.n, options.bands, Limits(), random.Random(options.draw))
    largest = [SPACE.architecture(path).canonical() for path in paths]
    results = Results(run.path / "results.jsonl")
    judgements = [
        results(f"judged {index}", lambda arch=arch: judged(supernet, arch, data))
        for index, arch in enumerate(largest)
    ]
    for seed in range(options.seeds):
        results(f"baseline seed {seed}", lambda s=seed: train(None, data, recipe, s, run.path))
        for index, arch in enumerate(largest):
            results(
                f"inside {index} seed {seed}",
                lambda a=arch, s=seed: train(a, data, recipe, s, run.path),
            )
    print_tables(results, judgements, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=10, help="largest networks")
    parser.add_argument("--bands", type=int, default=5, help="bands of MACs")
    parser.add_argument("--draw", type=int, default=0, help="seed of the draw")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--epochs", type=int, default=6, help="of the target, after one of warm-up")
    parser.add_argument("--supernet-epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.2, help="of the target's training")
    parser.add_argument("--quick", action="store_true", help="600 images, 4 networks, 1 epoch")
    options = parser.parse_args()
    if options.quick:
        options.n, options.bands, options.epochs, options.supernet_epochs = 4, 2, 1, 1
    return options


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Results of other settings are not mixed: only the number of seeds may grow."""
    if path.exists():
        before = json.loads(path.read_text())
        if {**before, "seeds": 0} != {**settings, "seeds": 0}:
            raise SystemExit(f"{path.parent} holds results of {before}; name another --out")
    path.write_text(json.dumps(settings))


class Results:
    """Values by name, each computed once and kept as a line of JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        # A line cut short by a killed process is computed again.
        whole = [line for line in lines if line.endswith("}")]
        path.write_text("".join(f"{line}\n" for line in whole))
        self.known = {row["name"]: row["value"] for row in map(json.loads, whole)}

    def __call__(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in self.known:
            self.known[name] = compute()
            with self._path.open("a") as file:
                file.write(json.dumps({"name": name, "value": self.known[name]}) + "\n")
            print(name, self.known[name], flush=True)
        value: dict[str, Any] = self.known[name]
        return value


def shortened(data: Dataset) -> Dataset:
    """Enough images to try it: PAIRS batches, and a whole number of validation batches."""
    parts = {"train": 600, "validation": 896, "test": 256}
    return replace(
        data, **{name: getattr(data, name).subset(torch.arange(n)) for name, n in parts.items()}
    )


def trained_supernet(data: Dataset, epochs: int, path: Path) -> Network:
    folder = RunFolder(path)
    if not folder.weights.exists():
        net = Network(SPACE.largest.canonical(), generator=torch.Generator().manual_seed(0))
        batches = training_batches(data, VIEW, BATCH, seed=0)
        recipe = Recipe(epochs=epochs, batch_size=BATCH, lr=0.1)
        net = fit(net, single_path_step(SPACE), batches, recipe, folder, resume=True)
        save_weights(folder.weights, net)
    return load_weights(folder.weights)


def judged(supernet: Network, arch: Architecture, data: Dataset) -> dict[str, Any]:
    """Everything that a search may judge a largest network by."""
    plain, cosine = helpfulness(supernet, data), helpfulness(supernet, data, cosine=True)
    validation = evaluation_batches(data, data.validation, VIEW)
    accuracy = InheritedAccuracy(supernet, calibration_batches(data, VIEW, 512), validation)
    space, rng = Augmentation.inside(TARGET, arch).helpers, random.Random(0)
    helpers = [plain.measure(space.sample(rng).canonical()) for _ in range(HELPERS)]
    return {
        "accuracy": accuracy(arch),
        "help": (help_ := plain.measure(arch)).mean,
        "help_error": help_.standard_error,
        "cosine": cosine(arch),
        "helpers_help": float(np.mean([one.mean for one in helpers])),
        "helpers": [asdict(one) for one in helpers],
        "macs": macs(arch),
    }


def helpfulness(supernet: Network, data: Dataset, cosine: bool = False) -> Helpfulness:
    """On batches that are drawn as in training, and on shuffled ones of the validation part."""
    part = data.validation
    assert isinstance(part, ImageArray)
    shuffled = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    validation: Batches = evaluation_batches(data, part.subset(shuffled), VIEW, BATCH)
    seen = training_batches(data, VIEW, min(BATCH, len(data.train) // PAIRS), seed=1)
    return Helpfulness(supernet, TARGET, seen, validation, PAIRS, 0.1, cosine)


def train(
    largest: Architecture | None, data: Dataset, recipe: Recipe, seed: int, path: Path
) -> dict[str, Any]:
    """The target's test scores, trained inside `largest` or alone (None)."""
    generator = torch.Generator().manual_seed(seed)
    step: Step
    if largest is None:
        net, step = Network(TARGET, "fan_out", generator), plain_step
    else:
        augmentation = Augmentation.inside(TARGET, largest)
        net = Network(augmentation.largest.canonical(), "kaiming_uniform", generator)
        step = netaug_step(augmentation, NetAugOptions())
    batches = training_batches(data, VIEW, BATCH, seed)
    net = fit(net, step, batches, recipe, RunFolder(path / "training"), seed=seed)
    target = net.export(TARGET)
    reestimate_batch_norm(target, calibration_batches(data, VIEW, recipe.bn_images))
    return evaluate(target, evaluation_batches(data, data.test, VIEW))


def print_tables(
    results: Results, judgements: list[dict[str, Any]], options: argparse.Namespace
) -> None:
    """Markdown: a row a largest network, then a row a judgement."""
    trained = {
        index: [results.known[f"inside {index} seed {s}"] for s in range(options.seeds)]
        for index in range(options.n)
    }
    top1 = [float(np.mean([one["top1"] for one in trained[i]])) for i in trained]
    loss = [float(np.mean([one["loss"] for one in trained[i]])) for i in trained]
    print(
        f"\n{options.n} largest networks, {options.epochs} + 1 epochs at a learning rate of "
        f"{options.lr:g}, {options.seeds} seed(s); test part\n"
    )
    print("| largest: MACs | accuracy (%) | help ± error | cosine | target top-1 (%) | loss |")
    print("|---|---|---|---|---|---|")
    for one, top, worth in zip(judgements, top1, loss, strict=True):
        print(
            f"| {one['macs']:,} | {100 * one['accuracy']:.1f} | {one['help']:.3g} ± "
            f"{one['help_error']:.2g} | {one['cosine']:.3f} | {100 * top:.2f} | {worth:.4f} |"
        )
    alone = [results.known[f"baseline seed {s}"] for s in range(options.seeds)]
    means = [float(np.mean([one[key] for one in alone])) for key in ("top1", "loss")]
    print(f"| none: the target alone | | | | {100 * means[0]:.2f} | {means[1]:.4f} |")
    costs = [one["macs"] for one in judgements]
    print("\n| judged by | Spearman with the target's top-1 | with minus its loss |")
    print("|---|---|---|")
    for key, words in JUDGEMENTS.items():
        values = [float(one[key]) for one in judgements]
        with_top1 = rank_report(values, top1, costs).spearman
        with_loss = rank_report(values, [-each for each in loss], costs).spearman
        print(f"| {words} | {with_top1} | {with_loss} |")


if __name__ == "__main__":
    main()
