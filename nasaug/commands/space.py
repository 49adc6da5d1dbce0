"""`nasaug space`: describe the search space around a target."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import json_option


@click.command("space")
@click.argument("target", required=False)
@click.option("--config", type=click.Path(dir_okay=False), help="A search's YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="As for search.")
@click.option("--classes", type=int, default=10, show_default=True, help="Of the classifier.")
@json_option
def command(
    target: str | None, config: str | None, sets: tuple[str, ...], classes: int, as_json: bool
) -> None:
    """Describe the search space around a target: its rows, its size, its cheapest and dearest path.

    The choices are those of `nasaug search`; change them with --set space.KEY=VALUE.
    """
    from nasaug.config import SearchConfig, load_config
    from nasaug.console import emit_json, emit_table
    from nasaug.search import format_macs
    from nasaug.supernet import load_target, params

    settings: dict[str, Any] = {"target": target}
    loaded = load_config(SearchConfig, config, sets, settings)
    arch = load_target(loaded.target, classes, loaded.resolution, loaded.in_channels)
    space = loaded.space.around(arch)
    graph = space.graph()
    facts = {
        "target": arch.name,
        "resolution": arch.resolution,
        "classes": classes,
        "members": space.count(),
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "macs_least": space.source.cheapest,
        "macs_most": space.source.dearest,
        "params_largest": params(space.largest),
    }
    if as_json:
        decisions = {name: list(values) for name, values in space.decisions.items()}
        emit_json({**facts, "decisions": decisions})
        return
    rows = []
    for row in space.rows:
        values = {n.rpartition(".")[2]: v for n, v in row.decisions.items()}
        text = [" ".join(map(str, values.get(k, ("-",)))) for k in ("width", "kernel", "expand")]
        rows.append([row.name, row.template.kind, *text, "yes" if row.optional else "-"])
    emit_table(
        f"Space around {arch.name}", ("row", "kind", "width", "kernel", "expand", "extra"), rows, 6
    )
    print(
        f"\n{space.count():.3g} members; from {format_macs(space.source.cheapest)} "
        f"(the target) to {format_macs(space.source.dearest)} MACs; a graph of "
        f"{facts['nodes']} nodes and {facts['edges']} edges"
    )
