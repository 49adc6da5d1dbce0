"""Measuring a latency table: rows, then whole networks to fit its scale and to judge it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nasaug.config import SearchConfig
from nasaug.console import emit_json, emit_table, progress_bar, say
from nasaug.devices import (
    Agreement,
    Backend,
    LatencyTable,
    SamplesFile,
    Timing,
    calibrate,
    check_conditions,
    conditions_of,
    disturbed,
    draw_networks,
    empty_run,
    format_latency,
    judge,
    load_latency_table,
    measure_networks,
    measure_rows,
    open_backend,
    rows_of,
    write_csv,
)
from nasaug.search import format_macs
from nasaug.supernet import Architecture, SearchSpace, macs
from nasaug.training import keep_caches, write_atomically

CALIBRATION = 10
FEWEST = 3
JUDGEMENT = ("validated_on", "spearman", "mape_percent")


@dataclass(frozen=True)
class Order:
    """How to measure; `validate` networks are measured whole (0: none)."""

    backend: str
    threads: int
    repeats: int
    validate: int


@dataclass(frozen=True)
class Networks:
    """What is measured whole: to fit the scale, and to judge the table."""

    fit: list[Architecture]
    judged: list[Architecture]


def measure_table(
    config: SearchConfig, classes: int, order: Order, out: str, resume: bool, as_json: bool
) -> None:
    """Raises: ValueError for bad input, a missing package, a table that would be overwritten."""
    path = Path(out)
    repeats_path = path.with_name(f"{path.name}.repeats.jsonl")
    _check_place(path, repeats_path, resume)
    if 0 < order.validate < FEWEST:
        raise ValueError(f"--validate must be 0 or at least {FEWEST}, but got {order.validate}")
    arch = config.make_target(classes)
    space = config.space.build(arch)
    networks = _draw(space, order, config.seed)
    # As every other command runs a network. Otherwise glibc hands freed activations back to the
    # kernel or not as the heap happens to lie, and the same row takes 4 ms in one network and 11 in
    # the next.
    keep_caches()
    with open_backend(order.backend, order.threads) as backend:
        conditions = conditions_of(order.backend, backend.versions, order.threads)
        earlier = LatencyTable({})
        if path.exists():
            earlier = load_latency_table(path)
            check_conditions(str(path), earlier.facts, conditions)
        kept = SamplesFile(repeats_path, conditions)
        table, measured, noisy = _measured_rows(backend, space, earlier, kept, order)
        table, timings = _fitted(backend, table, networks, order)
    agreement = judge(table, networks.judged, timings) if networks.judged else None
    facts = _facts(earlier, conditions, space, len(networks.fit), order.repeats, agreement)
    table = LatencyTable(table.timings, table.scale, table.overhead, facts)
    write_atomically(path, write_csv(table))
    repeats_path.unlink(missing_ok=True)
    if noisy:
        say(
            f"{noisy} rows have fewer than {order.repeats} undisturbed repeats: the machine is "
            "busy; a quiet one gives a better table"
        )
    result = _result(path, table, arch, measured, noisy, agreement)
    if as_json:
        emit_json(result)
    else:
        _show(result, table, networks.judged, timings)


def _check_place(path: Path, repeats: Path, resume: bool) -> None:
    """Before anything is measured."""
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}; make it first")
    if resume and not (path.exists() or repeats.exists()):
        say(f"no earlier measurement of {path} was found; starting a new one")
    for there in (path, repeats):
        if there.exists() and not resume:
            raise ValueError(
                f"{there} exists; add --resume to go on with it or to extend it, "
                "or name another --out"
            )


def _draw(space: SearchSpace, order: Order, seed: int) -> Networks:
    rng = random.Random(f"latency-table {seed}")
    count = max(1, min(CALIBRATION, space.count() - order.validate))
    fit = draw_networks(space, count, rng)
    return Networks(fit, draw_networks(space, order.validate, rng, without=fit))


def _measured_rows(
    backend: Backend, space: SearchSpace, earlier: LatencyTable, kept: SamplesFile, order: Order
) -> tuple[LatencyTable, int, int]:
    """The table, how many of its rows were measured now, and how many of these are noisy."""
    wanted = rows_of(space) - set(earlier.timings)
    samples = kept.read()
    with kept.appending() as note, progress_bar("rows (repeats)") as bar:
        found = measure_rows(
            backend,
            space,
            wanted,
            samples,
            random.Random(0),
            order.repeats,
            note,
            lambda done, total: bar(done, total, {}),
        )
    noisy = disturbed(samples, wanted, order.repeats)
    timings = {**earlier.timings, **found}
    return LatencyTable(timings, overhead=empty_run(samples)), len(found), noisy


def _fitted(
    backend: Backend, table: LatencyTable, networks: Networks, order: Order
) -> tuple[LatencyTable, list[Timing]]:
    """The table with its scale, and the timings of the networks that it is judged by."""
    whole = [*networks.fit, *networks.judged]
    with progress_bar("networks (repeats)") as bar:
        timings = measure_networks(
            backend,
            whole,
            random.Random(0),
            order.repeats,
            lambda done, total: bar(done, total, {}),
        )
    split = len(networks.fit)
    return calibrate(table, networks.fit, timings[:split]), timings[split:]


def _facts(
    earlier: LatencyTable,
    conditions: dict[str, str],
    space: SearchSpace,
    fitted: int,
    repeats: int,
    agreement: Agreement | None,
) -> dict[str, str]:
    before = {key: value for key, value in earlier.facts.items() if key not in JUDGEMENT}
    targets = [name for name in before.get("targets", "").split(", ") if name]
    whose = space.name if space.is_table else f"around {space.name}"
    facts = {
        **before,
        **conditions,
        "nasaug": version("nasaug"),
        "measured": date.today().isoformat(),
        "targets": ", ".join(dict.fromkeys([*targets, space.name])),
        "repeats": str(repeats),
        "scaled_on": f"{fitted} networks of the space {whose}",
    }
    if agreement is not None:
        facts["validated_on"] = f"{agreement.networks} other networks of that space"
        facts["spearman"] = f"{agreement.spearman:.4f}"
        facts["mape_percent"] = f"{100 * agreement.mape:.2f}"
    return facts


def _result(
    path: Path,
    table: LatencyTable,
    arch: Architecture,
    measured: int,
    noisy: int,
    agreement: Agreement | None,
) -> dict[str, Any]:
    return {
        "table": str(path),
        "target": arch.name,
        "resolution": arch.resolution,
        **{key: table.facts[key] for key in ("device", "backend", "versions")},
        "threads": int(table.facts["threads"]),
        "rows": len(table.timings),
        "rows_measured": measured,
        "rows_disturbed": noisy,
        "scale": table.scale,
        "overhead_ns": table.overhead,
        "target_ns": table.predict(arch),
        "validation": asdict(agreement) if agreement is not None else None,
    }


def _show(
    result: dict[str, Any],
    table: LatencyTable,
    networks: Sequence[Architecture],
    timings: Sequence[Timing],
) -> None:
    where = f"{result['device']}, {result['versions']}, threads: {result['threads']}"
    if networks:
        rows = []
        for index, (arch, timing) in enumerate(zip(networks, timings, strict=True)):
            predicted = table.predict(arch)
            error = predicted / timing.median - 1
            times = (format_latency(timing.median), format_latency(predicted))
            rows.append([f"{index}", format_macs(macs(arch)), *times, f"{error:+.1%}"])
        columns = ("network", "MACs", "measured", "predicted", "error")
        emit_table(f"Whole networks on {where}", columns, rows)
        judged = result["validation"]
        print(
            f"\nSpearman {judged['spearman']:.3f}, mean absolute percentage error "
            f"{judged['mape']:.1%} on {judged['networks']} networks that the table has not seen"
        )
    print(
        f"{result['table']}: {result['rows']} rows, {result['rows_measured']} of them measured "
        f"now; {result['target']} takes {format_latency(result['target_ns'])}"
    )
