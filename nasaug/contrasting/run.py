"""Running a contrast: its cells, side by side, and what they came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.places import Places, cells_side_by_side
from nasaug.comparing.runner import Runner
from nasaug.comparing.store import Store
from nasaug.comparing.studies import (
    STUDY,
    built_in_contrasts,
    check_folder,
    dump_study,
    load_from,
    study_path,
)
from nasaug.comparing.telling import emit_found, emit_status, fail_if_cells_failed
from nasaug.comparing.versions import Code
from nasaug.config import load_config
from nasaug.console import emit_json, say, show_log_messages
from nasaug.contrast_config import Contrast
from nasaug.contrasting.plan import Plan, Planner
from nasaug.contrasting.report import write_outputs
from nasaug.contrasting.status import status
from nasaug.contrasting.summary import summarise
from nasaug.contrasting.tables import compared_table, notes, rows_table
from nasaug.publishing import publish
from nasaug.search import format_macs
from nasaug.training import TrainingFailed, write_atomically
from nasaug.workspace import lock_folder


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


def run_contrast(name: str, contrast: Contrast, places: Places, as_json: bool) -> None:
    """Run what is left of the contrast, then write and show what it found.

    Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
    """
    show_log_messages()
    check_folder(places.study, places.cells)
    code = Code()
    store = Store(places.cells, code.version)
    planner = Planner(contrast, store)
    planner.runs.check()
    for folder in (places.study, store.root):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(places.study, "nasaug contrast --status tells how far it is"):
        write_atomically(places.study / STUDY, dump_study(contrast))
        stale = _run(planner, code)
        summary = _written(planner, name, places.study)
    _show(summary, places, as_json)
    if stale:
        raise TrainingFailed(
            "the code changed while the contrast ran, and cells of different code do not compare: "
            "no more were begun; start it again"
        )
    fail_if_cells_failed(summary, places)


def show_status(name: str, contrast: Contrast, places: Places, as_json: bool) -> None:
    """How far the contrast is. Writes nothing. Raises: ValueError."""
    planner = _existing(contrast, places)
    found = status(planner.store, planner.plan(), cells_side_by_side(contrast))
    emit_status(found, {"contrast": name, "run_dir": str(places.study)}, as_json)


def write_report(name: str, contrast: Contrast, places: Places, as_json: bool) -> None:
    """Write what was found so far, whoever runs it. Raises: ValueError, OSError."""
    planner = _existing(contrast, places)
    places.study.mkdir(parents=True, exist_ok=True)
    _show(_written(planner, name, places.study), places, as_json)


def publish_contrast(
    name: str, contrast: Contrast, places: Places, as_json: bool, folder: str
) -> None:
    """The same, and put it on the results page in `folder`. Raises: ValueError, OSError."""
    planner = _existing(contrast, places)
    places.study.mkdir(parents=True, exist_ok=True)
    page = publish(Path(folder), _written(planner, name, places.study))
    if as_json:
        emit_json({"contrast": name, "page": str(page)})
        return
    say(f"{name} is on {page}")


def _existing(contrast: Contrast, places: Places) -> Planner:
    check_folder(places.study, places.cells)
    store = Store(places.cells, Code().version)
    if not store.root.is_dir():
        raise ValueError(
            f"{places.cells} holds no cells of this code yet ({store.version}); run nasaug "
            "contrast without this option"
        )
    return Planner(contrast, store)


def _run(planner: Planner, code: Code) -> bool:
    """Run all cells; returns whether the code changed meanwhile."""
    workers = cells_side_by_side(planner.contrast)
    store = planner.store
    say(f"{status(store, planner.plan(), workers).text}; {workers} side by side")

    def watch(cell: Cell, plan: Plan) -> None:
        score = planner.score([cell])
        if score is not None:
            judged = f"validation top-1 {100 * score:.2f} %"
            say(f"{cell.name}: {judged}; {status(store, plan, workers).text}")

    with Runner(planner, workers, code) as runner:
        return runner.run(watch)


def _written(planner: Planner, name: str, path: Path) -> dict[str, Any]:
    summary = summarise(planner, planner.plan(), name)
    write_outputs(path, summary, dump_study(planner.contrast))
    return summary


def _show(summary: Mapping[str, Any], places: Places, as_json: bool) -> None:
    tables = [(rows_table(summary), 1), (compared_table(summary), 2)]
    emit_found(summary, tables, notes(summary), places, as_json)
