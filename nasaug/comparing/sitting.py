"""Running a comparison of cells, asking how far it is, and writing what it found: what `nasaug
compare`, `contrast` and `detect compare` have in common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nasaug.comparing.cells import Cell
from nasaug.comparing.formats import Table
from nasaug.comparing.places import Places, cells_side_by_side
from nasaug.comparing.runner import Runner
from nasaug.comparing.status import Status
from nasaug.comparing.store import Store, versions_in
from nasaug.comparing.studies import STUDY, check_folder, dump_study
from nasaug.comparing.telling import emit_found, emit_status, fail_if_cells_failed
from nasaug.comparing.versions import Code
from nasaug.console import emit_json, say, show_log_messages
from nasaug.publishing import publish
from nasaug.study_options import StudyOptions
from nasaug.training import TrainingFailed, write_atomically
from nasaug.workspace import lock_folder


class Sitting(ABC):
    """One command's work on one comparison. `asked` is its section, `here` the code as it is;
    `planner` makes its plans, from the cells of one version of the code."""

    # What it is called, and the command that it is of.
    KIND: ClassVar[str] = "study"
    COMMAND: ClassVar[str]
    planner: Any

    def __init__(self, name: str, asked: Any, places: Places, as_json: bool) -> None:
        """Raises: ValueError for a folder that holds something else."""
        check_folder(places.study, places.cells)
        self.name, self.asked = name, asked
        self.places, self.as_json = places, as_json
        self.here = self.code()

    def code(self) -> Code:
        """What decides its numbers."""
        return Code()

    @abstractmethod
    def planner_of(self, store: Store) -> Any:
        """What makes plans from the cells of one version of the code."""

    @abstractmethod
    def check(self) -> None:
        """Raises: ValueError, OSError for what cannot run; before anything does."""

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

    def attend(self, options: StudyOptions) -> None:
        """Answer what is asked, or run what is left. Raises: as `run` and `answer`."""
        if options.is_question:
            self.answer(options.code, options.asks, options.publish)
        else:
            self.run(options.code)

    def run(self, version: str | None) -> None:
        """Run what is left, then write and show what it found. `version` is that of the code whose
        cells are gone on with; None is the code as it is.

        Raises: ValueError, OSError; TrainingFailed if cells failed or the code changed meanwhile.
        """
        show_log_messages()
        self._check_version(version)
        self.planner = self._planner(version or self.here.version)
        self.check()
        store: Store = self.planner.store
        if version is not None and not self._begun(self.planner):
            say(f"code {version} has no cell of this {self.KIND}: all are begun anew")
        for folder in (self.places.study, store.root):
            folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(self.places.study, f"{self.COMMAND} --status tells how far it is"):
            write_atomically(self.places.study / STUDY, dump_study(self.asked))
            store.mix(self.here.version)
            stale = self._cells_run()
            summary = self.summarised()
        self._show(summary)
        if stale:
            raise TrainingFailed(
                f"the code changed while the {self.KIND} ran, and cells of different code do not "
                "compare: no more were begun; start it again, or go on with --code "
                f"{store.version}"
            )
        fail_if_cells_failed(summary, self.places)

    def answer(self, version: str | None, asks: bool, publish: str | None) -> None:
        """How far it is (`asks`), the results pages in the folder `publish`, or else the report; of
        the cells of the version of the code asked for, of the code here, or of the newest.

        Raises: ValueError where nothing is; OSError.
        """
        self._check_version(version)
        self.planner = self._planner_of_what_is_there(version)
        found = self.planner.store.version
        if found != self.here.version:
            say(f"cells of other code: {found} (the code here is {self.here.version})")
        if asks:
            self._show_status()
        elif publish is not None:
            self._publish(publish)
        else:
            self.places.study.mkdir(parents=True, exist_ok=True)
            self._show(self.summarised())

    def _planner(self, version: str) -> Any:
        return self.planner_of(Store(self.places.cells, version))

    def _planner_of_what_is_there(self, version: str | None) -> Any:
        """Of the version asked for, else of the code here, else of the newest that finished some
        of its cells."""
        planner = self._planner(version or self.here.version)
        if self._begun(planner):
            return planner
        if version is not None:
            raise ValueError(
                f"code {version} has no cell of this {self.KIND} in {self.places.cells}: it was of "
                "other keys or seeds, or this release calls its cells otherwise"
            )
        others = planner.store.elsewhere(_identities(planner))
        if others:
            return self._planner(next(iter(others)))
        if (self.places.study / STUDY).exists():
            return planner
        raise ValueError(
            f"{self.places.cells} holds no cells of this {self.KIND} yet; run {self.COMMAND} "
            "without this option"
        )

    def _begun(self, planner: Any) -> bool:
        """Whether a cell of it is finished, or runs."""
        return any(planner.store.state(cell) != "waiting" for cell in _identities(planner))

    def _check_version(self, version: str | None) -> None:
        versions = versions_in(self.places.cells, self.here.version)
        if version is not None and version not in versions:
            known = ", ".join(versions) or "none"
            raise ValueError(
                f"{self.places.cells} holds no cells of code {version!r}; those it holds: {known}"
            )

    def _show_status(self) -> None:
        """Writes nothing."""
        found = self.status(self.planner.plan(), cells_side_by_side(self.asked))
        emit_status(found, {self.KIND: self.name, "run_dir": str(self.places.study)}, self.as_json)

    def _publish(self, folder: str) -> None:
        """Put what was found so far on the results pages in `folder`."""
        self.places.study.mkdir(parents=True, exist_ok=True)
        page = publish(Path(folder), self.summarised())
        if self.as_json:
            emit_json({self.KIND: self.name, "page": str(page)})
            return
        say(f"{self.name} is on {page}")

    def _cells_run(self) -> bool:
        """Run all cells; returns whether the code changed meanwhile."""
        workers, plan = cells_side_by_side(self.asked), self.planner.plan()
        for version in self.planner.store.elsewhere(cell.identity for cell in plan.cells):
            say(f"cells of other code, {version}, are kept apart")
        say(f"{self.status(plan, workers).text}; {workers} side by side")

        def watch(cell: Cell, plan: Any) -> None:
            judged = self.judged(cell)
            if judged is not None:
                say(f"{cell.name}: {judged}; {self.status(plan, workers).text}")

        with Runner(self.planner, workers, self.here) as runner:
            return runner.run(watch)

    def _show(self, summary: Mapping[str, Any]) -> None:
        emit_found(summary, self.tables(summary), self.notes(summary), self.places, self.as_json)


def _identities(planner: Any) -> list[str]:
    return [cell.identity for cell in planner.plan().cells]
