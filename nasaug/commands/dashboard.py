"""`nasaug dashboard`: open a search's study in the Optuna dashboard."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("dashboard")
@click.argument("run", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 takes a free one.",
)
@click.option("--storage", help="Where the study is; default: as in the run's config.yaml.")
@click.option("--study", help="The study's name, where the storage holds several.")
@click.option("--browser/--no-browser", default=False, show_default=True, help="Open a browser.")
@json_option
def command(
    run: str | None,
    host: str,
    port: int,
    storage: str | None,
    study: str | None,
    browser: bool,
    as_json: bool,
) -> None:
    """Open a search's study in the Optuna dashboard.

    RUN is a search's folder or its best.json; by default the newest below runs/. With --storage
    and no RUN all studies of a database are shown as they are. The study gets a note (what was
    searched, the winner, how to read the plots) and its best trials a picture. A search that is
    still running is not disturbed. Ctrl-C ends it.
    """
    from nasaug.pipelines.dashboard import run_dashboard

    run_dashboard(run, host, port, storage, study, browser, as_json)
