"""`nasaug detect compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.places import Places
from nasaug.comparing.sitting import Sitting, check_begun
from nasaug.comparing.status import Status, status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import (
    built_in_detections,
    check_folder,
    dump_study,
    load_from,
    study_path,
)
from nasaug.comparing.tables import Table
from nasaug.comparing.versions import Code
from nasaug.console import show_log_messages
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


class _Sitting(Sitting):
    COMMAND = "nasaug detect compare"
    planner: Planner

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


def run_detect_study(name: str, study: DetectStudy, places: Places, as_json: bool) -> None:
    """Run what is left of the study, then write and show what it found.

    Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
    """
    show_log_messages()
    check_folder(places.study, places.cells)
    code = Code(ROOMS, MODULES)
    planner = Planner(study, Store(places.cells, code.version))
    check_study(planner)
    _Sitting(name, study, planner, places, as_json).run(code)


def existing_detect_study(name: str, study: DetectStudy, places: Places, as_json: bool) -> Sitting:
    """What is there of it. Raises: ValueError where nothing is."""
    check_folder(places.study, places.cells)
    store = Store(places.cells, Code(ROOMS, MODULES).version)
    check_begun(store, "nasaug detect compare")
    return _Sitting(name, study, Planner(study, store), places, as_json)
