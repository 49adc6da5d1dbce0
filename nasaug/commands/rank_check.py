"""`nasaug rank-check`: does a supernet rank sub-networks as training them alone does?"""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import shared_keys, shared_options


@click.command("rank-check")
@shared_options
@click.option("--space", help="In place of --target: the table of a search down.")
@click.option("--n", "n", type=int, help="Candidates to train alone, at least 4.")
@click.option("--bands", type=int, help="MACs bands of equal width that they are drawn from.")
@click.option("--budget", help="MACs of the dearest candidate; default: the search's own.")
@click.option("--supernet", help="A search's folder; auto: the newest of the target; or new.")
def command(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Check that a supernet ranks sub-networks as training them alone does.

    Draws candidates from bands of MACs, trains each alone from fresh weights by one recipe
    (--epochs and --set alone.KEY=VALUE), and compares the order of these accuracies with that by
    inherited weights: Kendall's tau and Spearman's rho with bootstrap intervals, beside the tau of
    MACs alone, which costs nothing. Space, data and resolution are those of the search whose
    supernet it is; without one a supernet is trained as in `nasaug search` (--set train.KEY=VALUE).
    """
    from nasaug.config import load_config
    from nasaug.pipelines.rank_check import run_rank_check
    from nasaug.pipelines.rank_config import RankConfig

    keys = shared_keys(options)
    keys |= {
        "direction": options["space"] and "down",
        "space.table": options["space"],
        "train.epochs": None,
        "alone.epochs": options["epochs"],
        "n": options["n"],
        "bands": options["bands"],
        "budget": options["budget"],
        "supernet_from": options["supernet"],
    }
    run_rank_check(load_config(RankConfig, config, sets, keys), out, resume, as_json)
