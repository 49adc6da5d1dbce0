"""Running a contrast: its cells, side by side, and what they came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.formats import Table
from nasaug.comparing.sitting import Sitting
from nasaug.comparing.status import Status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import (
    built_in_contrasts,
    dump_study,
    load_from,
    study_path,
)
from nasaug.config import load_config
from nasaug.contrast_config import Contrast
from nasaug.contrasting.plan import Plan, Planner
from nasaug.contrasting.report import write_outputs
from nasaug.contrasting.status import status
from nasaug.contrasting.summary import summarise
from nasaug.contrasting.tables import compared_table, notes, rows_table
from nasaug.search import format_macs


def load_contrast(
    name: str | None, sets: Iterable[str], options: Mapping[str, Any]
) -> tuple[str, Contrast]:
    """A contrast from a YAML file, by the name of a built-in one, or of the defaults; and what it
    is called. Raises: ValueError naming the key, the value and what is allowed; OSError."""
    if name is not None:
        return load_from(study_path(name, built_in_contrasts()), Contrast, sets, options)
    # `load_config` serves every section that has an answer to `model_validate`.
    loaded: Contrast = load_config(Contrast, None, sets, options)  # type: ignore[type-var]
    target, space = Path(loaded.target).stem, Path(loaded.space).stem
    return f"{target}-{space}-{format_macs(loaded.budget)}", loaded


class ContrastSitting(Sitting):
    KIND, COMMAND = "contrast", "nasaug contrast"
    planner: Planner

    def planner_of(self, store: Store) -> Planner:
        return Planner(self.asked, store)

    def check(self) -> None:
        self.planner.runs.check()

    def status(self, plan: Plan, workers: int) -> Status:
        return status(self.planner.store, plan, workers)

    def judged(self, cell: Cell) -> str | None:
        score = self.planner.score([cell])
        return None if score is None else f"validation top-1 {100 * score:.2f} %"

    def summarised(self) -> dict[str, Any]:
        summary = summarise(self.planner, self.planner.plan(), self.name)
        write_outputs(self.places.study, summary, dump_study(self.asked))
        return summary

    def tables(self, summary: Mapping[str, Any]) -> list[tuple[Table, int]]:
        return [(rows_table(summary), 1), (compared_table(summary), 2)]

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        return notes(summary)
