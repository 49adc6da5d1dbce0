"""A study's arms and comparisons as CSV, for a spreadsheet: made from its summary and nothing else.

Accuracies and differences are fractions here, so that nothing is lost. What is not known is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nasaug.comparing.tables import EQUAL

Row = Mapping[str, Any]
MEAN = ("mean", "sd", "low", "high")
COMPARED = ("against", "against_epochs", "n", "difference", "low", "high", "p", "holm", "final")


def csv_text(summary: Row) -> str:
    """A line for every arm with its comparisons beside it, and for every pooled comparison."""
    fields = ["target", "method", "epochs", "longer", "lr", "n", "planned", "final"]
    fields += [f"{part}_{key}" for part in ("test", "validation", "train") for key in MEAN]
    fields += ["train_macs", "train_seconds", "train_cpu_seconds", "macs", "params", "reaches"]
    fields += [f"{kind}_{key}" for kind in EQUAL for key in COMPARED]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(summary, fields))
    return text.getvalue()


def _csv_rows(summary: Row, fields: Sequence[str]) -> Iterable[dict[str, Any]]:
    for arm in summary["arms"]:
        row = {key: arm[key] for key in fields if key in arm}
        for part in ("test", "validation", "train"):
            row |= {f"{part}_{key}": arm[part][key] for key in MEAN}
        yield row | _beside(summary, arm["target"], arm["method"], arm["epochs"])
    for method, epochs in dict.fromkeys(
        (one["method"], one["epochs"]) for one in summary["comparisons"] if one["target"] == "all"
    ):
        pooled = _beside(summary, "all", method, epochs)
        yield {"target": "all", "method": method, "epochs": epochs, **pooled}


def _beside(summary: Row, target: str, method: str, epochs: int) -> dict[str, Any]:
    return {
        f"{one['equal']}_{key}": one[key]
        for one in summary["comparisons"]
        if (one["target"], one["method"], one["epochs"]) == (target, method, epochs)
        for key in COMPARED
    }
