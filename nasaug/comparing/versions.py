"""The version of the code that makes a cell: what it trains with, not how it is commented.

A digest of the syntax trees of all that decides the numbers of a training or a search, docstrings
left out, and the release of torch. An edited comment makes no new version; an edited step does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nasaug

# What the versions of code that trains detectors too end with.
DETECTORS = "-detect"
# Searches are cells too, and one version has to do for all studies that share cells.
ROOMS = ("nasaug.supernet", "nasaug.training", "nasaug.netaug", "nasaug.search")
MODULES = (
    "nasaug.config",
    "nasaug.train_config",
    "nasaug.setting",
    "nasaug.pipelines.train",
    "nasaug.pipelines.plan",
    "nasaug.pipelines.starting",
    "nasaug.pipelines.inside",
    "nasaug.pipelines.teacher",
    "nasaug.pipelines.search",
    "nasaug.pipelines.judging",
    "nasaug.pipelines.supernet",
    "nasaug.pipelines.stages",
    "nasaug.pipelines.found",
)


class Code:
    """The code as it lies on the disk. `version` is what it was when first asked.

    `rooms` and `modules` are those that decide numbers besides `ROOMS` and `MODULES`; `ending` is
    how versions of as much code end, which tells them from others.
    """

    def __init__(
        self, rooms: Sequence[str] = (), modules: Sequence[str] = (), ending: str = ""
    ) -> None:
        self._ending = ending
        folders = [Path(_origin(room)).parent for room in (*ROOMS, *rooms)]
        self._files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
        self._files += [Path(_origin(module)) for module in (*MODULES, *modules)]
        self._stamps = self._stat()
        self.version = self._digest()

    def changed(self) -> bool:
        """Whether it is another version by now."""
        stamps = self._stat()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            return self._digest() != self.version
        except (SyntaxError, FileNotFoundError):  # it is being edited at this moment
            return True

    def _stat(self) -> list[tuple[int, int]]:
        found = [path.stat() if path.exists() else None for path in self._files]
        return [(0, 0) if one is None else (one.st_mtime_ns, one.st_size) for one in found]

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=4)
        for path in self._files:
            digest.update(path.stem.encode() + syntax(path.read_text(encoding="utf-8")).encode())
        release = importlib.metadata.version("torch").partition("+")[0]
        return f"{nasaug.__version__}-torch{release}-{digest.hexdigest()}{self._ending}"


def syntax(text: str) -> str:
    """A program without comments, layout and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            del node.body[0]
    return repr(_plain(tree))


def _plain(node: Any) -> Any:
    """A tree without what is empty: releases of Python differ in which empty fields there are."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node)]
        return type(node).__name__, [one for one in fields if one[1] not in (None, [])]
    if isinstance(node, list):
        return [_plain(one) for one in node]
    return repr(node) if node is not None else None


def _origin(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return spec.origin
