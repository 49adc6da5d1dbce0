"""`nasaug report`: write a search's report, one self-contained HTML page."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("report")
@click.argument("run", required=False)
@click.option("--out", type=click.Path(dir_okay=False), help="Default: report.html in the run.")
@click.option("--storage", help="Where the study is; default: as in the run's config.yaml.")
@click.option("--study", help="The study's name, where the storage holds several.")
@json_option
def command(
    run: str | None, out: str | None, storage: str | None, study: str | None, as_json: bool
) -> None:
    """Write a search's report, one self-contained HTML page.

    RUN is a search's folder or its best.json; by default the newest below runs/. The page works
    offline and without a server: the winner over the target row by row, judgements over costs,
    history, which decisions matter, costs. A search that is still running can be reported on too.
    """
    from nasaug.pipelines.report import write_report

    write_report(run, out, storage, study, as_json)
