"""The results pages: what the published studies and contrasts found, from their summaries alone.

    FOLDER/results.md                     a table of all, and what they say together
    FOLDER/results/STUDY.md               the tables of each
    FOLDER/results/STUDY.json             a summary
    FOLDER/results/STUDY-NAME.svg         its figures
    FOLDER/results/together.svg           all differences that studies found

The pages are written anew from all summaries that lie there, so that studies may be published one
by one, from different machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nasaug.comparing import tables as of_studies
from nasaug.comparing.figures import compute_figure
from nasaug.comparing.formats import compute, duration, markdown_table
from nasaug.comparing.tables import time_key
from nasaug.comparing.together import all_compared, together_figure, together_section
from nasaug.contrasting import report as contrast_report
from nasaug.contrasting import tables as of_contrasts
from nasaug.contrasting.summary import KIND as CONTRAST
from nasaug.detecting import report as detection_report
from nasaug.detecting import tables as of_detections
from nasaug.detecting.summary import KIND as DETECTION
from nasaug.pictures import save_picture
from nasaug.training import read_json_object, write_atomically

Summary = Mapping[str, Any]
# What draws figures, by name, with captions.
Drawings = dict[str, tuple[Callable[[], Figure], str]]
PAGE, FOLDER, TOGETHER = "results.md", "results", "together.svg"
COLUMNS = ("study", "question", "answer", "runs", "training", "time", "final")
INTRODUCTION = """\
# Results

What the studies of `nasaug compare`, `nasaug contrast` and `nasaug detect compare` found. This page
and those it leads to are written by

    nasaug compare STUDY --publish docs
    nasaug contrast CONTRAST --publish docs
    nasaug detect compare STUDY --publish docs

from the summaries in `results/`, and by nothing and nobody else; how to read it is in
[compare.md](compare.md), [contrast.md](contrast.md) and [detection.md](detection.md). Rows whose n
is below what is planned, and studies that are not final, will change."""


def publish(folder: Path, summary: Summary) -> Path:
    """Put a summary and its figures there and write the pages; returns the path of its own.

    Figures of its former summary that no page shows any more are removed.

    Raises: OSError; ValueError for a damaged summary of another study, and for a study of one kind
        under the name of a published one of another.
    """
    own = folder / FOLDER
    own.mkdir(parents=True, exist_ok=True)
    there = own / f"{summary['study']}.json"
    known = read_json_object(there) if there.exists() else summary
    if known.get("kind") != summary.get("kind"):
        raise ValueError(
            f"{there} is of a {known.get('kind', 'study')} of the same name, {summary['study']}; "
            "rename the YAML file of this one, or remove that file"
        )
    others = [one for one in summaries_in(folder) if one.get("study") != summary["study"]]
    summaries = sorted([*others, summary], key=lambda one: str(one.get("study")))
    pages = results_pages(summaries)
    for name, (draw, _) in _figures(summary).items():
        save_picture(draw(), own / _picture(summary, name))
    if compared := _compared(summaries):
        save_picture(together_figure(compared), own / TOGETHER)
    else:
        (own / TOGETHER).unlink(missing_ok=True)
    for path, text in pages.items():
        write_atomically(folder / path, text)
    said = "\n".join(pages.values())
    for picture in _pictures(known):
        if f"({picture})" not in said:
            (own / picture).unlink(missing_ok=True)
    # Last, so that a publishing that was stopped still knows the former figures.
    write_atomically(there, json.dumps(summary, allow_nan=False) + "\n")
    return own / f"{summary['study']}.md"


def _picture(summary: Summary, name: str) -> str:
    return f"{summary['study']}-{name}.svg"


def _pictures(summary: Summary) -> list[str]:
    """The file names of its figures; none are known of a summary of another release."""
    try:
        return [_picture(summary, name) for name in _figures(summary)]
    except KeyError:
        return []


def summaries_in(folder: Path) -> list[dict[str, Any]]:
    """Of all published studies, by name. Raises: OSError; ValueError for a damaged file."""
    paths = sorted((folder / FOLDER).glob("*.json"), key=lambda path: path.stem)
    return [read_json_object(path) for path in paths]


def results_pages(summaries: Sequence[Summary]) -> dict[str, str]:
    """The pages' Markdown by their paths, the first that of all.

    Raises: ValueError for a summary that another release wrote.
    """
    rows, pages = [], {}
    for one in summaries:
        try:
            rows.append(_row(one))
            pages[f"{FOLDER}/{one['study']}.md"] = _page(one)
        except KeyError as error:
            raise ValueError(
                f"{FOLDER}/{one.get('study')}.json is of another release of nasaug: it does not "
                f"say {error}; publish that study again (--code uses the cells of its release)"
            ) from error
    parts = [INTRODUCTION, markdown_table((COLUMNS, rows), 3)]
    if compared := _compared(summaries):
        parts.append(together_section(compared, FOLDER, TOGETHER))
    return {PAGE: "\n\n".join(parts) + "\n", **pages}


def _compared(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Of studies of `nasaug compare`; contrasts and detectors are compared on their own pages."""
    return all_compared(one for one in summaries if "kind" not in one)


def _row(one: Summary) -> list[str]:
    return [
        f"[{one['study']}]({FOLDER}/{one['study']}.md)",
        one["question"],
        one["answer"],
        f"{_runs(one, 'n')} of {_runs(one, 'planned')}",
        compute(_spent(one, "macs")),
        duration(_spent(one, "time")),
        "yes" if one["final"] else "no",
    ]


def _page(one: Summary) -> str:
    said = {CONTRAST: of_contrasts.markdown, DETECTION: of_detections.markdown}
    text = said.get(str(one.get("kind")), of_studies.markdown)(one)
    figures = [
        f"![{caption}]({_picture(one, name)})" for name, (_, caption) in _figures(one).items()
    ]
    return "\n\n".join([text.rstrip(), *figures, f"[All results](../{PAGE})"]) + "\n"


def _lines(summary: Summary) -> Sequence[Summary]:
    """What has runs of its own: arms, contestants, or detectors of a method at a size."""
    lines: Sequence[Summary] = summary["rows" if "kind" in summary else "arms"]
    return lines


def _runs(summary: Summary, key: str) -> int:
    return sum(int(line[key]) for line in _lines(summary))


def _spent(summary: Summary, what: str) -> float | None:
    """By all final runs so far, `what` being macs or time; None where none says."""
    if "kind" in summary:
        return summary["once"]["macs" if what == "macs" else "seconds"] or None
    key = "train_macs" if what == "macs" else time_key(summary)
    spent = [arm[key] * arm["n"] for arm in summary["arms"] if arm[key] is not None]
    return sum(spent) if spent else None


def _figures(summary: Summary) -> Drawings:
    """None of what has no runs."""
    drawn = {CONTRAST: contrast_report.drawings, DETECTION: detection_report.drawings}
    return drawn.get(str(summary.get("kind")), _of_study)(summary)


def _of_study(summary: Summary) -> Drawings:
    methods = list(dict.fromkeys(arm["method"] for arm in summary["arms"]))
    figures: Drawings = {}
    for target in summary["targets"]:
        arms = [arm for arm in summary["arms"] if arm["target"] == target and arm["n"]]
        if arms:
            caption = f"{target}: test accuracy against training MACs"
            figures[target] = partial(compute_figure, arms, methods), caption
    return figures
