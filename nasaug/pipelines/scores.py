"""All metrics of networks on parts of the data, as a table and as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasaug.console import emit_table
from nasaug.training import Judgement

COLUMNS = (
    "network", "part", "images", "top-1 (%)", "top-5 (%)", "precision (%)", "recall (%)", "F1 (%)",
    "calibration error (%)", "loss",
)  # fmt: skip


def summary(judged: Judgement) -> dict[str, Any]:
    """Macro precision, recall and F1 are those at 1; fractions."""
    first = judged.within(1)
    return {
        "images": judged.images,
        "top1": judged.top1,
        "top5": judged.top5,
        "precision": first.precision,
        "recall": first.recall,
        "f1": first.f1,
        "calibration_error": judged.calibration_error,
        "loss": judged.loss,
    }


def emit_scores(title: str, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """`scores[network][part]` are summaries; precision, recall and F1 are macro means."""
    rows = []
    for network, parts in scores.items():
        for part, values in parts.items():
            shares = [f"{100 * values[name]:.2f}" for name in list(values)[1:-1]]
            rows.append([network, part, f"{values['images']:,}", *shares, f"{values['loss']:.3f}"])
    emit_table(title, COLUMNS, rows, left=2)
