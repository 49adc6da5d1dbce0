"""`nasaug dashboard`: a search's study in optuna-dashboard, with a note and pictures put on it.

The note and the pictures are records of the study itself, written through Optuna's own storage: a
search that goes on meanwhile reads over them, and nothing is locked for longer than a record takes.
Each is written once; opened again, only what has changed is.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileSymlinkLock

from nasaug.console import emit_json, say, show_log_messages
from nasaug.pictures import architecture_figure, render
from nasaug.pipelines.notes import merged, study_note
from nasaug.pipelines.searched import Judged, Searched, find_run, read_search
from nasaug.pipelines.serving import Application, bind, is_loopback, only_for_this_machine, url_of
from nasaug.pipelines.stored import open_storage

PICTURES = 10
PICTURE_NAME = "architecture.svg"


def run_dashboard(
    run: str | None,
    host: str,
    port: int,
    storage: str | None,
    study: str | None,
    browser: bool,
    as_json: bool,
) -> None:
    """Serve the dashboard until Ctrl-C. Raises: ValueError, OSError."""
    show_log_messages()
    make_application = _dashboard()
    with bind(host, port) as server:
        if run is None and storage is not None:
            place, artifacts = open_storage(storage), None
            facts = {"url": f"{url_of(host, server.server_port)}/dashboard"}
        else:
            folder = find_run(run)
            end_last_line(folder / "study.journal")
            searched, place = read_search(folder, storage, study)
            (folder / "artifacts").mkdir(exist_ok=True)
            artifacts = FileSystemArtifactStore(folder / "artifacts")
            annotate(searched, place, artifacts)
            page = f"/dashboard/studies/{searched.study._study_id}"
            facts = {
                "url": url_of(host, server.server_port) + page,
                "study": searched.study.study_name,
                "run_dir": str(folder),
            }
        application = make_application(place, artifact_store=artifacts)
        if is_loopback(host):
            application = only_for_this_machine(application)
        else:
            say(
                f"warning: the dashboard has no password; whoever reaches {host} can read, change "
                "and delete the study"
            )
        server.set_app(application)
        _announce(facts, browser, as_json)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # The way to end a server: nothing was interrupted that would have to be resumed.
            say("dashboard closed")


def _announce(facts: dict[str, Any], browser: bool, as_json: bool) -> None:
    if as_json:
        emit_json(facts)
    say(f"dashboard: {facts['url']} (Ctrl-C ends it)")
    if "study" in facts:
        say(f"its note, with the winner: {facts['url']}/note")
    if browser:
        import webbrowser

        webbrowser.open(facts["url"])


def _dashboard() -> Callable[..., Application]:
    """optuna-dashboard's application. Raises: ValueError if it is not installed."""
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise ValueError(
            "nasaug dashboard needs optuna-dashboard: pip install 'nasaug[dashboard]'"
        ) from None
    make: Callable[..., Application] = wsgi
    return make


def annotate(searched: Searched, storage: BaseStorage, artifacts: FileSystemArtifactStore) -> None:
    """Put the note and names of the objectives on the study, and pictures on its best trials, where
    they are not there yet."""
    from optuna_dashboard import get_note, save_note

    best = searched.front if len(searched.objectives) > 1 else searched.ranked
    winner, study_id = searched.winner, searched.study._study_id
    pictured = {trial.number: trial for trial in (*best[:PICTURES], *filter(None, [winner]))}
    pictures = {
        number: _picture(searched, trial, storage, artifacts) for number, trial in pictured.items()
    }
    path = None
    if winner is not None:
        path = f"/artifacts/{study_id}/{winner.trial_id}/{pictures[winner.number]}"
    if searched.study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            searched.study.set_metric_names(list(searched.objectives))
    before = get_note(searched.study)
    note = merged(study_note(searched, path), before)
    if note != before:
        save_note(searched.study, note)


def _picture(
    searched: Searched, trial: Judged, storage: BaseStorage, artifacts: FileSystemArtifactStore
) -> str:
    """The identifier of the artifact with a trial's picture, drawn and stored unless it is there.

    Optuna's own `upload_artifact` is refused for finished trials, by every storage. A study can
    always be given attributes, and the dashboard reads a trial's artifacts from there too.
    """
    prefix = f"dashboard:artifacts:{trial.trial_id}:"
    study_id = searched.study._study_id
    for key, value in storage.get_study_system_attrs(study_id).items():
        known = json.loads(value) if key.startswith(prefix) else None
        if known is not None and known["filename"] == PICTURE_NAME:
            identifier = str(known["artifact_id"])
            if (searched.folder / "artifacts" / identifier).is_file():
                return identifier
            storage.set_study_system_attr(study_id, key, json.dumps(None))  # as the dashboard does
    figure = architecture_figure(searched.over, searched.architecture(trial))
    identifier = str(uuid.uuid4())
    artifacts.write(identifier, BytesIO(render(figure, "svg")))
    facts = {
        "artifact_id": identifier,
        "filename": PICTURE_NAME,
        "mimetype": "image/svg+xml",
        "encoding": None,
    }
    storage.set_study_system_attr(study_id, prefix + identifier, json.dumps(facts))
    return identifier


def end_last_line(journal: Path) -> None:
    """Cut off a half-written last line, which a killed process left: the next record would join it.

    Under the journal's own lock nobody is half-way through a line, so a search that is running is
    not disturbed. A journal that ends well is not touched.
    """
    if not journal.is_file() or _ends_well(journal):
        return
    lock = JournalFileSymlinkLock(str(journal.resolve()))
    lock.acquire()
    try:
        if not _ends_well(journal):
            whole = journal.read_bytes().rfind(b"\n") + 1
            with journal.open("r+b") as file:
                file.truncate(whole)
    finally:
        lock.release()


def _ends_well(journal: Path) -> bool:
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")
