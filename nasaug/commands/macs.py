"""`nasaug macs`: count a network's MACs and parameters."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("macs")
@click.argument("target")
@click.option("--classes", type=int, default=1000, show_default=True, help="Of the classifier.")
@click.option("--resolution", type=int, help="Pixels; default: the target's own.")
@click.option("--in-channels", type=int, help="1 or 3; default: the target's own.")
@click.option("--explain", is_flag=True, help="A table a row, and why other tools differ.")
@json_option
def command(
    target: str,
    classes: int,
    resolution: int | None,
    in_channels: int | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Count a network's MACs and parameters.

    TARGET is a named target or a YAML table's path. MACs are the multiply-accumulates of
    convolutions and linear layers, batch 1.
    """
    from nasaug.pipelines.macs import count

    count(target, classes, resolution, in_channels, explain, as_json)
