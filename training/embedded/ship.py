"""Puts the weights of a finished run among those that come with the package, with their card.

    nasaug train --target micro_40k --data fashion-mnist --out runs/micro_40k
    python training/embedded/ship.py micro_40k runs/micro_40k

Refused are runs of another target or on other data, and files that make the folder too large.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from nasaug.supernet import load_target, macs, params
from nasaug.training import (
    RunFolder,
    View,
    describe,
    load_dataset,
    load_weights,
    save_weights,
    write_json,
)
from nasaug.training.shipped import FOLDER, SHIPPED

DATA = "fashion-mnist"
MOST = 1_000_000
"""Bytes, of all the files together."""


def ship(name: str, run: RunFolder, folder: Path = FOLDER) -> dict[str, Any]:
    """Write NAME.safetensors and NAME.json; returns the card.

    Raises: ValueError for an unknown name, another target or other data, and a file too large.
    """
    if name not in SHIPPED:
        raise ValueError(f"weights are shipped for {', '.join(SHIPPED)}, not for {name!r}")
    if not run.finished:
        raise ValueError(f"{run.path} has not finished; train it to its end")
    result, net = run.result(), load_weights(run.weights)
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    if result["data"] != DATA:
        raise ValueError(f"{run.path} was trained on {result['data']}, not on all of {DATA}")
    arch = net.arch
    if load_target(name, arch.num_classes, arch.resolution, arch.in_channels) != arch:
        raise ValueError(f"{run.path} holds {arch.name}, not {name}")
    data = load_dataset(DATA, config["data"]["dir"], config["data"]["validation"])
    config["data"]["dir"] = None  # a place on the machine that it was made on
    view = View(result["train_resolution"], arch.in_channels)
    scores = {key: result[key] for key in ("top1", "top5")}
    others = (folder / file for target, file in SHIPPED.items() if target != name)
    total = run.weights.stat().st_size + sum(o.stat().st_size for o in others if o.exists())
    if total > MOST:
        raise ValueError(f"the weights would have {total:,} bytes together, more than {MOST:,}")
    written = folder / SHIPPED[name]
    save_weights(written, net, {"target": name, **describe(data, view), **scores})
    card = {
        "target": name,
        "data": DATA,
        "training_images": len(data.train),
        "test_images": len(data.test),
        **scores,
        "macs": macs(arch),
        "params": params(arch),
        "method": result["method"],
        "seed": config["seed"],
        "epochs": config["train"]["epochs"],
        "trained_at": result["train_resolution"],
        "inside": result["inside"],
        "config": config,
        "made_by": [
            "nasaug train --config CONFIG --out RUN, CONFIG being the key config of this card",
            f"python training/embedded/ship.py {name} RUN",
        ],
        "bytes": written.stat().st_size,
        "sha256": hashlib.sha256(written.read_bytes()).hexdigest(),
    }
    write_json(written.with_suffix(".json"), card)
    return card


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("ship.py: give the name of a target, and a finished run of it")
    try:
        ship(sys.argv[1], RunFolder(Path(sys.argv[2]), writes=False))
    except (ValueError, OSError) as error:
        sys.exit(f"ship.py: {error}")
