"""A worker of test_workers.py: NetAug with all that reaches across the images of a batch.

one_worker.py FOLDER synchronised|apart     under torchrun's variables
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nasaug.netaug import (
    Augmentation,
    InPlaceOptions,
    NetAugOptions,
    Parts,
    RelationalOptions,
    training_step,
)
from nasaug.supernet import Factors, Network, load_target
from nasaug.training import (
    ALONE,
    Batch,
    Dataset,
    ImageArray,
    Recipe,
    RunFolder,
    View,
    Workers,
    fit,
    join_workers,
    training_batches,
)

BATCH, STEPS = 6, 20


class InDoublePrecision:
    """Batches of a data set of noise in float64, `moved`: shifted and mirrored."""

    def __init__(self, batch_size: int, group: Workers, moved: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (130, 1, 28, 28), generator=generator, dtype=torch.uint8)
        part = ImageArray(images, torch.randint(0, 10, (130,), generator=generator))
        data = Dataset("noise", tuple("0123456789"), part, part, part, (0.5,), (0.25,))
        view = View(28, 1, flip=moved, crop=0.125 if moved else 0)
        self._batches = training_batches(data, view, batch_size, seed=0, group=group)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for images, labels in self._batches.epoch(epoch, start):
            yield images.double(), labels


def losses(
    folder: Path,
    group: Workers = ALONE,
    *,
    batch_size: int = BATCH,
    rate: float = 0.02,
    accumulate: int = 1,
    synchronised: bool = True,
    relational: bool = True,
    mixing: str = "surgery",
) -> list[dict[str, float]]:
    """What was measured at each of 20 steps of a fresh network."""
    target = load_target("micro_10k", 10, in_channels=1)
    augmentation = Augmentation.by_factors(target, Factors((1.0, 1.5, 2.0), (1.0, 1.5)))
    step = training_step(
        Parts(
            augmentation,
            NetAugOptions(mixing=mixing, helpers=2),
            relational=RelationalOptions(weight=5.0) if relational else None,
            in_place=InPlaceOptions(weight=0.5, certainty=True),
        )
    )
    recipe = Recipe(
        epochs=2,
        warmup_epochs=0,
        batch_size=batch_size,
        lr=rate,
        accumulate=accumulate,
        sync_batch_norm=synchronised,
    )
    generator = torch.Generator().manual_seed(0)
    net = Network(augmentation.largest.canonical(), generator=generator).double()
    seen: list[dict[str, float]] = []

    def watch(done: int, steps: int, values: Mapping[str, float]) -> None:
        assert steps == STEPS
        seen.append(dict(values))

    run = RunFolder(folder / "run", writes=group.first)
    # A moved image is a function of its place in the batch, which accumulation changes.
    batches = InDoublePrecision(batch_size, group, moved=relational)
    fit(net, step, batches, recipe, run, group=group, watch=watch)  # type: ignore[arg-type]
    return seen


def main(folder: Path, mode: str) -> None:
    torch.set_num_threads(1)
    group = join_workers(torch.device("cpu"))
    apart = mode == "apart"
    found = losses(folder, group, synchronised=not apart, relational=not apart)
    (folder / f"{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
