"""`nasaug search`: train a one-shot supernet, then search it under a budget, up or down."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import shared_keys, shared_options


@click.command("search")
@shared_options
@click.option("--direction", help="up (around the target) or down (in a space of its own).")
@click.option("--space", help="With --direction down: its name, or a YAML table's path.")
@click.option("--budget", help="MACs of what is searched for: 300M, or a band 200M..300M.")
@click.option("--max-params", help="Its parameters, e.g. 2M.")
@click.option("--max-memory", help="Its peak int8 activation memory, e.g. 256KB.")
@click.option("--max-flash", help="Its int8 weights as shipped, e.g. 1MB.")
@click.option("--max-latency", help="Its latency by the table, e.g. 20ms.")
@click.option("--latency-table", help="A CSV file of nasaug latency-table.")
@click.option(
    "--objectives",
    "--objective",
    "objectives",
    help="accuracy, help or both; with macs, params, memory, flash or latency: a Pareto front.",
)
@click.option("--trials", type=int, help="Candidates to judge.")
@click.option("--sampler", help="evolution, tpe, nsga2 or random.")
@click.option("--race/--no-race", default=None, help="Drop early what is out of reach.")
@click.option("--workers", type=int, help="Processes on this machine that share the study.")
@click.option("--join", is_flag=True, help="Help the same search, begun by another process.")
@click.option("--storage", help="A database URL for the study (default: a journal in the run).")
@click.option("--study", help="The study's name in a shared storage.")
def command(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    join: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the largest network to train a target in, or a network itself, under hard limits.

    A one-shot supernet around the target is trained once; an Optuna study then ranks its
    sub-networks by their validation accuracy with inherited weights. `nasaug train` picks up the
    result. The supernet of an earlier search is reused when space, data and recipe are the same.

    With --direction down there is no target: the supernet is of a table of choices (--space), and
    what is found is a small network with weights, to deploy as it is or to train further.
    """
    from nasaug.config import SearchConfig, load_config
    from nasaug.pipelines.search import run_search

    own = (
        "direction",
        "budget",
        "max_params",
        "max_memory",
        "max_flash",
        "max_latency",
        "latency_table",
        "objectives",
        "trials",
        "sampler",
        "workers",
        "storage",
        "study",
    )
    keys = shared_keys(options) | {name: options[name] for name in own}
    keys |= {"space.table": options["space"], "race.on": options["race"]}
    run_search(load_config(SearchConfig, config, sets, keys), out, resume, join, as_json)
