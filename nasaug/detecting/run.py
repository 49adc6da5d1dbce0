"""`nasaug detect compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.formats import Table
from nasaug.comparing.sitting import Sitting
from nasaug.comparing.status import Status, status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import (
    built_in_detections,
    dump_study,
    load_from,
    study_path,
)
from nasaug.comparing.versions import DETECTORS, Code
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.checks import check_study
from nasaug.detecting.plan import Plan, Planner
from nasaug.detecting.report import write_outputs
from nasaug.detecting.summary import summarise
from nasaug.detecting.tables import compared_table, equal_table, notes, rows_table

# What decides a detector's numbers besides what decides a classifier's.
ROOMS = ("nasaug.detection",)
MODULES = (
    "nasaug.detect_config",
    "nasaug.pipelines.detect_train",
    "nasaug.pipelines.detect_plan",
    "nasaug.pipelines.detect_setting",
    "nasaug.detecting.scenes",
)


def load_detect_study(
    name: str, sets: Iterable[str], options: Mapping[str, Any]
) -> tuple[str, DetectStudy]:
    """A study from a YAML file or by the name of a built-in one, and what it is called.

    Raises: ValueError naming the key, the value and what is allowed; OSError.
    """
    return load_from(study_path(name, built_in_detections()), DetectStudy, sets, options)


class DetectSitting(Sitting):
    COMMAND = "nasaug detect compare"
    planner: Planner

    def code(self) -> Code:
        return Code(ROOMS, MODULES, DETECTORS)

    def planner_of(self, store: Store) -> Planner:
        return Planner(self.asked, store)

    def check(self) -> None:
        check_study(self.planner)

    def status(self, plan: Plan, workers: int) -> Status:
        return status(self.planner, plan, workers)

    def judged(self, cell: Cell) -> str | None:
        score = self.planner.score(cell)
        what = "mAP" if cell.command == "detect" else "top-1"
        return None if score is None else f"validation {what} {100 * score:.2f} %"

    def summarised(self) -> dict[str, Any]:
        summary = summarise(self.planner, self.planner.plan(), self.name)
        write_outputs(self.places.study, summary, dump_study(self.asked))
        return summary

    def tables(self, summary: Mapping[str, Any]) -> list[tuple[Table, int]]:
        return [(equal_table(summary), 3), (rows_table(summary), 1), (compared_table(summary), 3)]

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        return notes(summary)
