"""The picture of a rank check: accuracy alone against what each judge says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from nasaug.search import Estimate, RankReport
from nasaug.training import write_atomically


def draw_ranks(
    path: Path,
    inherited: Sequence[float],
    alone: Sequence[float],
    macs: Sequence[int],
    report: RankReport,
    target: str,
) -> None:
    """Two scatter plots, a point a candidate; the suffix of `path` is the format (svg or png).

    inherited, alone: fractions; macs: batch 1, at the deployment resolution.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    millions = [cost / 1e6 for cost in macs]
    percent = [100 * value for value in alone]
    looks = {"c": millions, "s": 36, "edgecolors": "black", "linewidths": 0.5}
    points = left.scatter([100 * value for value in inherited], percent, **looks)
    right.scatter(millions, percent, **looks)
    left.set_xlabel("validation top-1 with inherited weights (%)")
    left.set_ylabel("validation top-1 trained alone (%)")
    right.set_xlabel("MACs (millions)")
    left.set_title(_titled("supernet", report.tau, report))
    right.set_title(_titled("MACs alone", report.macs_tau, report))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.colorbar(points, ax=right, label="MACs (millions)")
    figure.suptitle(f"Does the supernet of {target} rank? n = {report.n}")
    image = io.BytesIO()
    suffix = path.suffix.removeprefix(".")
    # Equal checks give equal files: no date, and ids that do not depend on the process.
    metadata = {"Date": None} if suffix == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "nasaug"}):
        figure.savefig(image, format=suffix, metadata=metadata, dpi=120)
    write_atomically(path, image.getvalue())


def _titled(judge: str, tau: Estimate, report: RankReport) -> str:
    share = f"{100 * report.confidence:.0f} %"
    return f"{judge}: tau {tau.value:.2f} ({share}: {tau.low:.2f} to {tau.high:.2f})"
