"""`nasaug import`: make weights of other programs' networks ours."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("import")
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "kind",
    required=True,
    help="netaug, timm, torchvision:mobilenet_v2 or torchvision:mobilenet_v3_large.",
)
@click.option(
    "--out",
    default="weights.safetensors",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="What is written; nothing that exists is overwritten.",
)
@click.option("--target", help="What the weights must be of; netaug and timm need it.")
@click.option("--resolution", type=click.IntRange(8, 8192), help="Pixels; default: the network's.")
@json_option
def command(
    file: str, kind: str, out: str, target: str | None, resolution: int | None, as_json: bool
) -> None:
    """Make weights of other programs' networks ours.

    FILE is a state dict, .safetensors or .pth: of the NetAug authors' code (netaug), of a model of
    nasaug.timm_models (timm), or of torchvision's MobileNetV2 of any width_mult or
    MobileNetV3-Large. What is written is for nasaug evaluate, nasaug train --init and nasaug
    export. A pickle that would run code is refused.
    """
    from nasaug.pipelines.import_weights import run_import

    run_import(file, kind, out, target, resolution, as_json)
