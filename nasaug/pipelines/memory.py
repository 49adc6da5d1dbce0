"""What `nasaug memory` says of a network: what every row needs, and whether all of it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nasaug.console import emit_json, emit_table, say
from nasaug.search import parse_memory
from nasaug.supernet import (
    Architecture,
    Fit,
    check_fit,
    flash_size,
    in_kb,
    load_target,
    macs,
    params,
    peak_memory,
    row_costs,
    row_flash,
    target_names,
)
from nasaug.training import load_weights
from nasaug.workspace import read_best

WEIGHTS, BEST = "weights.safetensors", "best.json"
TARGETS_CLASSES = 1000
NOT_COUNTED = (
    "Not counted: the program, its runtime and their scratch memory, which come on top of both."
)


class Asked(NamedTuple):
    """A network by its name, its path or its run, and what of it is to be otherwise (None: as it
    is; of a target 1000 classes)."""

    name: str
    classes: int | None = None
    resolution: int | None = None
    in_channels: int | None = None


def report_memory(
    asked: Asked,
    limits: tuple[str | None, str | None],
    in_place: bool,
    bits: int,
    plot: str | None,
    as_json: bool,
) -> bool:
    """Print what the network needs; whether it is within the `limits` on memory (in place if
    `in_place`) and flash, which is true where there are none.

    Raises: ValueError for what is no network, no amount of memory, or no picture's name; OSError.
    """
    most = _bytes(limits[0], "max-memory"), _bytes(limits[1], "max-flash")
    arch = _network(asked)
    fit = check_fit(arch, *most, bits, in_place)
    facts = _facts(arch, bits)
    if plot is not None:
        from nasaug.pictures import draw_memory

        draw_memory(arch, Path(plot), bits, fit.max_memory)
        facts["plot"] = plot
        say(f"the picture: {plot}")
    if as_json:
        given = {"memory": fit.max_memory, "flash": fit.max_flash}
        given = {name: value for name, value in given.items() if value is not None}
        verdict = {"fits": fit.fits, "limits": given, "spare": fit.spare, "in_place": in_place}
        emit_json({**facts, **(verdict if given else {})})
    else:
        _show(arch, facts, bits)
        if fit.spare:
            _judge(fit, check_fit(arch, *most, bits, in_place=True))
    return fit.fits


def _bytes(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else parse_memory(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _network(asked: Asked) -> Architecture:
    """Raises: ValueError for what is no network; OSError."""
    path = Path(asked.name)
    if asked.name not in target_names() and path.is_dir():
        inside = [path / file for file in (WEIGHTS, BEST) if (path / file).is_file()]
        if not inside:
            raise ValueError(
                f"{path} holds neither {WEIGHTS} nor {BEST}; name the folder of a finished run, or "
                "a target"
            )
        path = inside[0]
    if path.suffix == ".safetensors":
        arch = load_weights(path).arch
    elif path.suffix == ".json":
        found = read_best(path)["architecture"]
        try:
            arch = Architecture.from_dict(found)
        except ValueError as error:
            raise ValueError(f"{path} is not a search result: {error}") from None
    else:
        classes = asked.classes or TARGETS_CLASSES
        return load_target(asked.name, classes, asked.resolution, asked.in_channels)
    if asked.classes is not None:
        arch = arch.with_classes(asked.classes)
    size = arch.resolution if asked.resolution is None else asked.resolution
    channels = arch.in_channels if asked.in_channels is None else asked.in_channels
    return replace(arch, resolution=size, in_channels=channels)


def _facts(arch: Architecture, bits: int) -> dict[str, Any]:
    """All that is known of the network, in bytes; shapes are (channels, height, width)."""
    each = bits // 8
    costs = row_costs(arch)
    widths = (*arch.widths_in[1:], arch.num_classes)
    sizes = (*arch.sizes_in[1:], 1)
    rows: list[dict[str, Any]] = [
        {
            "row": arch.row_names[index],
            "kind": arch.rows[index].kind,
            "input": [arch.widths_in[index], *2 * [arch.sizes_in[index]]],
            "output": [widths[index], *2 * [sizes[index]]],
            "macs": cost.macs,
            "params": cost.params,
            "flash": row_flash(arch.rows[index], arch.widths_in[index], bits),
            "memory": each * cost.memory,
            "memory_in_place": each * cost.memory_in_place,
        }
        for index, cost in enumerate(costs)
    ]
    return {
        "network": arch.name,
        "resolution": arch.resolution,
        "classes": arch.num_classes,
        "bits": bits,
        "macs": macs(arch),
        "params": params(arch),
        "flash": flash_size(arch, bits),
        "peak_memory": peak_memory(arch, bytes_each=each),
        "peak_memory_in_place": peak_memory(arch, in_place=True, bytes_each=each),
        "peak_row": max(rows, key=lambda row: row["memory"])["row"],
        "peak_row_in_place": max(rows, key=lambda row: row["memory_in_place"])["row"],
        "rows": rows,
    }


def _show(arch: Architecture, facts: dict[str, Any], bits: int) -> None:
    """The table, its peaks marked, and what they come to."""
    table = [
        [
            row["row"],
            row["kind"],
            *(" x ".join(map(str, row[end])) for end in ("input", "output")),
            *(f"{row[cost]:,}" for cost in ("macs", "params", "flash")),
            _marked(row["memory"], row["row"] == facts["peak_row"]),
            _marked(row["memory_in_place"], row["row"] == facts["peak_row_in_place"]),
        ]
        for row in facts["rows"]
    ]
    kind = "int8" if bits == 8 else "float32"
    columns = ["row", "kind", "input", "output", "MACs", "parameters", "flash (bytes)"]
    columns += ["memory (bytes)", "in place (bytes)"]
    size = f"{arch.resolution} x {arch.resolution}"
    title = f"{arch.name} at {size}, {facts['classes']} classes, {kind}, batch 1"
    emit_table(title, columns, table, left=4)
    print(
        f"\nmemory  {in_kb(facts['peak_memory'])} at its peak (<), in {facts['peak_row']}; "
        f"{in_kb(facts['peak_memory_in_place'])} in place, in {facts['peak_row_in_place']}\n"
        f"flash   {in_kb(facts['flash'])} of {kind} weights\n{NOT_COUNTED}"
    )


def _marked(value: int, peak: bool) -> str:
    return f"{value:,} {'<' if peak else ' '}"


def _judge(fit: Fit, tight: Fit) -> None:
    """Whether it fits, by how much, and whether it would in place."""
    print(f"{'fits' if fit.fits else 'does not fit'}: {fit}")
    if not fit.fits and tight.fits:
        print(f"in place it fits: {tight}")
