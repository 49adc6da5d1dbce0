"""The command line: its commands by name, loaded when called, and the options that they share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
DATA = "A data set's name, NAME:PATH, imagefolder:PATH or csv:FILE."

COMMANDS = {
    "search": "Find the largest network to train a target in, or a network itself.",
    "train": "Train a tiny target inside a larger network (NetAug), alone, or by another method.",
    "compare": "Compare training methods: tuned alike, at equal epochs and at equal compute.",
    "contrast": "Put OFA and NetAug beside each other: seven ways to one small network.",
    "methods": "List training methods and what goes together.",
    "detect": "Train, judge and use a detector on a target.",
    "import": "Make weights of other programs' networks ours.",
    "evaluate": "Judge trained weights on a data set's test part.",
    "export": "Export a trained network: plain PyTorch, ONNX, ExecuTorch, LiteRT; int8.",
    "macs": "Count a network's MACs and parameters.",
    "memory": "Say whether a network fits: activation memory and flash, row by row.",
    "targets": "List the networks that have a name.",
    "space": "Describe the search space around a target, or a table of choices.",
    "latency-table": "Measure what every row of a search space costs on this machine.",
    "rank-check": "Check that a supernet ranks sub-networks as training them alone does.",
    "dashboard": "Open a search's study in the Optuna dashboard.",
    "report": "Write a search's report, one self-contained HTML page.",
}
# Where the module of a command is not called as it is.
MODULES = {"import": "import_weights"}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that --help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        module = importlib.import_module(f"nasaug.commands.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            # Not nasaug.supernet's did_you_mean: importing a room takes seconds.
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}"
            raise click.UsageError(f"unknown command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nasaug")
def cli() -> None:
    """Train tiny networks inside the larger networks that help them.

    \b
    nasaug search --budget 300M          find the network to train in
    nasaug train --target mbv2_tiny      train the target inside it
    """


def shared_options(command: Command) -> Command:
    """The options of every command that makes a run."""
    for option in reversed(
        (
            click.option("--config", type=click.Path(dir_okay=False), help="A YAML file of keys."),
            click.option(
                "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one key; repeatable."
            ),
            click.option("--target", help="A named target, or a YAML table's path."),
            click.option(
                "--data", help="A data set's name, NAME:PATH, imagefolder:PATH or csv:FILE."
            ),
            click.option("--data-dir", help="Where the data set lies."),
            click.option("--download", is_flag=True, default=None, help="Allow a download."),
            click.option("--epochs", type=int, help="Epochs of training after the warm-up."),
            click.option("--out", type=click.Path(file_okay=False), help="The run's folder."),
            click.option("--seed", type=int, help="Everything random follows from it."),
            click.option("--device", help="auto, cpu or cuda."),
            click.option("--resume", is_flag=True, help="Go on with the same, interrupted run."),
            json_option,
        )
    ):
        command = option(command)
    return command


def shared_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration keys that `shared_options` set; None where an option was not given."""
    return {
        "target": options["target"],
        "data.name": options["data"],
        "data.dir": options["data_dir"],
        "data.download": options["download"],
        "train.epochs": options["epochs"],
        "seed": options["seed"],
        "device": options["device"],
    }


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
