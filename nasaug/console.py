"""What people see: progress and tables. Progress and remarks go to stderr, results to stdout."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

errors = Console(stderr=True, highlight=False)
SECONDS_BETWEEN_LINES = 20.0


def say(text: str) -> None:
    """A remark for people, on stderr."""
    errors.print(text, soft_wrap=True, markup=False)


def emit_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout; a number that is not finite becomes null."""
    print(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def emit_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> None:
    """A titled table on stdout; the first `left` columns are text, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="")
    for index, column in enumerate(columns):
        text = index < left
        justify: Literal["left", "right"] = "left" if text else "right"
        table.add_column(column, justify=justify, no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 200
    console = Console(highlight=False, markup=False, width=width)
    if title:
        console.print(title, soft_wrap=True)
    console.print(table)


def show_log_messages() -> None:
    """Warnings and remarks of the rooms appear on stderr."""
    handler: logging.Handler = logging.StreamHandler()
    if errors.is_terminal:
        handler = RichHandler(console=errors, show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("nasaug").setLevel(logging.INFO)


class Bar:
    """One running task; call it with (done, total, values)."""

    def __init__(self, title: str, progress: Progress | None) -> None:
        self._title, self._progress = title, progress
        self._task = progress.add_task(title, total=None, values="") if progress else None
        self._started = self._spoken = time.monotonic()

    def __call__(self, done: int, total: int, values: Mapping[str, float] | float) -> None:
        if isinstance(values, Mapping):
            named = ((name.replace("_", " "), value) for name, value in values.items())
            text = "  ".join(f"{name} {value:.3f}" for name, value in named)
        else:
            text = f"best {100 * values:.2f} %"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, values=text)
            return
        now = time.monotonic()
        if now - self._spoken >= SECONDS_BETWEEN_LINES or done == total:
            self._spoken = now
            left = (now - self._started) / done * (total - done)
            say(f"{self._title}: {done}/{total}  {text}  {left:.0f} s left")


@contextmanager
def progress_bar(title: str) -> Iterator[Bar]:
    """A bar with the time left on a terminal; elsewhere a line now and then."""
    if not errors.is_terminal:
        yield Bar(title, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=errors) as progress:
        yield Bar(title, progress)
