"""What runs cost, from their configuration alone, against what they recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.config import SearchConfig, load_config
from nasaug.contrasting.rehearsals import macs_of, supernet_parts, training_part
from nasaug.setting import prepare
from nasaug.train_config import TrainConfig
from nasaug.training import Passes, RunFolder

Nasaug = Callable[..., Any]
DOWN = ("--direction=down", "--space=micro_down", "--budget=800K", "--trials=2")
STAGES = (
    "[{name: full, epochs: 1}, {name: depth, epochs: 2, depth: all, paths: 2},"
    " {name: rest, epochs: 1, kernel: all, depth: all, expand: all, width: all, paths: 3}]"
)
SUPERNETS = {
    "single-path": (),
    "fair": ("supernet.fair_over=decisions",),
    "edge-dropout": ("supernet.edge_dropout=0.2",),
    "sandwich": ("supernet.random_paths=1", "train.accumulate=2"),
    "shrinking": (f"supernet.stages={STAGES}",),
}
TRAININGS = {
    "baseline": (),
    "netaug": ("--largest=published", "--epochs=2"),
    "netaug, less": (
        "--largest=published",
        "--set=netaug.every=2",
        "--set=netaug.share=0.5",
        "--set=netaug.resolution=20",
    ),
    "rkd": ("--largest=published",),
    "netdistiller": ("--largest=published",),
    "netbooster": (),
}


def _recorded(folder: Path) -> int:
    return sum(int(row["macs"]) for row in RunFolder(folder, writes=False).metrics())


@pytest.mark.parametrize("method", SUPERNETS)
def test_supernets(nasaug: Nasaug, quick: tuple[str, ...], method: str) -> None:
    sets = [f"--set={one}" for one in (f"supernet.method={method}", *SUPERNETS[method])]
    done = nasaug("search", *quick[1:], *DOWN, *sets, "--out=run", "--json")
    assert done.code == 0, done.said
    config = load_config(SearchConfig, "run/config.yaml", (), {})
    setting = prepare(config)
    total = Passes()
    for part in supernet_parts(config, setting, config.make_space(setting.target)):
        total.update(part.passes())
    assert macs_of(total) == _recorded(Path("run/supernet"))


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings(nasaug: Nasaug, quick: tuple[str, ...], name: str) -> None:
    method = name.partition(",")[0]
    done = nasaug("train", *quick, f"--method={method}", *TRAININGS[name], "--out=run")
    assert done.code == 0, done.said
    config = load_config(TrainConfig, "run/config.yaml", (), {})
    part = training_part(config, prepare(config), Path("run"))
    recorded = _recorded(Path("run"))
    assert macs_of(part.passes()) == recorded
    epochs = config.train.epochs + config.train.warmup_epochs
    assert part.epoch_macs(thinned=400) == pytest.approx(recorded / epochs, rel=0.35)
