"""Counting, and why counters disagree."""

from __future__ import annotations

from nasaug.console import emit_json, emit_table
from nasaug.supernet import count_with_fvcore, load_target, macs, params, peak_memory, row_costs

OTHER_COUNTERS = """
What is counted: multiply-accumulates (MACs) of convolutions and linear layers, batch 1, at
{size} x {size} with {classes} classes. Papers quote this number. Others differ because of
  norms and pools   fvcore's total counts them too: {total:,} here
  FLOPs             a multiply and an add counted apart: {flops:,}, twice the MACs
  resolution        MACs grow with its square; timm's tables use each model's own test size
  classifier        1000 classes for ImageNet, fewer for your data: the last row
"""


def count(
    target: str,
    classes: int,
    resolution: int | None,
    in_channels: int | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Print the costs of a target. Raises: ValueError for an unknown one."""
    arch = load_target(target, classes, resolution, in_channels)
    costs = row_costs(arch)
    counted = count_with_fvcore(arch)
    facts = {
        "target": arch.name,
        "macs": macs(arch),
        "params": params(arch),
        "resolution": arch.resolution,
        "classes": classes,
        "peak_memory": peak_memory(arch),
        "fvcore": {**counted, "total": sum(counted.values())},
    }
    if as_json:
        names = arch.row_names
        rows = [{"row": n, **vars(c)} for n, c in zip(names, costs, strict=True)] if explain else []
        emit_json({**facts, **({"rows": rows} if explain else {})})
        return
    if explain:
        table = [
            [name, row.kind, f"{size}", f"{width}", f"{c.macs:,}", f"{c.params:,}", f"{c.memory:,}"]
            for name, row, size, width, c in zip(
                arch.row_names, arch.rows, arch.sizes_in, arch.widths_in, costs, strict=True
            )
        ]
        table.append(
            ["total", "", "", "", f"{macs(arch):,}", f"{params(arch):,}", f"{peak_memory(arch):,}"]
        )
        columns = (
            "row",
            "kind",
            "size in",
            "width in",
            "MACs",
            "parameters",
            "int8 memory (bytes)",
        )
        emit_table(arch.name, columns, table, left=2)
        total = sum(counted.values())
        print(
            OTHER_COUNTERS.format(
                size=arch.resolution, classes=classes, total=total, flops=2 * macs(arch)
            )
        )
        return
    row = [arch.name, *(f"{v:,}" for v in (arch.resolution, macs(arch), params(arch)))]
    emit_table("", ("target", "resolution", "MACs", "parameters"), [row])
