"""`nasaug compare`: run a study, say how far it is, write what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.checks import check_cells
from nasaug.comparing.formats import Table, duration
from nasaug.comparing.plan import Plan, Planner
from nasaug.comparing.report import write_outputs
from nasaug.comparing.sitting import Sitting
from nasaug.comparing.status import Status, status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import dump_study
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import arms_table, compared_table, notes


class StudySitting(Sitting):
    COMMAND = "nasaug compare"
    planner: Planner

    def planner_of(self, store: Store) -> Planner:
        return Planner(self.asked, store)

    def check(self) -> None:
        check_cells(self.planner)

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
