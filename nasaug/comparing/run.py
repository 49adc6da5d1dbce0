"""`nasaug compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.checks import check_cells
from nasaug.comparing.places import Places, cells_side_by_side
from nasaug.comparing.plan import Plan, Planner, finished_cells
from nasaug.comparing.report import write_outputs
from nasaug.comparing.runner import Runner
from nasaug.comparing.status import status
from nasaug.comparing.store import Store, versions_in
from nasaug.comparing.studies import STUDY, check_folder, dump_study
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import arms_table, compared_table, duration, notes
from nasaug.comparing.telling import emit_found, emit_status, fail_if_cells_failed
from nasaug.comparing.versions import Code
from nasaug.console import emit_json, say, show_log_messages
from nasaug.publishing import publish
from nasaug.study_config import Study
from nasaug.training import TrainingFailed, write_atomically
from nasaug.workspace import lock_folder


def run_study(name: str, study: Study, places: Places, code: str | None, as_json: bool) -> None:
    """Run what is left of the study, then write and show what it found.

    `code` names the version of the code whose cells are gone on with; None is the code as it is.

    Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
    """
    show_log_messages()
    path = places.study
    check_folder(path, places.cells)
    here = Code()
    _check_version(places, code)
    store = Store(places.cells, code or here.version)
    planner = Planner(study, store)
    check_cells(planner)
    for folder in (path, store.root):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(path, "nasaug compare --status tells how far it is"):
        write_atomically(path / STUDY, dump_study(study))
        store.mix(here.version)
        for version, cells in finished_cells(study, places.cells).items():
            if version != store.version and cells:
                say(f"{cells} finished cells of other code, {version}, are kept apart")
        stale = _run(planner, here)
        summary = _written(planner, name, path)
    _show(summary, places, as_json)
    if stale:
        raise TrainingFailed(
            "the code changed while the study ran, and cells of different code do not compare: "
            f"no more were begun; start it again, or go on with --code {store.version}"
        )
    fail_if_cells_failed(summary, places)


def show_status(name: str, study: Study, places: Places, code: str | None, as_json: bool) -> None:
    """How far the study is. Writes nothing. Raises: ValueError."""
    planner = _existing(places, study, code)
    found = status(planner, planner.plan(), cells_side_by_side(study))
    emit_status(found, {"study": name, "run_dir": str(places.study)}, as_json)


def write_report(name: str, study: Study, places: Places, code: str | None, as_json: bool) -> None:
    """Write what the study found so far, whoever runs it. Raises: ValueError, OSError."""
    planner = _existing(places, study, code)
    places.study.mkdir(parents=True, exist_ok=True)
    _show(_written(planner, name, places.study), places, as_json)


def publish_results(
    name: str, study: Study, places: Places, code: str | None, as_json: bool, folder: str
) -> None:
    """The same, and put it on the results page in `folder`. Raises: ValueError, OSError."""
    planner = _existing(places, study, code)
    places.study.mkdir(parents=True, exist_ok=True)
    summary = _written(planner, name, places.study)
    page = publish(Path(folder), summary)
    if as_json:
        emit_json({"study": name, "page": str(page)})
        return
    say(f"{name} is on {page}")


def _check_version(places: Places, code: str | None) -> None:
    versions = versions_in(places.cells)
    if code is not None and code not in versions:
        known = ", ".join(versions) or "none"
        raise ValueError(f"{places.cells} holds no cells of code {code!r}; those it holds: {known}")


def _existing(places: Places, study: Study, code: str | None) -> Planner:
    """What is there of a study: of the code asked for, of the code here, or of the newest."""
    check_folder(places.study, places.cells)
    _check_version(places, code)
    here, counts = Code().version, finished_cells(study, places.cells)
    own = [version for version, cells in counts.items() if cells]
    if code is None and not own and not (places.study / STUDY).exists():
        raise ValueError(
            f"{places.cells} holds no cells of this study yet; run nasaug compare without this "
            "option"
        )
    chosen = code or (here if here in own or not own else own[0])
    if chosen != here:
        say(f"cells of other code: {chosen} (the code here is {here})")
    return Planner(study, Store(places.cells, chosen))


def _run(planner: Planner, code: Code) -> bool:
    """Run all cells; returns whether the code changed meanwhile."""
    workers = cells_side_by_side(planner.study)
    say(f"{status(planner, planner.plan(), workers).text}; {workers} side by side")

    def watch(cell: Cell, plan: Plan) -> None:
        result = planner.store.result(cell.identity)
        if result is not None:
            top1 = result.get("validation_top1")
            judged = "" if top1 is None else f" validation top-1 {100 * top1:.2f} %,"
            took = duration(result.get("train_seconds"))
            say(f"{cell.name}:{judged} {took}; {status(planner, plan, workers).text}")

    with Runner(planner, workers, code) as runner:
        return runner.run(watch)


def _written(planner: Planner, name: str, path: Path) -> dict[str, Any]:
    summary = summarise(planner, planner.plan(), name)
    write_outputs(path, summary, dump_study(planner.study))
    return summary


def _show(summary: Mapping[str, Any], places: Places, as_json: bool) -> None:
    tables = [(compared_table(summary), 5), (arms_table(summary), 2)]
    emit_found(summary, tables, notes(summary), places, as_json)
