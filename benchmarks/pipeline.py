"""Whether training waits for pictures: what the data pipeline makes, beside what a step consumes.

    make bench                                             (after benchmarks/speed.py)
    python benchmarks/pipeline.py --rounds 20 --only detector

Pictures are files: JPEGs of ImageNet's usual size with noise of all scales on them, for
`nasaug train --data imagefolder:PATH`, and composed scenes for `nasaug detect train`.
Views, batch sizes and decoding processes are those that the commands take by default.

The pipeline alone (all cores decode) and the step alone (all cores compute, on a batch that lies
ready) take turns, round by round; printed is the median of the rounds' ratios with its quartiles,
and of each one's images a second. Then both run together, as in a training: images a second, and
the share of its time that the training waits for its next batch. The files are in the system's
cache: what a disk or a network takes is not in these numbers.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timing import AUGMENTATION, SEEDS, TARGET, report, timed

from nasaug import detection, training
from nasaug.config import load_config
from nasaug.detect_config import DetectConfig
from nasaug.netaug import NetAugOptions, netaug_step
from nasaug.pipelines.detect_plan import make_detect_plan
from nasaug.pipelines.detect_setting import prepare_detection
from nasaug.setting import prepare
from nasaug.supernet import Network
from nasaug.train_config import TrainConfig

PICTURES, SCENES = 300, 200
# Width and height, and what gives files of about ImageNet's 110 kB.
SIZE, QUALITY, CONTRAST = (500, 375), 90, 0.4
# Batches: of a round of the pipeline alone, and until both together run evenly.
ALONE, WARM_UP = 4, 4


class Case(NamedTuple):
    """A training: `batches(count)` are an epoch of so many, of `size` images each."""

    net: Any
    step: Callable[..., Any]
    batches: Callable[[int], Any]
    size: int


class Feed:
    """Batches one after the other, and the seconds that were waited for them."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches, self.waited = iter(batches), 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - start
        return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="a part of a training's name")
    given = parser.parse_args()
    names = [name for name in CASES if given.only in name]
    if not names:
        parser.error(f"--only {given.only} is a part of none of: {', '.join(CASES)}")
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {cores} cores, {given.rounds} rounds")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, CASES[name](Path(folder)), given.rounds)


def measure(name: str, case: Case, rounds: int) -> None:
    alone, step = case.batches(ALONE), fed(case.step)
    # Begins the decoding processes, which stay.
    *_, ready = alone.epoch(0)
    step_alone = timed(case.net, step, itertools.repeat(ready))
    ratios, made, consumed = [], [], []
    for index in range(rounds + 2):
        start = time.perf_counter()
        for _ in alone.epoch(index + 1):
            pass
        decoding = (time.perf_counter() - start) / ALONE
        computing = step_alone(index % SEEDS)
        if index >= 2:
            ratios.append(computing / decoding)
            made.append(case.size / decoding)
            consumed.append(case.size / computing)
    report(f"{name}: loader's images / those that a step consumes", ratios, "at least 1")
    report(f"{name}: images a second of the loader alone", made, "none")
    report(f"{name}: images a second of the step alone", consumed, "none")
    # As many batches behind the last step as the loader is ahead of it.
    feed = Feed(case.batches(rounds + 2 * WARM_UP))
    step_fed = timed(case.net, step, feed)
    for index in range(WARM_UP):
        step_fed(index % SEEDS)
    feed.waited = 0.0
    seconds = [step_fed(index % SEEDS) for index in range(rounds)]
    share = feed.waited / sum(seconds)
    report(f"{name}: images a second, together", [case.size / each for each in seconds], "none")
    # Where each takes turns with the other and none is in the other's way.
    in_turn = 1 / (1 / statistics.median(made) + 1 / statistics.median(consumed))
    together = case.size * rounds / sum(seconds)
    print(f"{name}: together / in turn, of all images: {together / in_turn:.2f} (bar: none)")
    print(f"{name}: time waited for data, together: {share:.1%} of the training's", flush=True)
    for _ in feed:  # so that the decoding processes come to rest
        pass


def fed(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` on the next of a stream of batches."""
    return lambda net, batches, state: step(net, next(batches), state)


def classification(augmented: bool, folder: Path) -> Case:
    """`nasaug train --target mbv2_tiny --set resolution=160 --data imagefolder:PATH`."""
    write_pictures(folder)
    options = {"target": "mbv2_tiny", "resolution": 160, "data.name": f"imagefolder:{folder}"}
    setting = prepare(load_config(TrainConfig, None, (), options))
    batches = streams(setting, training.training_batches)
    size = setting.config.train.batch_size
    if not augmented:
        return Case(Network(TARGET), training.plain_step, batches, size)
    step = netaug_step(AUGMENTATION, NetAugOptions(sort_channels=False))
    return Case(Network(AUGMENTATION.largest), step, batches, size)


def detector(target: str, side: int, folder: Path) -> Case:
    """`nasaug detect train --target TARGET --size SIDE` on composed scenes of 128 x 128."""
    items = training.load_dataset("fashion-mnist-mini")
    counts = {"train": SCENES, "val": 10, "test": 10}
    detection.write_scenes(folder, "coco", counts, items)
    options = {"target": target, "data.name": f"coco:{folder}", "detector.size": side}
    config = load_config(DetectConfig, None, (), options)
    setting = prepare_detection(config)
    plan = make_detect_plan(config, setting)
    batches = streams(setting, detection.training_batches)
    return Case(plan.detector, plan.step, batches, config.train.batch_size)


def streams(setting: Any, make: Callable[..., Any]) -> Callable[[int], Any]:
    """Epochs of as many batches as are asked for: the same pictures again and again."""
    data, size = setting.data, setting.config.train.batch_size

    def batches(count: int) -> Any:
        chosen = torch.arange(count * size) % len(data.train)
        longer = replace(data, train=data.train.subset(chosen))
        return make(longer, setting.view, size, seed=0)

    return batches


def write_pictures(folder: Path) -> None:
    """A folder for `imagefolder:`, of as many classes as the target of all benchmarks has."""
    rng = np.random.default_rng(0)
    sizes = []
    for number in range(PICTURES):
        part = "val" if number < TARGET.num_classes else "train"
        path = folder / part / str(number % TARGET.num_classes) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        textured(rng).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    mean = sum(sizes) / len(sizes) / 1000
    print(f"{PICTURES} pictures of {SIZE[0]} x {SIZE[1]}, JPEG, {mean:.0f} kB on average")


def textured(rng: np.random.Generator) -> Image.Image:
    """Noise of all scales, the finer the weaker, as in photographs."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 128, dtype=np.float32)
    for octave in range(1, 9):
        cells = rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8)
        layer = Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, dtype=np.float32) - 128) * CONTRAST
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


CASES: dict[str, Callable[[Path], Case]] = {
    "mbv2_tiny alone, 160 px": lambda folder: classification(False, folder),
    "mbv2_tiny by NetAug, 160 px": lambda folder: classification(True, folder),
    "detector on micro_150k, 96 px": lambda folder: detector("micro_150k", 96, folder),
    "detector on mbv2_tiny, 160 px": lambda folder: detector("mbv2_tiny", 160, folder),
}

if __name__ == "__main__":
    main()
