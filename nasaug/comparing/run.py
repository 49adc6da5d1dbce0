"""`nasaug compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.checks import check_cells
from nasaug.comparing.places import Places
from nasaug.comparing.plan import Plan, Planner, finished_cells
from nasaug.comparing.report import write_outputs
from nasaug.comparing.sitting import Sitting
from nasaug.comparing.status import Status, status
from nasaug.comparing.store import Store, versions_in
from nasaug.comparing.studies import STUDY, check_folder, dump_study
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import Table, arms_table, compared_table, duration, notes
from nasaug.comparing.versions import Code
from nasaug.console import say, show_log_messages
from nasaug.study_config import Study


class _Sitting(Sitting):
    COMMAND = "nasaug compare"
    planner: Planner

    def begun(self) -> None:
        store = self.planner.store
        store.mix(Code().version)
        for version, cells in finished_cells(self.asked, self.places.cells).items():
            if version != store.version and cells:
                say(f"{cells} finished cells of other code, {version}, are kept apart")

    def status(self, plan: Plan, workers: int) -> Status:
        return status(self.planner, plan, workers)

    def judged(self, cell: Cell) -> str | None:
        result = self.planner.store.result(cell.identity)
        if result is None:
            return None
        top1, took = result.get("validation_top1"), duration(result.get("train_seconds"))
        return took if top1 is None else f"validation top-1 {100 * top1:.2f} %, {took}"

    def summarised(self) -> dict[str, Any]:
        summary = summarise(self.planner, self.planner.plan(), self.name)
        write_outputs(self.places.study, summary, dump_study(self.asked))
        return summary

    def tables(self, summary: Mapping[str, Any]) -> list[tuple[Table, int]]:
        return [(compared_table(summary), 5), (arms_table(summary), 2)]

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        return notes(summary)


def run_study(name: str, study: Study, places: Places, code: str | None, as_json: bool) -> None:
    """Run what is left of the study, then write and show what it found.

    `code` names the version of the code whose cells are gone on with; None is the code as it is.

    Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
    """
    show_log_messages()
    check_folder(places.study, places.cells)
    here = Code()
    _check_version(places, code)
    planner = Planner(study, Store(places.cells, code or here.version))
    check_cells(planner)
    otherwise = f", or go on with --code {planner.store.version}"
    _Sitting(name, study, planner, places, as_json).run(here, otherwise)


def existing_study(
    name: str, study: Study, places: Places, code: str | None, as_json: bool
) -> Sitting:
    """What is there of a study: of the code asked for, of the code here, or of the newest.

    Raises: ValueError where nothing is.
    """
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
    planner = Planner(study, Store(places.cells, chosen))
    return _Sitting(name, study, planner, places, as_json)


def _check_version(places: Places, code: str | None) -> None:
    versions = versions_in(places.cells)
    if code is not None and code not in versions:
        known = ", ".join(versions) or "none"
        raise ValueError(f"{places.cells} holds no cells of code {code!r}; those it holds: {known}")
