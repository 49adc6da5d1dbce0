"""`nasaug search`: train a one-shot supernet around a target, then search it under a budget."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import shared_keys, shared_options


@click.command("search")
@shared_options
@click.option("--budget", help="MACs of the largest network, e.g. 300M.")
@click.option("--trials", type=int, help="Candidates to evaluate.")
@click.option("--sampler", help="evolution or random.")
@click.option("--storage", help="A database URL for the study (default: a journal in the run).")
def command(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the largest network to train a target in, under a MACs budget.

    A single-path one-shot supernet around the target is trained once; an Optuna study then ranks
    its sub-networks by their validation accuracy with inherited weights. `nasaug train` picks up
    the result. The supernet of an earlier search is reused when space, data and recipe are the
    same.
    """
    from nasaug.config import SearchConfig, load_config
    from nasaug.pipelines.search import run_search

    keys = shared_keys(options) | {
        "budget": options["budget"],
        "trials": options["trials"],
        "sampler": options["sampler"],
        "storage": options["storage"],
    }
    run_search(load_config(SearchConfig, config, sets, keys), out, resume, as_json)
