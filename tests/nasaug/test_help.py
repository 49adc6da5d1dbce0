"""The commands themselves: their help, what help costs, and names that are wrong."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.cli import COMMANDS, MODULES

Nasaug = Callable[..., Any]
HEAVY = ("torch", "matplotlib", "optuna", "pydantic", "networkx", "yaml", "rich", "fvcore", "numpy")


def test_help_lists_every_command(nasaug: Nasaug) -> None:
    done = nasaug("--help")
    assert done.code == 0
    for name, summary in COMMANDS.items():
        assert f"{name} " in done.out
        assert summary.split()[0] in done.out


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, flag: str, nasaug: Nasaug) -> None:
    done = nasaug(name, flag)
    assert done.code == 0
    assert done.out.startswith(f"Usage: nasaug {name}")
    assert "--json" in done.out
    assert done.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    module = MODULES.get(name, name.replace("-", "_"))
    command = importlib.import_module(f"nasaug.commands.{module}").command
    assert command.name == name
    summary, _, _ = COMMANDS[name].rstrip(".").partition(":")
    assert command.help.replace("\n", " ").startswith(summary)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str], shell: Any) -> None:
    program = (
        "import sys; from nasaug.__main__ import run; assert run(sys.argv[1:]) == 0; "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = shell.finish(shell.python(program, *arguments))
    assert (done.code, done.err.strip()) == (0, "[]")


def test_importing_the_package_imports_nothing_heavy(shell: Any) -> None:
    program = f"import sys, nasaug; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = shell.finish(shell.python(program))
    assert (done.code, done.out.strip()) == (0, "[]")


def test_the_version_is_the_installed_one(nasaug: Nasaug) -> None:
    import nasaug as package

    done = nasaug("--version")
    assert done.code == 0
    assert importlib.metadata.version("nasaug") in done.out
    assert package.__version__ == importlib.metadata.version("nasaug")


def test_the_installed_command_runs(shell: Any) -> None:
    command = shutil.which("nasaug", path=str(Path(sys.executable).parent))
    assert command is not None
    done = shell.finish(shell.start(command, "--help"))
    assert done.code == 0
    assert done.out.startswith("Usage: nasaug")
    assert done.err == ""


def test_without_a_command_the_help_is_shown_and_it_is_a_mistake(nasaug: Nasaug) -> None:
    done = nasaug()
    assert done.code == 2
    assert done.out == ""
    assert "Usage: nasaug" in done.err


@pytest.mark.parametrize(
    ("wrong", "offered"), [("serch", "'search'"), ("tarin", "'train'"), ("macz", "'macs'")]
)
def test_a_misspelt_command_is_offered(wrong: str, offered: str, nasaug: Nasaug) -> None:
    done = nasaug(wrong)
    assert done.code == 2
    assert f"unknown command {wrong!r}" in done.err
    assert f"did you mean {offered}" in done.err


def test_a_command_like_no_other_is_answered_with_all(nasaug: Nasaug) -> None:
    done = nasaug("xyzzy")
    assert done.code == 2
    for name in COMMANDS:
        assert name in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "--bugdet", "3M"], "--budget"),
        (["train", "--epoch", "3"], "--epochs"),
        (["--jason"], "No such option"),
        (["train", "extra"], "extra"),
        (["evaluate"], "WEIGHTS"),
        (["macs"], "TARGET"),
        (["train", "--epochs", "many"], "many"),
        (["macs", "micro_10k", "--resolution", "1.5"], "1.5"),
    ],
)
def test_wrong_options(arguments: list[str], said: str, nasaug: Nasaug) -> None:
    done = nasaug(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_every_public_name_is_there() -> None:
    import nasaug as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'searhc'"):
        _ = package.searhc
