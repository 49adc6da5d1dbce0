"""What all published studies say together: how many comparisons are told apart, and which, and what
a method gains over all that it was compared in.

Only final comparisons with an interval count, those of single targets, and each once: studies share
their cells, so that one comparison may stand on several pages, with more seeds on one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from nasaug.comparing.figures import sheet_with_axes
from nasaug.comparing.formats import Table, interval, markdown_table, percent, points, probability
from nasaug.comparing.statistics import mean_of, pooled
from nasaug.comparing.tables import EQUAL, unpaired_cells
from nasaug.comparing.unpaired import unpaired_comparisons
from nasaug.pictures.canvas import BLUE, GREY, INK, RED, style

Row = Mapping[str, Any]
Compared = dict[str, Any]
LEVEL = 0.05
COUNTED = ("at", "comparisons", "ahead", "corrected", "behind", "corrected", "not told apart")
POOLED = (
    "method", "against", "at", "comparisons", "mean difference (points)", "95 % interval",
    "between",
)  # fmt: skip
LEAST_POOLED = 3
APART = (
    "study", "target", "method", "epochs", "against", "at", "runs",
    "difference (points)", "95 % interval", "p (Holm)",
)  # fmt: skip
EXPLAINED = (
    "Every final comparison of two arms on one target in the studies of `nasaug compare` above, "
    "whatever the arms are, once, though studies share runs: a difference in test top-1 is told "
    "apart where its 95 % interval is without 0, which chance alone does in one of twenty; "
    "*corrected* counts those of them that Holm's correction leaves (p < 0.05), which is made for "
    "the methods on one target, at one length, at equal one thing. By all runs of both sides, not "
    "paired (Welch's t-test)."
)
OVER_ALL = (
    "Over all targets, lengths and data, methods by their names: the mean of at least "
    f"{LEAST_POOLED} comparisons that share no run of the method, weighed by how exactly each is "
    "known (random effects), and the standard deviation *between* what they would be, were all "
    "known exactly. Where that is large, the mean hides that a method does better in some places "
    "than in others."
)
# Points up to which differences are drawn to scale; those beyond are drawn by their logarithm.
TO_SCALE = 2.0
TICKS = (-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20)
GAP = 3  # rows between blocks


def all_compared(summaries: Iterable[Row]) -> list[Compared]:
    """The comparisons that count, each with its `study`, from the least difference up."""
    found = [
        {**one, "study": summary["study"]}
        for summary in summaries
        for one in unpaired_comparisons(summary)
        if one["final"] and one["low"] is not None
    ]
    return sorted(_once(found, _are_one), key=lambda one: float(one["difference"]))


def _once(compared: Iterable[Compared], are_one: Callable[[Row, Row], bool]) -> list[Compared]:
    """Of those that are one, that of most runs."""
    kept: list[Compared] = []
    for one in sorted(compared, key=lambda one: -one["n"] - one["against_n"]):
        if not any(are_one(one, other) for other in kept):
            kept.append(one)
    return kept


def _are_one(one: Row, other: Row) -> bool:
    """Whether they share runs on both sides, and are equal in the same."""
    shared = (mine & its for mine, its in zip(one["sides"], other["sides"], strict=True))
    return one["equal"] == other["equal"] and all(shared)


def together_section(compared: Sequence[Compared], folder: str, picture: str) -> str:
    """The section of the page, in Markdown; pages of studies and the `picture` are in `folder`."""
    over_all = _pooled_table(compared)
    parts = [
        "## Taken together",
        fill(" ".join([EXPLAINED, *_correlated(compared)]), 100),
        markdown_table(_counted(compared), 1),
        f"![All differences, sorted]({folder}/{picture})",
    ]
    if over_all[1]:
        parts += [fill(OVER_ALL, 100), markdown_table(over_all, 3)]
    apart = _apart_table(compared, folder)
    if apart[1]:
        parts += ["Told apart, the best first:", markdown_table(apart, 3)]
    return "\n\n".join(parts)


def _correlated(compared: Iterable[Row]) -> list[str]:
    """Whether pairing would gain anything."""
    known = [one["correlation"] for one in compared if one["correlation"] is not None]
    found = mean_of(known)
    if found.low is None:
        return []
    return [
        f"Runs of one seed correlate by {found.mean:+.2f} in the mean of {found.n} comparisons "
        f"({found.low:+.2f} to {found.high:+.2f})."
    ]


def _counted(compared: Sequence[Row]) -> Table:
    return COUNTED, [
        [EQUAL[equal], *map(str, _numbers([one for one in compared if one["equal"] == equal]))]
        for equal in _equals(compared)
    ]


def _numbers(compared: Sequence[Row]) -> list[int]:
    ahead = [one for one in compared if one["low"] > 0]
    behind = [one for one in compared if one["high"] < 0]
    rest = len(compared) - len(ahead) - len(behind)
    return [
        len(compared), len(ahead), _corrected(ahead), len(behind), _corrected(behind), rest,
    ]  # fmt: skip


def _corrected(compared: Iterable[Row]) -> int:
    return sum(one["holm"] is not None and one["holm"] < LEVEL for one in compared)


def _equals(compared: Iterable[Row]) -> list[str]:
    return [equal for equal in EQUAL if any(one["equal"] == equal for one in compared)]


def _pooled_table(compared: Sequence[Compared]) -> Table:
    """By what is equal, the method of most comparisons first."""
    rows = []
    for equal in _equals(compared):
        own = _once((one for one in compared if one["equal"] == equal), _share_method_runs)
        for sides, times in Counter(map(_sides, own)).most_common():
            if times >= LEAST_POOLED:
                found = [one for one in own if _sides(one) == sides]
                rows.append([*sides, EQUAL[equal], *_pooled_cells(found)])
    return POOLED, rows


def _share_method_runs(one: Row, other: Row) -> bool:
    """Then they are not independent: two baselines of about the method's cost, say."""
    return _sides(one) == _sides(other) and bool(one["sides"][0] & other["sides"][0])


