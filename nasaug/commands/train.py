"""`nasaug train`: train a target inside the largest network, or alone."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import shared_keys, shared_options


@click.command("train")
@shared_options
@click.option("--method", help="netaug, baseline (the target alone), ...: see nasaug methods.")
@click.option("--largest", help="A best.json, published, none, or auto: the newest search.")
@click.option("--teacher", help="A run, torchvision:NAME@WEIGHTS or timm:NAME@WEIGHTS.")
@click.option("--init", help="fresh, supernet (the search's weights), or a run or weights file.")
def command(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a tiny target inside a larger network (NetAug), alone, or by another method.

    The larger network is the newest search result for the target, or the published factors when
    there is none. Only the target is exported, evaluated and saved.

    A target may be what `nasaug search --direction down` found: give its folder. With --init RUN
    (and --method baseline) training starts from that run's weights.
    """
    from nasaug.config import load_config
    from nasaug.pipelines.train import run_training
    from nasaug.train_config import TrainConfig

    init = options["init"]
    of_larger = init in ("fresh", "supernet")
    keys = shared_keys(options) | {
        "method": options["method"],
        "largest": options["largest"],
        "distill.teacher": options["teacher"],
        "netaug.init": init if of_larger else None,
        "init": None if of_larger else init,
    }
    run_training(load_config(TrainConfig, config, sets, keys), out, resume, as_json)
