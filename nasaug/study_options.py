"""The options that `compare`, `contrast` and `detect compare` share: commands of many runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click

from nasaug.cli import DATA, json_option

Command = Callable[..., None]


@dataclass(frozen=True)
class StudyOptions:
    """What was given of them. Without a question the command runs what is left.

    Raises: click.UsageError for several questions at once.
    """

    asks: bool
    reports: bool
    publish: str | None
    sets: tuple[str, ...]
    data: str | None
    data_dir: str | None
    seeds: int | None
    workers: int | None
    out: str | None
    cells: str | None
    code: str | None
    as_json: bool

    def __post_init__(self) -> None:
        if self._questions > 1:
            raise click.UsageError(
                "--status, --report and --publish are different questions; ask one"
            )

    @property
    def is_question(self) -> bool:
        """Whether they ask about what is there."""
        return self._questions > 0

    @property
    def _questions(self) -> int:
        return self.asks + self.reports + (self.publish is not None)


def study_options(what: str) -> Callable[[Command], Command]:
    """Give a command these options; it is called with all of them as one, `shared`. Runs of it lie
    in runs/`what`-NAME."""
    options = (
        click.option("--status", "asks", is_flag=True, help="How far it is, and the time left."),
        click.option(
            "--report", "reports", is_flag=True, help="Write the tables of what is done so far."
        ),
        click.option(
            "--publish",
            metavar="FOLDER",
            type=click.Path(file_okay=False),
            help="Write what is done so far into FOLDER/results and FOLDER/results.md.",
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one key of the file; repeatable.",
        ),
        click.option("--data", help=DATA),
        click.option("--data-dir", help="Where the data set lies."),
        click.option("--seeds", type=int, help="How many final runs each has, unless it says."),
        click.option(
            "--workers", type=int, help="Runs side by side; default: as many as there are cores."
        ),
        click.option("--out", type=click.Path(file_okay=False), help=f"Default: runs/{what}-NAME."),
        click.option(
            "--cells",
            type=click.Path(file_okay=False),
            help="Where the runs of all studies lie; default: the folder cells beside --out.",
        ),
        click.option(
            "--code", metavar="VERSION", help="Use the cells that this version of the code made."
        ),
        click.option(
            "--resume",
            is_flag=True,
            expose_value=False,
            help="Implied: it goes on where it stopped.",
        ),
        json_option,
    )

    names = [field.name for field in fields(StudyOptions)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(**given: Any) -> None:
            shared = StudyOptions(**{name: given.pop(name) for name in names})
            command(shared=shared, **given)

        for option in reversed(options):
            gathered = option(gathered)
        return gathered

    return decorate
