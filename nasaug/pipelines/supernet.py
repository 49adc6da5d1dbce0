"""The supernet of a search: trained once, found again by what it was made of."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from nasaug.config import RunConfig
from nasaug.console import progress_bar, say
from nasaug.pipelines.stages import Validate, fresh_supernet, train_in_stages
from nasaug.pipelines.tensorboard import mirror_metrics
from nasaug.search import SupernetOptions, format_count, format_macs, supernet_step
from nasaug.setting import Setting
from nasaug.supernet import Network, SearchSpace
from nasaug.training import (
    RunFolder,
    evaluate,
    fit,
    load_weights,
    read_json_object,
    reestimate_batch_norm,
    save_weights,
)
from nasaug.workspace import folders_near

FOLDER, RANK = "supernet", "rank.json"


def trained_supernet(
    config: RunConfig,
    setting: Setting,
    space: SearchSpace,
    run: RunFolder,
    resume: bool,
    options: SupernetOptions,
) -> Network:
    """The trained supernet: of this run, of an earlier one with the same making, or new.

    `config.train` is its recipe, `options` how a step trains it. With an earlier run's weights come
    its metrics and, where it was checked, its `rank.json`.
    """
    folder = RunFolder(run.path / FOLDER)
    making = fingerprint(config, setting, space, options)
    for place in (folder.path, *(near / FOLDER for near in folders_near(run.path))):
        if _made_as(place, making):
            if place != folder.path:
                say(f"reusing the supernet of {place.parent}: same space, data and recipe")
            net = load_weights(place / "weights.safetensors")
            if place != folder.path:
                _copy(place, folder, net, making)
            return net.to(setting.device)
    low, high = format_macs(space.source.cheapest), format_macs(space.source.dearest)
    say(
        f"training a supernet of {format_count(space.count())} paths, {low} to {high} MACs, "
        f"by {options.method}"
    )
    (folder.path / RANK).unlink(missing_ok=True)
    calibration = setting.calibration()

    def validate(weights: Network, progress: float) -> dict[str, float]:
        least = weights.export(space.target)
        reestimate_batch_norm(least, calibration)
        name = least_member(space)
        return {f"{name}_{k}": v for k, v in evaluate(least, setting.validation()).items()}

    with mirror_metrics(folder, config.tensorboard):
        if options.shrinks:
            net = train_in_stages(config, setting, space, options, folder, validate, resume)
        else:
            net = _trained(config, setting, space, options, folder, validate, resume)
    save_weights(folder.weights, net)
    folder.write_result({"making": making})
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return net


def _trained(
    config: RunConfig,
    setting: Setting,
    space: SearchSpace,
    options: SupernetOptions,
    folder: RunFolder,
    validate: Validate,
    resume: bool,
) -> Network:
    """By one step from beginning to end."""
    with progress_bar("supernet") as bar:
        return fit(
            fresh_supernet(config, setting, space, options),
            supernet_step(space, options),
            setting.training,
            config.train,
            folder,
            seed=config.seed,
            validate=validate,
            watch=bar,
            resume=resume,
        )


def least_member(space: SearchSpace) -> str:
    """What people call the member that lies in all others, as metrics' names begin."""
    return "smallest" if space.is_table else "target"


def space_digest(space: SearchSpace) -> str:
    """Tells spaces apart by every choice that they allow, and by what their members see."""
    text = f"{space.target.to_json()} {space.rows!r}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint(
    config: RunConfig, setting: Setting, space: SearchSpace, options: SupernetOptions
) -> str:
    """What the supernet's weights depend on."""
    facts = {
        "space": space_digest(space),
        "data": config.data.model_dump(mode="json", exclude={"workers", "download", "dir"}),
        "images": setting.data.digest(),
        "recipe": config.train.model_dump(mode="json", exclude={"checkpoint_every"}),
        "resolution": setting.view.resolution,
        "options": options.model_dump(mode="json"),
        "seed": config.seed,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def rank_warning(run: Path) -> str | None:
    """What to say before the supernet of the run folder `run` is relied on: that a rank check found
    its order no better than chance. None if it was not checked, or ranks."""
    path = run / FOLDER / RANK
    if not path.is_file():
        return None
    try:
        checked = read_json_object(path)
        tau, n = checked["tau"], checked["n"]
        value, low, high = (float(tau[key]) for key in ("value", "low", "high"))
    except (ValueError, KeyError, TypeError) as error:
        return f"{path} is no result of nasaug rank-check ({error}); check the supernet again"
    if low > 0:
        return None
    return (
        f"the supernet ranks no better than chance, as far as nasaug rank-check can tell: Kendall "
        f"tau {value:.2f}, interval {low:.2f} to {high:.2f} includes 0 or less (n = {n}); train it "
        "longer (--epochs), check it with more candidates (--n), or try another supernet.method"
    )


def is_supernet(place: Path) -> bool:
    """Whether a finished supernet lies at `place`."""
    return (place / "result.json").is_file() and (place / "weights.safetensors").is_file()


def _copy(place: Path, folder: RunFolder, net: Network, making: str) -> None:
    shutil.copyfile(place / "metrics.jsonl", folder.path / "metrics.jsonl")
    (folder.path / RANK).unlink(missing_ok=True)
    if (place / RANK).is_file():
        shutil.copyfile(place / RANK, folder.path / RANK)
    save_weights(folder.weights, net)
    folder.write_result({"making": making, "copied_from": str(place)})


def _made_as(place: Path, making: str) -> bool:
    """Whether a finished supernet lies at `place` that was made as `making` says."""
    if not is_supernet(place):
        return False
    try:
        return bool(read_json_object(place / "result.json").get("making") == making)
    except ValueError:
        return False
