"""`nasaug compare`: which method helps, with statistics, at equal epochs and at equal compute."""

from __future__ import annotations

import click

from nasaug.study_options import StudyOptions, study_options


@click.command("compare")
@click.argument("study", required=False)
@click.option("--list", "listing", is_flag=True, help="The built-in studies and their questions.")
@click.option("--epochs", type=int, help="base.train.epochs: of the final runs, after the warm-up.")
@study_options("compare")
def command(study: str | None, listing: bool, epochs: int | None, shared: StudyOptions) -> None:
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
        list_studies(shared.as_json)
        return
    if study is None:
        raise click.UsageError("name a study: a YAML file, or one of nasaug compare --list")
    keys = {
        "base.data.name": shared.data,
        "base.data.dir": shared.data_dir,
        "base.train.epochs": epochs,
        "seeds": shared.seeds,
        "workers": shared.workers,
    }
    name, loaded = load_study(study, shared.sets, keys)
    places = Places.of(f"compare-{name}", shared.out, shared.cells)
    StudySitting(name, loaded, places, shared.as_json).attend(shared)
