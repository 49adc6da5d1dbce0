"""`nasaug compare`: which method helps, with statistics, at equal epochs and at equal compute."""

from __future__ import annotations

import click

from nasaug.cli import one_question, study_options


@click.command("compare")
@click.argument("study", required=False)
@click.option("--list", "listing", is_flag=True, help="The built-in studies and their questions.")
@click.option("--epochs", type=int, help="base.train.epochs: of the final runs, after the warm-up.")
@study_options("compare")
def command(
    study: str | None,
    listing: bool,
    asks: bool,
    reports: bool,
    publish: str | None,
    sets: tuple[str, ...],
    data: str | None,
    data_dir: str | None,
    epochs: int | None,
    seeds: int | None,
    workers: int | None,
    out: str | None,
    cells: str | None,
    code: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Compare training methods: tuned alike, at equal epochs and at equal compute.

    STUDY is a YAML file or the name of a built-in study (--list). Its runs are cells in a folder
    that studies share: what another has trained is not trained again. They resume, so that a study
    may be stopped and started at any time.
    """
    from nasaug.comparing.listing import list_studies
    from nasaug.comparing.places import Places
    from nasaug.comparing.run import StudySitting
    from nasaug.comparing.studies import load_study

    if listing:
        list_studies(as_json)
        return
    if study is None:
        raise click.UsageError("name a study: a YAML file, or one of nasaug compare --list")
    is_question = one_question(asks, reports, publish)
    keys = {
        "base.data.name": data,
        "base.data.dir": data_dir,
        "base.train.epochs": epochs,
        "seeds": seeds,
        "workers": workers,
    }
    name, loaded = load_study(study, sets, keys)
    places = Places.of(f"compare-{name}", out, cells)
    sitting = StudySitting(name, loaded, places, as_json)
    if is_question:
        sitting.answer(code, asks, publish)
    else:
        sitting.run(code)
