"""`nasaug memory`: whether a network fits on a device."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("memory")
@click.argument("network")
@click.option("--max-memory", help="What the device has for activations, e.g. 256KB.")
@click.option("--max-flash", help="What it has for weights, e.g. 1MB.")
@click.option("--in-place", is_flag=True, help="Hold --max-memory against the in-place peak.")
@click.option(
    "--bits", type=click.Choice(["8", "32"]), default="8", show_default=True, help="int8, float32."
)
@click.option("--classes", type=click.IntRange(2), help="Of the classifier; a target's: 1000.")
@click.option("--resolution", type=int, help="Pixels; default: the network's own.")
@click.option("--in-channels", type=int, help="1 or 3; default: the network's own.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A bar chart: out.svg or .png.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    network: str,
    max_memory: str | None,
    max_flash: str | None,
    in_place: bool,
    bits: str,
    classes: int | None,
    resolution: int | None,
    in_channels: int | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Say whether a network fits on a device: activation memory and flash, row by row.

    NETWORK is a named target, a YAML table's path, a run's folder, its weights.safetensors, or a
    search's best.json. Memory is the exact peak of the activations, batch 1: with nothing in place,
    as --max-memory of a search counts it, and with depthwise convolutions and sums that write over
    their inputs. Flash is the weights.

    With limits the exit code is 1 where the network does not fit.
    """
    from nasaug.pipelines.memory import Asked, report_memory

    asked = Asked(network, classes, resolution, in_channels)
    limits = (max_memory, max_flash)
    fits = report_memory(asked, limits, in_place, int(bits), plot, as_json)
    context.exit(0 if fits else 1)
