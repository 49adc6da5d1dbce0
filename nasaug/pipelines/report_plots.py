"""What a search's report draws: judgements over costs, history, importances, effort."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

from nasaug.pictures import (
    Point,
    Quantity,
    cost_figure,
    history_figure,
    importance_figure,
    inline_svg,
    supernet_figure,
)
from nasaug.pipelines import page
from nasaug.pipelines.importances import chance, variance_explained
from nasaug.pipelines.searched import COSTS, Judged, Searched
from nasaug.pipelines.supernet import least_member
from nasaug.search import format_macs
from nasaug.supernet import Architecture, macs, params, peak_memory
from nasaug.training import RunFolder

FEWEST_FOR_IMPORTANCES = 8
QUANTITIES = {
    "macs": Quantity("MACs", lambda value: format_macs(round(value))),
    "params": Quantity("parameters", lambda value: f"{value:,.0f}"),
    "memory": Quantity("peak int8 memory (KB)", lambda value: f"{value / 1024:,.1f}"),
    "flash": Quantity("int8 flash (KB)", lambda value: f"{value / 1024:,.1f}"),
    "latency": Quantity("predicted latency (ms)", lambda value: f"{value / 1e6:,.3f}"),
    "accuracy": Quantity(
        "validation top-1 (%)",
        lambda value: f"{100 * value:.2f}",
        lambda value: f"{100 * value:.4g}",
    ),
    "help": Quantity("help to the target", lambda value: f"{value:.4g}"),
}


def limits_in_words(searched: Searched) -> str:
    """`at most 3,000,000 MACs, at most 64.0 KB ...`."""
    words = {"least_macs": "at least", "macs": "at most"}
    parts = []
    for name in ("least_macs", *COSTS):
        if name in searched.limits:
            quantity = QUANTITIES[name.removeprefix("least_")]
            value = searched.limits[name]
            text = f"{value:,}" if quantity.name == "MACs" else quantity.say(value)
            parts.append(f"{words.get(name, 'at most')} {text} {quantity.name}")
    return ", ".join(parts) or "no limit"


def over_costs(searched: Searched) -> str:
    """A plot for MACs and for every other cost that is limited or an objective, and for a second
    judgement."""
    first = searched.objectives[0]
    wanted = {"macs", *searched.limits, *searched.objectives} - {"least_macs", first}
    winner = searched.winner
    parts = []
    for name in [*COSTS, "accuracy", "help"]:
        points = _points(searched, name, first)
        if name not in wanted or not points:
            continue
        svg = inline_svg(
            cost_figure(
                points,
                QUANTITIES[name],
                QUANTITIES[first],
                (searched.limits.get(f"least_{name}"), searched.limits.get(name)),
                None if winner is None else winner.number,
                smaller_is_better=name in COSTS,
            ),
            f"over-{name}",
        )
        parts.append(page.figure(svg, f"{first} over {QUANTITIES[name].name}"))
    return page.side_by_side(parts) + page.paragraph(
        "Shaded: what the limits forbid. Nothing there was ever evaluated; every candidate is "
        "feasible by construction.",
        "note",
    )


def _points(searched: Searched, cost: str, value: str) -> list[Point]:
    points = []
    for trial in searched.judged:
        numbers = {**trial.costs, **trial.values}
        if cost in numbers and value in trial.values:
            points.append(
                Point(trial.number, float(numbers[cost]), trial.values[value], trial.pruned)
            )
    return points


def _judgements(searched: Searched) -> list[str]:
    """The objectives that are judged, not counted."""
    return [name for name in searched.objectives if name not in COSTS]


def history(searched: Searched) -> str:
    parts = [
        page.figure(
            inline_svg(
                history_figure(_points(searched, "macs", name), QUANTITIES[name]), f"history-{name}"
            ),
            f"{name} in the order of the trials",
        )
        for name in _judgements(searched)
    ]
    counts = {
        "judged in full": searched.count(TrialState.COMPLETE),
        "dropped early": searched.count(TrialState.PRUNED),
        "failed": searched.count(TrialState.FAIL),
        "running or waiting": searched.count(TrialState.RUNNING)
        + searched.count(TrialState.WAITING),
    }
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    repeated = searched.count(TrialState.COMPLETE) - len(searched.ranked)
    text += f"; {repeated} repeated an architecture and cost nothing" if repeated else ""
    return page.side_by_side(parts) + page.paragraph(f"Trials: {text}.", "note")


def importances(searched: Searched) -> str:
    """Dropped trials count with their interim judgements: without them only good ones remain."""
    parts, least = [], FEWEST_FOR_IMPORTANCES
    for name in _judgements(searched):
        first = {trial.path: trial for trial in reversed(searched.judged) if name in trial.values}
        if len(first) < least:
            return page.paragraph(
                f"{len(first)} architectures are too few to say; at least {least} are needed."
            )
        decisions = [searched.space.parameters(path) for path in first]
        values = [trial.values[name] for trial in first.values()]
        shares, strokes = variance_explained(decisions, values), chance(decisions, values)
        svg = inline_svg(importance_figure(shares, strokes, QUANTITIES[name]), f"matter-{name}")
        parts.append(page.figure(svg, f"decisions that explain {name}"))
    return page.side_by_side(parts) + page.paragraph(
        f"Omega squared of each decision alone, over {len(first)} architectures. A bar that ends "
        "before its stroke is no more than chance gives (95 % of 200 shuffles).",
        "note",
    )


def effort(searched: Searched, winner: Judged | None) -> str:
    least = "smallest member" if searched.space.is_table else "target"
    archs: list[tuple[str, Architecture, int | None]] = [(least, searched.target, None)]
    if winner is not None:
        archs.append(("winner", searched.architecture(winner), winner.costs.get("latency")))
    archs.append(("largest member", searched.space.largest.canonical(), None))
    head = ["network", "MACs", "parameters", QUANTITIES["memory"].name]
    rows = [
        [name, f"{macs(a):,}", f"{params(a):,}", QUANTITIES["memory"].say(peak_memory(a))]
        for name, a, _ in archs
    ]
    if any(latency is not None for _, _, latency in archs):
        head.append(QUANTITIES["latency"].name)
        for row, (_, _, latency) in zip(rows, archs, strict=True):
            row.append("" if latency is None else QUANTITIES["latency"].say(latency))
    table = page.table(head, rows)
    metrics = RunFolder(searched.folder / "supernet", writes=False).metrics()
    return table + page.facts(_times(searched, metrics)) + _training(searched, metrics)


def _training(searched: Searched, metrics: list[dict[str, Any]]) -> str:
    """The supernet's losses, and the smallest member's accuracy inside it where every epoch has
    one: up, that is the target."""
    names = [name for name in (metrics[-1] if metrics else ()) if name.startswith("loss_")]
    epochs = [row for row in metrics if all(name in row for name in ("epoch", *names))]
    if not names:
        return ""
    losses = {name.removeprefix("loss_"): [float(row[name]) for row in epochs] for name in names}
    key = f"{least_member(searched.space)}_top1"
    top1 = [float(row[key]) for row in epochs if key in row]
    svg = supernet_figure(
        [float(row["epoch"]) for row in epochs],
        losses,
        top1 if len(top1) == len(epochs) else [],
        "the smallest member" if searched.space.is_table else "the target",
    )
    return page.figure(inline_svg(svg, "supernet"), "the supernet's training")


def _times(searched: Searched, metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    pairs = []
    seconds = [float(row["seconds"]) for row in metrics if "seconds" in row]
    if seconds:
        epochs = f"{len(seconds)} epochs"
        pairs.append(("supernet's training", f"{_duration(sum(seconds))} ({epochs})"))
    ended = [t for t in searched.trials if t.datetime_start and t.datetime_complete]
    if ended:
        spent = sum((t.duration.total_seconds() for t in ended if t.duration), 0.0)
        pairs.append(("evaluating", f"{_duration(spent)} of trials ({len(ended)} ended)"))
    images = [t.user_attrs["images"] for t in searched.trials if "images" in t.user_attrs]
    if images:
        pairs.append(("image evaluations", f"{sum(images):,}"))
    workers = {t.user_attrs["worker"] for t in searched.trials if "worker" in t.user_attrs}
    if workers:
        pairs.append(("workers", str(len(workers))))
    return pairs


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
