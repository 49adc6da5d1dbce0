"""Rules of the house: which room may import which, what is packaged, how long files may be."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# Each room and the rooms that it may import, besides itself.
MAY_IMPORT = {
    "supernet": set[str](),
    "devices": {"supernet"},
    "export": {"supernet", "training", "devices"},
    "training": {"supernet"},
    "search": {"supernet", "training"},
    "netaug": {"supernet", "training"},
    "detection": {"supernet", "training"},
}
ROOMS = (*MAY_IMPORT, "configs")
LONGEST = 350
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def _python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of everything that a file imports anywhere in it. `from a import b` counts as
    a.b, since b may be a module; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def _wrong_imports(room: str, path: Path) -> list[str]:
    allowed = {room, *MAY_IMPORT[room]}

    def wrong(name: str) -> bool:
        package, _, rest = name.partition(".")
        return package == "" or (package == "nasaug" and rest.partition(".")[0] not in allowed)

    return [f"{path}:{line}: {name}" for line, name in _imports(path) if wrong(name)]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_down(room: str) -> None:
    paths = _python_files(room)
    assert paths
    assert [wrong for path in paths for wrong in _wrong_imports(room, path)] == []


def test_the_check_of_imports_sees_every_form(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "import nasaug\n"
        "import nasaug.search.study\n"
        "from nasaug import search\n"
        "from nasaug.netaug import Augmentation\n"
        "from . import loaders\n"
        "def late():\n"
        "    from nasaug.config import RunConfig\n"
        "from nasaug.supernet import Network\n"
        "from nasaug.training.files import write_json\n"
    )
    lines = [wrong.split(":")[1] for wrong in _wrong_imports("training", path)]
    assert lines == ["1", "2", "3", "4", "5", "7"]


def test_no_room_is_imported_by_its_bare_name() -> None:
    paths = _python_files("nasaug", *ROOMS, "tests", "benchmarks", "docs")
    bare = [
        f"{path}:{line}: {name}"
        for path in paths
        for line, name in _imports(path)
        if name.split(".")[0] in ROOMS
    ]
    assert bare == []


@pytest.mark.parametrize("name", [*MAY_IMPORT, ""])
def test_public_names_exist(name: str) -> None:
    module = importlib.import_module(f"nasaug.{name}".rstrip("."))
    listed = list(module.__all__)
    assert len(set(listed)) == len(listed)
    for public in listed:
        assert getattr(module, public) is not None


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_shows_nothing_that_it_does_not_list(name: str) -> None:
    module = importlib.import_module(f"nasaug.{name}")
    tree = ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(module.__all__)


def test_the_installed_rooms_are_the_folders_of_this_checkout() -> None:
    for name in MAY_IMPORT:
        module = importlib.import_module(f"nasaug.{name}")
        assert module.__file__ is not None
        assert Path(module.__file__).resolve() == (ROOT / name / "__init__.py").resolve()


def test_every_package_is_listed_and_there() -> None:
    listed, folders = SETUPTOOLS["packages"], SETUPTOOLS["package-dir"]
    assert sorted(listed) == sorted(folders)
    assert sorted(listed) == sorted(set(listed))
    for package in listed:
        assert (ROOT / folders[package] / "__init__.py").is_file(), package
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for room in ("nasaug", *ROOMS)
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found == set(folders.values())


def test_every_module_is_in_a_package() -> None:
    folders = {ROOT / folder for folder in SETUPTOOLS["package-dir"].values()}
    strays = [str(path) for path in _python_files("nasaug", *ROOMS) if path.parent not in folders]
    assert strays == []


def test_every_top_level_folder_of_code_is_known() -> None:
    known = {"nasaug", *ROOMS, "tests", "benchmarks", "docs", "build", "dist"}
    found = {
        path.parent.name
        for path in ROOT.glob("*/*.py")
        if not path.parent.name.startswith(".") and not (path.parent / "pyvenv.cfg").exists()
    }
    assert found <= known


def test_types_configurations_and_data_are_shipped() -> None:
    shipped = SETUPTOOLS["package-data"]
    for package, patterns in shipped.items():
        folder = ROOT / SETUPTOOLS["package-dir"][package]
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing is called {pattern}"
    assert "py.typed" in shipped["nasaug"]
    assert files("nasaug").joinpath("py.typed").is_file()
    embedded = files("nasaug.training.embedded")
    assert embedded.joinpath("fashion_mnist_mini.npz").is_file()
    assert "2017 Zalando SE" in embedded.joinpath("LICENSE.fashion-mnist").read_text()


def test_files_are_short() -> None:
    endings = {".py", ".md", ".yaml", ".yml", ".toml"}
    paths = [
        path
        for folder in ("nasaug", *ROOMS, "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in endings
    ]
    paths += [path for path in ROOT.iterdir() if path.suffix in endings or path.name == "Makefile"]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert len(lengths) > 50
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_every_file_says_what_it_is() -> None:
    silent = [
        str(path)
        for path in _python_files("nasaug", *ROOMS)
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_rooms_do_not_print() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path in _python_files(*MAY_IMPORT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert printing == []