def _sides(one: Row) -> tuple[str, str]:
    return one["method"], one["against"]


def _pooled_cells(compared: Sequence[Row]) -> list[str]:
    found = pooled([one["difference"] for one in compared], [one["error"] for one in compared])
    spread = interval(found.to_dict(), signed=True)
    return [str(found.n), points(found.mean), spread, percent(found.between)]


def _is_apart(one: Row) -> bool:
    return bool(one["low"] > 0 or one["high"] < 0)


def _apart_table(compared: Iterable[Row], folder: str) -> Table:
    apart = sorted(filter(_is_apart, compared), key=lambda one: -one["difference"])
    return APART, [
        [
            f"[{one['study']}]({folder}/{one['study']}.md)",
            one["target"],
            one["method"],
            str(one["epochs"]),
            one["against"],
            EQUAL[one["equal"]],
            *unpaired_cells(one),
            probability(one["holm"]),
        ]
        for one in apart
    ]


def together_figure(compared: Sequence[Row]) -> Figure:
    """All differences with their intervals, sorted, a block for every kind of equality; blue where
    the method is ahead by an interval without 0, red where it is behind."""
    place, middles = 0, {}
    with style():
        figure, axes = sheet_with_axes(0.9 + 0.055 * (len(compared) + GAP * len(EQUAL)))
        for equal in reversed(_equals(compared)):
            block = [one for one in compared if one["equal"] == equal]
            for row, one in enumerate(block, start=place):
                colour = BLUE if one["low"] > 0 else RED if one["high"] < 0 else GREY
                axes.plot([100 * one["low"], 100 * one["high"]], [row, row], color=colour, lw=1.0)
                axes.plot(100 * one["difference"], row, "o", color=colour, ms=2.5)
            middles[EQUAL[equal]] = place + (len(block) - 1) / 2
            place += len(block) + GAP
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(axis="y", visible=False)
        axes.set_yticks(list(middles.values()), list(middles))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xscale("symlog", linthresh=TO_SCALE)
        axes.set_xticks(TICKS, [f"{tick:+d}" if tick else "0" for tick in TICKS])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("difference in test top-1, points, with 95 % intervals")
    return figure
