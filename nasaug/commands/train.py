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
@click.option("--init", "init", help="fresh, or supernet: the searched supernet's weights.")
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
    """
    from nasaug.config import load_config
    from nasaug.pipelines.train import run_training
    from nasaug.train_config import TrainConfig

    keys = shared_keys(options) | {
        "method": options["method"],
        "largest": options["largest"],
        "distill.teacher": options["teacher"],
        "netaug.init": options["init"],
    }
    run_training(load_config(TrainConfig, config, sets, keys), out, resume, as_json)
