"""A study's comparisons by all runs of both sides, as if no two belonged together.

Pairs of equal seeds are what was planned, and of three pairs an interval is wide. If runs of one
seed are no more alike than others, pairing gains nothing, and Welch's test over all runs, of which
the baseline often has more, says more. Made from a study's summary and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nasaug.comparing.statistics import Mean, corrected, unpaired

Row = Mapping[str, Any]
TAKEN = ("target", "method", "epochs", "against", "against_epochs", "equal")


def unpaired_comparisons(summary: Row) -> list[dict[str, Any]]:
    """Those of single targets of which both sides have runs, `n` and `against_n` of them; `sides`
    are the runs' cells. `final` where no run is to come on either side. `train` is the difference
    on training images: what helps there and not on new ones makes the fit better, not the network.
    """
    return list(corrected(list(_compared(summary))))


def _compared(summary: Row) -> Iterator[dict[str, Any]]:
    arms = {(arm["target"], arm["method"], arm["epochs"]): arm for arm in summary["arms"]}
    for one in summary["comparisons"]:
        ours = arms.get((one["target"], one["method"], one["epochs"]))
        theirs = arms.get((one["target"], one["against"], one["against_epochs"]))
        if ours is None or theirs is None or not ours["n"] or not theirs["n"]:
            continue
        yield {
            **{key: one[key] for key in TAKEN},
            "n": ours["n"],
            "against_n": theirs["n"],
            "final": ours["final"] and theirs["final"],
            "correlation": one.get("correlation"),  # releases before did not say it
            "sides": (set(ours["cells"]), set(theirs["cells"])),
            **unpaired(Mean(**ours["test"]), Mean(**theirs["test"])).to_dict(),
            "train": unpaired(Mean(**ours["train"]), Mean(**theirs["train"])).to_dict(),
        }
