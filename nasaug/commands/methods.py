"""`nasaug methods`: the named methods, their parts, and which of these do not go together."""

from __future__ import annotations

import click

from nasaug.cli import json_option


@click.command("methods")
@click.option("--markdown", is_flag=True, help="As the tables of docs/methods.md.")
@json_option
def command(markdown: bool, as_json: bool) -> None:
    """List training methods and what goes together.

    A method is a name for some configuration sections. Any part can be added to any method by its
    keys, such as --set regularise.dropout=0.1, unless the last table says why not.
    """
    from nasaug.pipelines.methods import show_methods

    show_methods(markdown, as_json)
