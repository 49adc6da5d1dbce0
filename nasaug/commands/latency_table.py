"""`nasaug latency-table`: measure what every row of a search space costs on this machine."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("latency-table")
@click.argument("target", required=False)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The table: a .csv.")
@click.option("--backend", default="torch", show_default=True, help="torch or onnxruntime.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of an image."
)
@click.option(
    "--repeats",
    type=click.IntRange(3, 10_000),
    default=30,
    show_default=True,
    help="Undisturbed ones, of every row.",
)
@click.option(
    "--validate",
    type=click.IntRange(0, 10_000),
    default=20,
    show_default=True,
    help="Whole networks to compare with; 0: none.",
)
@click.option("--space", help="Instead of a target: the table of a search down.")
@click.option("--config", type=click.Path(dir_okay=False), help="A search's YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="As for search.")
@click.option("--classes", type=int, default=10, show_default=True, help="Of the classifier.")
@click.option("--seed", type=int, help="Which networks are measured whole.")
@click.option("--resume", is_flag=True, help="Go on with, or extend, the table that is there.")
@json_option
def command(
    target: str | None,
    space: str | None,
    out: str,
    backend: str,
    threads: int,
    repeats: int,
    validate: int,
    config: str | None,
    sets: tuple[str, ...],
    classes: int,
    seed: int | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Measure what every row of a search space costs on this machine.

    The table is what `nasaug search --latency-table` reads: a search under --max-latency. TARGET is
    the search's target, or with --direction down its --space; give the same --set space.KEY=VALUE
    and resolution as there. Some whole
    networks are measured too: the sums over rows are scaled to fit ten of them, and compared with
    others that the scale has not seen.
    """
    from nasaug.config import SearchConfig, load_config
    from nasaug.pipelines.latency_table import Order, measure_table

    keys = {"target": target, "space.table": space, "direction": space and "down", "seed": seed}
    loaded = load_config(SearchConfig, config, sets, keys)
    order = Order(backend, threads, repeats, validate)
    measure_table(loaded, classes, order, out, resume, as_json)
