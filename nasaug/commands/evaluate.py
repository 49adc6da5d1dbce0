"""`nasaug evaluate`: judge trained weights on a data set's test part."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("evaluate")
@click.argument("weights", type=click.Path())
@click.option("--target", help="What the weights must be of; needed for the authors' files.")
@click.option("--data", default="fashion-mnist-mini", show_default=True, help="As for train.")
@click.option("--data-dir", help="Where the data set lies.")
@click.option("--download", is_flag=True, help="Allow a download.")
@click.option("--resolution", type=click.IntRange(8, 8192), help="Pixels; default: as trained.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def command(
    weights: str,
    target: str | None,
    data: str,
    data_dir: str | None,
    download: bool,
    resolution: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Judge trained weights on a data set's test part.

    WEIGHTS is a run's folder, a weights.safetensors, a checkpoint (.pth) of the NetAug authors, or,
    where no such path is, the name of weights that nasaug ships: micro_10k, micro_40k.
    """
    from nasaug.pipelines.evaluate import run_evaluation

    run_evaluation(weights, target, data, data_dir, download, resolution, device, as_json)
