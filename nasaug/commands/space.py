"""`nasaug space`: describe the search space around a target, or a table of choices."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import json_option


@click.command("space")
@click.argument("target", required=False)
@click.option("--space", help="Instead: the name or YAML file of a space tied to no target.")
@click.option("--config", type=click.Path(dir_okay=False), help="A search's YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="As for search.")
@click.option("--classes", type=int, default=10, show_default=True, help="Of the classifier.")
@click.option("--budget", help="How many members fit: 60M, or a band 200M..300M.")
@click.option("--max-params", help="As for search.")
@click.option("--max-memory", help="As for search.")
@click.option("--max-flash", help="As for search.")
@click.option("--max-latency", help="As for search.")
@click.option("--latency-table", help="As for search.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Draw the space: out.svg or .png.")
@click.option("--best", type=click.Path(), help="A search's best.json, drawn into the picture.")
@json_option
def command(
    target: str | None,
    space: str | None,
    config: str | None,
    sets: tuple[str, ...],
    classes: int,
    picture: str | None,
    best: str | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Describe the search space around a target, or a table of choices (--space).

    That is its rows, its size, its cheapest and dearest path.

    With limits: how many members meet them, and how fast such members are drawn. The choices are
    those of `nasaug search`; change them with --set space.KEY=VALUE.
    """
    from nasaug.config import SearchConfig, load_config
    from nasaug.pipelines.space import describe_space

    keys = {"target": target, "space.table": space, "direction": space and "down", **limits}
    loaded = load_config(SearchConfig, config, sets, keys)
    limited = loaded.limits != SearchConfig().limits or limits["budget"] is not None
    describe_space(loaded, classes, limited, picture, best, as_json)
