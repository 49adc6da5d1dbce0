"""The files that every kind of comparison writes of itself, and what their pages share."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasaug.comparing.formats import Table
from nasaug.comparing.studies import OUTPUTS
from nasaug.pipelines import page
from nasaug.training import write_atomically


def write_files(
    out: Path, summary: Mapping[str, Any], csv_text: str, markdown: str, html: str
) -> dict[str, str]:
    """Write all four; returns their paths. Raises: OSError."""
    found = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    content = dict(zip(OUTPUTS, (found, csv_text, markdown, html), strict=True))
    for name, text in content.items():
        write_atomically(out / name, text)
    return {name: str(out / name) for name in content}


def csv_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """A line for each, under the keys of the first; None is empty."""
    file = io.StringIO()
    table = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return file.getvalue()


def html_table(table: Table, left: int, marked: Collection[int] = ()) -> str:
    """A figure, which can be scrolled where the table is wider than the page."""
    head, rows = table
    return f"<figure>{page.table(head, rows, left, marked)}</figure>"


def html_answer(summary: Mapping[str, Any]) -> str:
    return page.paragraph("Answer:", "note") + page.paragraph(summary["answer"])
