"""What `nasaug space` says of a search space: its rows, its size, what meets given limits."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from nasaug.config import SearchConfig
from nasaug.console import emit_json, emit_table, say
from nasaug.search import format_count, format_macs
from nasaug.supernet import Architecture, Count, Region, SearchSpace, params
from nasaug.workspace import read_best

SAMPLING_SECONDS = 1.0


def describe_space(
    config: SearchConfig,
    classes: int,
    limited: bool,
    picture: str | None,
    best: str | None,
    as_json: bool,
) -> None:
    """Raises: ValueError for an unknown target or space, choices that make no space, limits that no
    member meets, and a best.json of another space.
    """
    space = config.make_space(config.make_target(classes))
    facts = _facts(space, classes)
    if limited:
        facts |= _within(space, space.within(config.limits))
    if picture is not None:
        _draw(space, Path(picture), best)
        facts["picture"] = picture
    if as_json:
        decisions = {name: list(values) for name, values in space.decisions.items()}
        emit_json({**facts, "decisions": decisions})
    else:
        _show(space, facts, config)


def _facts(space: SearchSpace, classes: int) -> dict[str, Any]:
    graph = space.graph()
    return {
        "space" if space.is_table else "target": space.name,
        "resolution": space.target.resolution,
        "classes": classes,
        "members": space.count(),
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "macs_least": space.source.cheapest,
        "macs_most": space.source.dearest,
        "params_largest": params(space.largest),
    }


def _within(space: SearchSpace, region: Region) -> dict[str, Any]:
    """How many members meet the limits, and uniform draws a second."""
    count: Count = region.count()
    region.drawn = region.accepted = 0
    rng, drawn, start = random.Random(0), 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SAMPLING_SECONDS:
        region.sample_path(rng)
        drawn += 1
    return {
        "limits": region.limits.given,
        "feasible": count.value,
        "feasible_exact": count.exact,
        "feasible_interval": [count.low, count.high],
        "share": count.value / space.count(),
        "samples_per_second": drawn / seconds,
        "acceptance": region.acceptance,
    }


def _draw(space: SearchSpace, picture: Path, best: str | None) -> None:
    """Raises: ValueError for a file of another kind than .svg or .png; OSError."""
    from nasaug.pictures import draw_space

    winner = None
    if best is not None:
        place = Path(best)
        found = read_best(place / "best.json" if place.is_dir() else place)
        winner = Architecture.from_dict(found["architecture"])
    draw_space(space, picture, winner)
    say(f"the picture: {picture}")


def _show(space: SearchSpace, facts: dict[str, Any], config: SearchConfig) -> None:
    rows = []
    for row in space.rows:
        values = {n.rpartition(".")[2]: v for n, v in row.decisions.items()}
        text = [" ".join(map(str, values.get(k, ("-",)))) for k in ("width", "kernel", "expand")]
        rows.append([row.name, row.template.kind, *text, "yes" if row.optional else "-"])
    title, last, least = f"Space around {space.name}", "extra", "the target"
    if space.is_table:
        title, last, least = f"Space {space.name}", "may be absent", "the smallest"
    emit_table(title, ("row", "kind", "width", "kernel", "expand", last), rows, 6)
    print(
        f"\n{format_count(space.count())} members; from {format_macs(space.source.cheapest)} "
        f"({least}) to {format_macs(space.source.dearest)} MACs; a graph of "
        f"{facts['nodes']} nodes and {facts['edges']} edges"
    )
    if "feasible" not in facts:
        return
    low, high = facts["feasible_interval"]
    number = f"{format_count(facts['feasible'])} members"
    if not facts["feasible_exact"]:
        number += f" (estimated, 95 % interval {format_count(low)} to {format_count(high)})"
    print(
        f"{config.limits}: {number}, a share of {facts['share']:.3g}; "
        f"{facts['samples_per_second']:,.0f} uniform samples a second, "
        f"{facts['acceptance']:.1%} of the draws accepted"
    )
