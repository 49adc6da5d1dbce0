"""What a study or contrast tells people, and other programs, of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasaug.comparing.formats import Table
from nasaug.comparing.places import Places
from nasaug.comparing.status import Status
from nasaug.console import emit_json, emit_table, say
from nasaug.training import TrainingFailed


def emit_status(found: Status, facts: Mapping[str, Any], as_json: bool) -> None:
    """How far it is; as JSON with `facts` of what it is."""
    if as_json:
        emit_json({**facts, **found.to_dict()})
        return
    say(found.text)
    rows = [[cell, "running", f"{100 * share:.0f} %"] for cell, share in found.running.items()]
    rows += [[cell, "failed", failure.text] for cell, failure in found.failed.items()]
    if rows:
        emit_table("", ("cell", "state", "so far"), rows, left=3)


def emit_found(
    summary: Mapping[str, Any],
    tables: Sequence[tuple[Table, int]],
    notes: Sequence[str],
    places: Places,
    as_json: bool,
) -> None:
    """The tables, whose first so many columns are words, under the question; or the summary."""
    report = places.study / "report.html"
    if as_json:
        where = {"run_dir": str(places.study), "cells": str(places.cells), "report": str(report)}
        emit_json({**summary, **where})
        return
    title = summary["question"]
    for table, left in tables:
        emit_table(title, *table, left=left)
        title = ""
    for note in notes:
        say(note)
    say(f"report: {report}")


def fail_if_cells_failed(summary: Mapping[str, Any], places: Places) -> None:
    """Raises: TrainingFailed."""
    if summary["failed"]:
        raise TrainingFailed(
            f"{len(summary['failed'])} cells failed (see {places.study / 'report.html'}); the same "
            "command tries them again"
        )
