"""Where a study or contrast lies, where its cells do, and how many of these run side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nasaug.workspace import RUNS

CELLS = "cells"


@dataclass(frozen=True)
class Places:
    """Where a study lies, and its cells: by default below `runs`, and beside the study's folder, so
    that all studies of a working folder share them."""

    study: Path
    cells: Path

    @classmethod
    def of(cls, name: str, out: str | None, cells: str | None) -> Places:
        study = Path(out) if out is not None else RUNS / name
        return cls(study, Path(cells) if cells is not None else study.parent / CELLS)


class Paced(Protocol):
    """What says how many cells run side by side, and with how many threads each."""

    @property
    def workers(self) -> int | None: ...
    @property
    def threads(self) -> int: ...


def cells_side_by_side(study: Paced) -> int:
    """As many as the cores allow, unless the study says."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return study.workers or max(1, (cores or 1) // study.threads)
