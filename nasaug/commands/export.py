"""`nasaug export`: a trained network as files that need no nasaug."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nasaug.cli import DATA, json_option

if TYPE_CHECKING:
    from nasaug.export import Method


@click.command("export")
@click.argument("run", type=click.Path())
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("torch",),
    show_default=True,
    help="torch, onnx, pt2, executorch or litert; repeatable.",
)
@click.option("--out", type=click.Path(), help="Default: the folder export in the run's.")
@click.option("--data", help=f"Images to check and calibrate on; default: the run's. {DATA}")
@click.option("--data-dir", help="Where the data set lies.")
@click.option("--download", is_flag=True, help="Allow a download.")
@click.option("--resolution", type=click.IntRange(8, 8192), help="Pixels; default: as evaluated.")
@click.option(
    "--images",
    type=click.IntRange(2, 1_000_000),
    default=256,
    show_default=True,
    help="Test images that the files are checked on.",
)
@click.option("--int8", is_flag=True, help="An int8 version too (onnx, executorch).")
@click.option(
    "--calibration",
    type=click.IntRange(1, 1_000_000),
    default=512,
    show_default=True,
    help="Training images that set the ranges of int8.",
)
@click.option(
    "--calibrate",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    show_default=True,
    help="How ranges follow from them (onnx; executorch has a way of its own).",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Points of test top-1 that int8 may lose.",
)
@click.option(
    "--qat-epochs",
    type=click.IntRange(1, 10_000),
    help="Where int8 loses more, fine-tune so long with rounded numbers, and export that.",
)
@click.option(
    "--qat-lr", type=click.FloatRange(0, min_open=True), help="Default: a tenth of the run's."
)
@click.option("--qat-netaug", is_flag=True, help="Fine-tune inside larger networks.")
@click.option("--max-memory", help="Of the activations, such as 256KB; int8 ones with --int8.")
@click.option("--max-flash", help="Of the weights, such as 1MB; int8 ones with --int8.")
@click.option("--latency", is_flag=True, help="Time the files on this machine, batch 1.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of --latency."
)
@click.option("--force", is_flag=True, help="Replace an export; export an unfinished run.")
@json_option
def command(
    run: str,
    formats: tuple[str, ...],
    out: str | None,
    data: str | None,
    data_dir: str | None,
    download: bool,
    resolution: int | None,
    images: int,
    int8: bool,
    calibration: int,
    calibrate: Method,
    max_drop: float,
    qat_epochs: int | None,
    qat_lr: float | None,
    qat_netaug: bool,
    max_memory: str | None,
    max_flash: str | None,
    latency: bool,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Export a trained network: plain PyTorch, ONNX, ExecuTorch, LiteRT; int8.

    RUN is a run's folder (a training, or a search down) or a weights.safetensors. Every file is run
    on real images and compared with the network that was evaluated; one that differs is not
    written. A card beside the files says what they are.
    """
    if qat_epochs is None and (qat_netaug or qat_lr is not None):
        raise click.UsageError("--qat-lr and --qat-netaug say how --qat-epochs are trained; add it")
    if qat_epochs is not None and not int8:
        raise click.UsageError(
            "--qat-epochs is for an int8 version that loses too much; add --int8"
        )
    from nasaug.pipelines.export import Order, Refused, run_export
    from nasaug.pipelines.export_int8 import Quantisation
    from nasaug.pipelines.export_qat import FineTuning
    from nasaug.pipelines.export_source import Wanted
    from nasaug.search import parse_memory

    order = Order(
        Wanted(run, data, data_dir, download, resolution, force),
        formats,
        out,
        Quantisation(calibration, calibrate, max_drop) if int8 else None,
        images,
        threads if latency else None,
        None if qat_epochs is None else FineTuning(qat_epochs, qat_lr, qat_netaug),
        None if max_memory is None else parse_memory(max_memory),
        None if max_flash is None else parse_memory(max_flash),
    )
    try:
        run_export(order, as_json)
    except Refused as error:
        click.echo(f"nasaug: {error}", err=True)
        raise click.exceptions.Exit(1) from None
