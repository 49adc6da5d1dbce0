"""`nasaug contrast`: top-down beside bottom-up, at equal total training compute."""

from __future__ import annotations

import click

from nasaug.study_options import StudyOptions, study_options


@click.command("contrast")
@click.argument("contrast", required=False)
@click.option("--budget", help="MACs of the small network: 25M.")
@click.option("--target", help="The hand-made network: a name or a YAML table.")
@click.option("--space", help="What is searched down: its name, or a YAML table's path.")
@click.option("--compute", help="MACs x images of every contestant: 20T; default: see --epochs.")
@click.option("--epochs", type=int, help="Without --compute: as much as NetAug takes for these.")
@click.option("--resolution", type=int, help="Of all networks.")
@study_options("contrast")
def command(
    contrast: str | None,
    shared: StudyOptions,
    budget: str | None,
    target: str | None,
    space: str | None,
    compute: str | None,
    epochs: int | None,
    resolution: int | None,
) -> None:
    """Put OFA and NetAug beside each other: seven ways to one small network.

    The hand-made target alone, in NetAug, in NetAug with a searched largest network; what a search
    down finds with inherited weights, fine-tuned, alone, in NetAug. All spend the same MACs x
    images, searches included. CONTRAST is a YAML file or the name of a built-in one.
    """
    from nasaug.comparing.places import Places
    from nasaug.contrasting.run import ContrastSitting, load_contrast

    keys = {
        "budget": budget,
        "target": target,
        "space": space,
        "compute": compute,
        "epochs": epochs,
        "base.data.name": shared.data,
        "base.data.dir": shared.data_dir,
        "base.resolution": resolution,
        "seeds": shared.seeds,
        "workers": shared.workers,
    }
    name, loaded = load_contrast(contrast, shared.sets, keys)
    places = Places.of(f"contrast-{name}", shared.out, shared.cells)
    ContrastSitting(name, loaded, places, shared.as_json).attend(shared)
