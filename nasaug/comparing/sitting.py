"""Running a comparison of cells, asking how far it is, and writing what it found: what `nasaug
compare`, `contrast` and `detect compare` have in common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nasaug.comparing.cells import Cell
from nasaug.comparing.places import Places, cells_side_by_side
from nasaug.comparing.runner import Runner
from nasaug.comparing.status import Status
from nasaug.comparing.store import Store
from nasaug.comparing.studies import STUDY, dump_study
from nasaug.comparing.tables import Table
from nasaug.comparing.telling import emit_found, emit_status, fail_if_cells_failed
from nasaug.comparing.versions import Code
from nasaug.console import emit_json, say
from nasaug.publishing import publish
from nasaug.training import TrainingFailed, write_atomically
from nasaug.workspace import lock_folder


class Sitting(ABC):
    """One command's work on one comparison. `asked` is its section, `planner` makes its plans."""

    # What it is called, and the command that it is of.
    KIND: ClassVar[str] = "study"
    COMMAND: ClassVar[str]

    def __init__(self, name: str, asked: Any, planner: Any, places: Places, as_json: bool) -> None:
        self.name, self.asked, self.planner = name, asked, planner
        self.places, self.as_json = places, as_json

    @abstractmethod
    def status(self, plan: Any, workers: int) -> Status:
        """How far it is."""

    @abstractmethod
    def judged(self, cell: Cell) -> str | None:
        """What is said of a cell that ended; None where it came to nothing."""

    @abstractmethod
    def summarised(self) -> dict[str, Any]:
        """What it found so far, written into its folder too."""

    @abstractmethod
    def tables(self, summary: Mapping[str, Any]) -> Sequence[tuple[Table, int]]:
        """Those that are shown, and how many of their first columns are words."""

    @abstractmethod
    def notes(self, summary: Mapping[str, Any]) -> Sequence[str]:
        """What is said beneath them."""

    def begun(self) -> None:  # noqa: B027 - most have nothing else to do
        """What else is done once the folder is locked."""

    def run(self, code: Code, otherwise: str = "") -> None:
        """Run what is left, then write and show what it found; `otherwise`: what else than to start
        again helps where the code changed.

        Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
        """
        for folder in (self.places.study, self.planner.store.root):
            folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(self.places.study, f"{self.COMMAND} --status tells how far it is"):
            write_atomically(self.places.study / STUDY, dump_study(self.asked))
            self.begun()
            stale = self._cells_run(code)
            summary = self.summarised()
        self._show(summary)
        if stale:
            raise TrainingFailed(
                f"the code changed while the {self.KIND} ran, and cells of different code do not "
                f"compare: no more were begun; start it again{otherwise}"
            )
        fail_if_cells_failed(summary, self.places)

    def answer(self, asks: bool, publish: str | None) -> None:
        """How far it is (`asks`), the results page in the folder `publish`, or else the report.

        Raises: ValueError, OSError.
        """
        if asks:
            self._show_status()
        elif publish is not None:
            self._publish(publish)
        else:
            self.places.study.mkdir(parents=True, exist_ok=True)
            self._show(self.summarised())

    def _show_status(self) -> None:
        """Writes nothing."""
        found = self.status(self.planner.plan(), cells_side_by_side(self.asked))
        emit_status(found, {self.KIND: self.name, "run_dir": str(self.places.study)}, self.as_json)

    def _publish(self, folder: str) -> None:
        """Put what was found so far on the results page in `folder`."""
        self.places.study.mkdir(parents=True, exist_ok=True)
        page = publish(Path(folder), self.summarised())
        if self.as_json:
            emit_json({self.KIND: self.name, "page": str(page)})
            return
        say(f"{self.name} is on {page}")

    def _cells_run(self, code: Code) -> bool:
        """Run all cells; returns whether the code changed meanwhile."""
        workers = cells_side_by_side(self.asked)
        say(f"{self.status(self.planner.plan(), workers).text}; {workers} side by side")

        def watch(cell: Cell, plan: Any) -> None:
            judged = self.judged(cell)
            if judged is not None:
                say(f"{cell.name}: {judged}; {self.status(plan, workers).text}")

        with Runner(self.planner, workers, code) as runner:
            return runner.run(watch)

    def _show(self, summary: Mapping[str, Any]) -> None:
        emit_found(summary, self.tables(summary), self.notes(summary), self.places, self.as_json)


def check_begun(store: Store, command: str) -> None:
    """Raises: ValueError where no cell of this code was begun."""
    if not store.root.is_dir():
        raise ValueError(
            f"{store.cells} holds no cells of this code yet ({store.version}); run {command} "
            "without this option"
        )
