"""`nasaug detect compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.places import Places, cells_side_by_side
from nasaug.comparing.runner import Runner
from nasaug.comparing.status import status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import (
    STUDY,
    built_in_detections,
    check_folder,
    dump_study,
    load_from,
    study_path,
)
from nasaug.comparing.telling import emit_found, emit_status, fail_if_cells_failed
from nasaug.comparing.versions import Code
from nasaug.console import emit_json, say, show_log_messages
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.checks import check_study
from nasaug.detecting.plan import Plan, Planner
from nasaug.detecting.report import write_outputs
from nasaug.detecting.summary import summarise
from nasaug.detecting.tables import compared_table, equal_table, notes, rows_table
from nasaug.publishing import publish
from nasaug.training import TrainingFailed, write_atomically
from nasaug.workspace import lock_folder

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


def run_detect_study(name: str, study: DetectStudy, places: Places, as_json: bool) -> None:
    """Run what is left of the study, then write and show what it found.

    Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
    """
    show_log_messages()
    check_folder(places.study, places.cells)
    code = Code(ROOMS, MODULES)
    planner = Planner(study, Store(places.cells, code.version))
    check_study(planner)
    for folder in (places.study, planner.store.root):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(places.study, "nasaug detect compare --status tells how far it is"):
        write_atomically(places.study / STUDY, dump_study(study))
        stale = _run(planner, code)
        summary = _written(planner, name, places.study)
    _show(summary, places, as_json)
    if stale:
        raise TrainingFailed(
            "the code changed while the study ran, and cells of different code do not compare: "
            "no more were begun; start it again"
        )
    fail_if_cells_failed(summary, places)


def show_status(name: str, study: DetectStudy, places: Places, as_json: bool) -> None:
    """How far the study is. Writes nothing. Raises: ValueError."""
    planner = _existing(study, places)
    found = status(planner, planner.plan(), cells_side_by_side(study))
    emit_status(found, {"study": name, "run_dir": str(places.study)}, as_json)


def write_report(name: str, study: DetectStudy, places: Places, as_json: bool) -> None:
    """Write what was found so far, whoever runs it. Raises: ValueError, OSError."""
    planner = _existing(study, places)
    places.study.mkdir(parents=True, exist_ok=True)
    _show(_written(planner, name, places.study), places, as_json)


def publish_detect_study(
    name: str, study: DetectStudy, places: Places, as_json: bool, folder: str
) -> None:
    """The same, and put it on the results page in `folder`. Raises: ValueError, OSError."""
    planner = _existing(study, places)
    places.study.mkdir(parents=True, exist_ok=True)
    page = publish(Path(folder), _written(planner, name, places.study))
    if as_json:
        emit_json({"study": name, "page": str(page)})
        return
    say(f"{name} is on {page}")


def _existing(study: DetectStudy, places: Places) -> Planner:
    check_folder(places.study, places.cells)
    store = Store(places.cells, Code(ROOMS, MODULES).version)
    if not store.root.is_dir():
        raise ValueError(
            f"{places.cells} holds no cells of this code yet ({store.version}); run nasaug detect "
            "compare without this option"
        )
    return Planner(study, store)


def _run(planner: Planner, code: Code) -> bool:
    """Run all cells; returns whether the code changed meanwhile."""
    workers = cells_side_by_side(planner.study)
    say(f"{status(planner, planner.plan(), workers).text}; {workers} side by side")

    def watch(cell: Cell, plan: Plan) -> None:
        score = planner.score(cell)
        if score is not None:
            what = "mAP" if cell.command == "detect" else "top-1"
            judged = f"validation {what} {100 * score:.2f} %"
            say(f"{cell.name}: {judged}; {status(planner, plan, workers).text}")

    with Runner(planner, workers, code) as runner:
        return runner.run(watch)


def _written(planner: Planner, name: str, path: Path) -> dict[str, Any]:
    summary = summarise(planner, planner.plan(), name)
    write_outputs(path, summary, dump_study(planner.study))
    return summary


def _show(summary: Mapping[str, Any], places: Places, as_json: bool) -> None:
    tables = [(equal_table(summary), 3), (rows_table(summary), 1), (compared_table(summary), 3)]
    emit_found(summary, tables, notes(summary), places, as_json)
