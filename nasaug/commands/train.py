"""`nasaug train`: train a target inside the largest network, or alone."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import shared_keys, shared_options


@click.command("train")
@shared_options
@click.option("--method", help="netaug, or baseline: the target alone, same data and steps.")
@click.option("--largest", help="A best.json, published, none, or auto: the newest search.")
@click.option("--init", "init", help="fresh, or supernet: the searched supernet's weights.")
def command(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a tiny target inside a larger network (NetAug), or alone.

    The larger network is the newest search result for the target, or the published factors when
    there is none. Only the target is exported, evaluated and saved.
    """
    from nasaug.config import TrainConfig, load_config
    from nasaug.pipelines.train import run_training

    keys = shared_keys(options) | {
        "method": options["method"],
        "largest": options["largest"],
        "netaug.init": options["init"],
    }
    run_training(load_config(TrainConfig, config, sets, keys), out, resume, as_json)
