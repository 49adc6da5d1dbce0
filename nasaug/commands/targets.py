"""`nasaug targets`: list the networks that have a name."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("targets")
@click.option("--classes", type=int, default=1000, show_default=True, help="Of the classifier.")
@json_option
def command(classes: int, as_json: bool) -> None:
    """List the networks that have a name.

    Other widths of mbv2, mbv3, mbv3_small and proxylessnas also work, e.g. mbv2_w050; or a YAML
    table's path.
    """
    from nasaug.console import emit_json, emit_table
    from nasaug.supernet import load_target, macs, params, peak_memory, target_names

    targets = [load_target(name, classes) for name in target_names()]
    costs = [
        {
            "target": arch.name,
            "resolution": arch.resolution,
            "macs": macs(arch),
            "params": params(arch),
            "peak_memory": peak_memory(arch),
        }
        for arch in targets
    ]
    if as_json:
        emit_json({"classes": classes, "targets": costs})
        return
    rows = [[str(c["target"]), *(f"{v:,}" for v in list(c.values())[1:])] for c in costs]
    columns = ("target", "resolution", "MACs", "parameters", "peak int8 memory (bytes)")
    emit_table(f"Named targets, {classes} classes", columns, rows)
