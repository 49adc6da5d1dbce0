"""What a search down comes to: a network that stands by itself, with weights from the supernet.

Once-for-All (Cai et al., ICLR 2020, Section 3.4) deploys what it finds as it is: the sub-network's
weights are the supernet's, and only its batch-norm statistics are its own. They are re-estimated
here on as many images as `nasaug train` takes, not on the few that rank candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasaug.config import SearchConfig
from nasaug.console import say
from nasaug.pipelines.supernet import space_digest
from nasaug.setting import Setting
from nasaug.supernet import Architecture, Network, SearchSpace
from nasaug.training import (
    Recipe,
    RunFolder,
    calibration_batches,
    describe,
    reestimate_batch_norm,
    save_weights,
)


def winners_name(space: SearchSpace) -> str:
    """What the best member is called: by what it is for."""
    return f"{space.name}-found" if space.is_table else f"{space.name}-largest"


def export_found(
    setting: Setting, supernet: Network, winner: Architecture, run: RunFolder
) -> dict[str, Any]:
    """Write the winner with inherited weights to the run's `weights.safetensors`; returns how."""
    found = supernet.export(winner)
    batches = calibration_batches(setting.data, setting.view, Recipe().bn_images)
    images = reestimate_batch_norm(found, batches)
    facts = {"target": winner.name, "init": "inherited", **describe(setting.data, setting.view)}
    save_weights(run.weights, found, facts)
    return {"weights": run.weights.name, "bn_images": images}


def say_next(config: SearchConfig, best: Path) -> None:
    """What the result is for."""
    if config.direction == "up":
        say(f"best: {best}; next: nasaug train --target {config.target}")
        return
    say(
        f"best: {best}; with inherited weights as it is: nasaug evaluate {best.parent}; trained "
        f"from fresh weights: nasaug train --target {best}"
    )


def describe_choices(config: SearchConfig, space: SearchSpace) -> dict[str, Any]:
    """The space in a search's result: its factors around a target, or which table it was."""
    if space.is_table:
        return {"table": config.space.table, "digest": space_digest(space)}
    return config.space.resolved(space.name)
