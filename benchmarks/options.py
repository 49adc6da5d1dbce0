"""What each option of a training step costs, as a ratio against the step without it.

    make bench                               (after benchmarks/speed.py; about 15 minutes more)
    python benchmarks/options.py --rounds 20 --only "gradient surgery"

Timed in turn, round by round; printed is the median of the rounds' ratios with their quartiles.
mbv2_tiny, 10 classes, batch 64 at 48 pixels; NetAug with the published factors, divisor 8. Options
of the NetAug step are over the NetAug step, others over the plain step of the target alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from timing import AUGMENTATION, BATCH, TARGET, random_batch, report, side_by_side, timed

from nasaug.netaug import (
    BoostOptions,
    DistillOptions,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    PruneOptions,
    RelationalOptions,
    UnshareOptions,
    pruning_step,
    sharing_groups,
    training_step,
    unsharing_step,
)
from nasaug.supernet import Network, Noise, boost
from nasaug.training import (
    Batches,
    Step,
    View,
    keep_caches,
    load_dataset,
    relational_loss,
    training_batches,
)

SIZE = 48
UNSORTED = NetAugOptions(sort_channels=False)
NETAUG = Parts(AUGMENTATION, UNSORTED)
PLAIN = "plain step"
REFERENCE = "NetAug step"


def augmented(**options: object) -> Step:
    return training_step(replace(NETAUG, netaug=UNSORTED.model_copy(update=options)))


def relational(**options: object) -> Step:
    netaug = UNSORTED.model_copy(update=options)
    return training_step(replace(NETAUG, netaug=netaug, relational=RelationalOptions()))


NETAUG_OPTIONS: dict[str, Callable[[], Step]] = {
    "two helpers": lambda: augmented(helpers=2),
    "tied sampling": lambda: augmented(sampling="tied"),
    "always the largest": lambda: augmented(sampling="largest"),
    "gradient surgery": lambda: augmented(mixing="surgery"),
    "in-place distillation": lambda: training_step(replace(NETAUG, in_place=InPlaceOptions())),
    "relational, a pass of the largest more": lambda: relational(),
    "relational and surgery, the largest as helper": lambda: relational(
        sampling="largest", mixing="surgery"
    ),
    "noise: dropout and drop-path": lambda: training_step(
        replace(NETAUG, noise=Noise(dropout=0.1, drop_path=0.1))
    ),
    "pruning": lambda: pruning_step(
        training_step(NETAUG), TARGET, PruneOptions(begin=0.0, until=0.005)
    ),
    "sharing weights": lambda: unsharing_step(
        training_step(NETAUG), sharing_groups(AUGMENTATION.largest.canonical()), UnshareOptions()
    ),
}
PLAIN_OPTIONS: dict[str, Callable[[], Step]] = {
    "dropout": lambda: training_step(Parts(noise=Noise(dropout=0.1))),
    "drop-path": lambda: training_step(Parts(noise=Noise(drop_path=0.1))),
    "drop-block": lambda: training_step(Parts(noise=Noise(drop_block=0.1))),
    "pruning, alone": lambda: pruning_step(
        training_step(Parts()), TARGET, PruneOptions(begin=0.0, until=0.005)
    ),
    "sharing weights, alone": lambda: unsharing_step(
        training_step(Parts()), sharing_groups(TARGET), UnshareOptions()
    ),
}
POLICIES = {
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "rand-augment": {"rand_augment": True},
    "auto-augment": {"auto_augment": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", help="a part of an option's name")
    arguments = parser.parse_args()
    keep_caches()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")

    def wanted(name: str) -> bool:
        return arguments.only is None or arguments.only in name

    batch = random_batch(SIZE)
    largest = Network(AUGMENTATION.largest.canonical())
    steps = {name: make() for name, make in NETAUG_OPTIONS.items() if wanted(name)}
    if steps:
        steps[REFERENCE] = training_step(NETAUG)
        compare(steps, lambda _: Network(largest.arch), REFERENCE, batch, arguments.rounds)
    steps = {name: make() for name, make in PLAIN_OPTIONS.items() if wanted(name)}
    special = {
        "a teacher of 13 x the MACs": _taught(Network(largest.arch)),
        "NetBooster's blocks": training_step(Parts(boost=BoostOptions())),
    }
    steps |= {name: step for name, step in special.items() if wanted(name)}
    if steps:
        steps[PLAIN] = training_step(Parts())
        compare(steps, _alone, PLAIN, batch, arguments.rounds)
    loaders(arguments.rounds, wanted)
    if wanted("relational loss"):
        relations(arguments.rounds)


def compare(
    steps: dict[str, Step],
    network: Callable[[str], Network],
    reference: str,
    batch: tuple[torch.Tensor, torch.Tensor],
    rounds: int,
) -> None:
    runs = {name: timed(network(name), step, batch) for name, step in steps.items()}
    for name, ratios in side_by_side(runs, reference, rounds).items():
        report(f"{name} / {reference}", ratios, "none")


def _alone(name: str) -> Network:
    return Network(boost(TARGET) if name.startswith("NetBooster") else TARGET)


def _taught(net: Network) -> Step:
    """An outer teacher as large as the largest augmented network, asked at every step."""
    net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def teacher(images: torch.Tensor, state: object) -> torch.Tensor:
        with torch.no_grad():
            return net(images)  # type: ignore[no-any-return]

    return training_step(Parts(distill=DistillOptions(), teacher=teacher))


def loaders(rounds: int, wanted: Callable[[str], bool]) -> None:
    """A batch's making, over that of a batch that is shifted and mirrored only."""
    data = load_dataset("fashion-mnist-mini")
    views = {name: options for name, options in POLICIES.items() if wanted(name)}
    if not views:
        return
    views["shifts and flips"] = {}
    loaded = {
        name: training_batches(data, View(SIZE, 3, **options), BATCH, seed=0)  # type: ignore[arg-type]
        for name, options in views.items()
    }
    runs = {name: _making(batches) for name, batches in loaded.items()}
    for name, ratios in side_by_side(runs, "shifts and flips", rounds).items():
        report(f"{name}: making a batch / shifts and flips alone", ratios, "none")


def _making(batches: Batches) -> Callable[..., float]:
    """Seconds that the last ten batches of an epoch take to make."""

    def run(epoch: int = 0) -> float:
        start = time.perf_counter()
        for _ in batches.epoch(epoch, len(batches) - 10):
            pass
        return time.perf_counter() - start

    return run


def relations(rounds: int) -> None:
    """Milliseconds of the relational loss itself, forward and backward, by the batch's size."""
    for images in (64, 128, 256):
        teacher, student = torch.randn(2, images, 320)
        student.requires_grad_()
        milliseconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            relational_loss(teacher, student).backward()
            milliseconds.append(1e3 * (time.perf_counter() - start))
        report(f"relational loss of {images} images (ms)", milliseconds, "none")


if __name__ == "__main__":
    main()
