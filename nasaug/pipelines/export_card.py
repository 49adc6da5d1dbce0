"""The model card beside an export: what it is, what it was made of and by, and how it was checked
(Mitchell et al., Model Cards for Model Reporting, FAT* 2019), as JSON and as Markdown.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasaug.comparing.formats import markdown_table
from nasaug.export import INT8, Check, Format, Model
from nasaug.pipelines.export_source import Source
from nasaug.supernet import Architecture, flash_size, macs, macs_at, params, peak_memory, row_costs
from nasaug.supernet.rows import row_to_dict

# What a run's result says of how it was trained.
TRAINED = ("method", "parts", "init", "inside", "seed", "train_macs", "train_seconds", "sparsity")
Card = Mapping[str, Any]


def card_of(
    source: Source,
    model: Model,
    formats: Mapping[str, Format],
    folder: Path,
    checks: Mapping[str, Check],
    int8: Sequence[Mapping[str, Any]],
    latency: Mapping[str, Any] | None,
    command: str,
) -> dict[str, Any]:
    """All of it as plain data. `checks` are by file, as `latency` is."""
    arch, described = model.folded.arch, model.described
    training = {key: source.result[key] for key in TRAINED if key in source.result}
    recipe = source.config.get("train")
    if isinstance(recipe, dict):
        training |= {key: recipe[key] for key in ("epochs", "batch_size", "lr") if key in recipe}
    return {
        "target": source.facts.get("target", arch.name),
        "name": described.name,
        "origin": source.origin,
        "finished": source.finished,
        "input": {
            "channels": arch.in_channels,
            "resolution": arch.resolution,
            "layout": "NCHW, float32",
            "mean": list(described.mean),
            "std": list(described.std),
        },
        "classes": list(described.classes),
        "rows": _rows(arch),
        "training": {
            "data": source.facts.get("data", "not known"),
            **training,
            "largest": source.inside.get("largest"),
        },
        "accuracy": _accuracy(source),
        "costs": {
            "macs": macs(arch),
            "params": params(arch),
            "folded_params": sum(tensor.numel() for tensor in model.tensors.values()),
            "peak_memory_int8_bytes": peak_memory(arch),
            "flash_float32_bytes": flash_size(arch, 32),
            "flash_int8_bytes": flash_size(arch, 8),
            "deployment_resolution": source.net.arch.resolution,
            "macs_at_deployment": macs_at(arch, source.net.arch.resolution),
        },
        "files": _files(folder, formats, described.name),
        "checks": {name: {**vars(check), "passed": check.passed} for name, check in checks.items()},
        "checked_on": f"test images of {source.data.name}",
        "int8": [dict(one) for one in int8],
        "latency": latency,
        "versions": _versions(formats),
        "command": command,
    }


def markdown_of(card: Card) -> str:
    """The card for people."""
    size, costs = card["input"], card["costs"]
    shape = f"{size['channels']} x {size['resolution']} x {size['resolution']}"
    parts = [
        f"# {card['name']}",
        f"{_plain(card['target'])} for {len(card['classes'])} classes, reading images of {shape}. "
        f"Exported from {_plain(card['origin'])} by\n\n    {card['command']}",
        "## Input",
        f"{shape}, float32, channels before pixels. From values between 0 and 1 subtract the mean "
        f"{_numbers(size['mean'])} and divide by {_numbers(size['std'])}, channel by channel. "
        f"Classes, in the order of the logits: {', '.join(map(_plain, card['classes']))}.",
        "## Training",
        _pairs(card["training"]),
        "## Accuracy",
        _pairs(_percent(card["accuracy"])) if card["accuracy"] else "Not known: no run says it.",
        "## Costs",
        _pairs(costs),
        "## Files",
        markdown_table(
            (
                ("file", "format", "batch", "bytes", "sha256"),
                [
                    [*(str(one[key]) for key in FILED), f"{one['bytes']:,}", one["sha256"]]
                    for one in card["files"]
                ],
            ),
            3,
        ),
        "## Checks",
        f"Logits of the files against those of the evaluated network, on {card['checked_on']}. The "
        "difference is the largest of any logit, in standard deviations from image to image.",
        markdown_table((CHECKED, checks_table(card)), 1),
    ]
    if card["int8"]:
        parts += ["## int8", markdown_table((QUANTISED, int8_table(card)), 1)]
    if card["latency"]:
        parts += [
            f"## Latency\n\n{where_of(card)}",
            markdown_table((TIMED, latency_table(card)), 1),
        ]
    rows = [
        [row["row"], _row(row["table"]), str(row["size_in"]), f"{row['macs']:,}"]
        for row in card["rows"]
    ]
    parts += ["## Rows", markdown_table((("row", "as a table's", "size in", "MACs"), rows), 2)]
    parts += ["## Versions", _pairs(card["versions"])]
    return "\n\n".join(parts) + "\n"


FILED = ("file", "format", "batch")
CHECKED = ("file", "images", "largest difference", "allowed", "same prediction (%)")
QUANTISED = (
    "format", "top-1 (%)", "int8 top-1 (%)", "difference (points)", "95 % interval", "images",
    "bytes", "int8 bytes", "calibration",
)  # fmt: skip
TIMED = ("file", "median (ms)", "90th percentile (ms)", "repeats")


def checks_table(card: Card) -> list[list[str]]:
    return [
        [
            name,
            f"{one['images']:,}",
            f"{one['difference']:.1e}",
            "by top-1" if one["tolerance"] is None else f"{one['tolerance']:.0e}",
            f"{100 * one['agreement']:.2f}",
        ]
        for name, one in card["checks"].items()
    ]


def int8_table(card: Card) -> list[list[str]]:
    return [
        [
            one["format"],
            f"{100 * one['top1_before']:.2f}",
            f"{100 * one['top1_after']:.2f}",
            f"{100 * one['difference']:+.2f}",
            f"{100 * one['low']:+.2f} to {100 * one['high']:+.2f}",
            f"{one['images']:,}",
            f"{one['bytes_before']:,}",
            f"{one['bytes_after']:,}",
            f"{one['calibration']}, {one['calibration_images']} images",
        ]
        for one in card["int8"]
    ]


def latency_table(card: Card) -> list[list[str]]:
    return [
        [
            row["file"],
            *(f"{row[key] / 1e6:.3f}" for key in ("median_ns", "p90_ns")),
            f"{row['repeats']}",
        ]
        for row in card["latency"]["rows"]
    ]


def where_of(card: Card) -> str:
    taken = card["latency"]
    return f"One image at a time on {taken['device']}, threads: {taken['threads']}."


def _rows(arch: Architecture) -> list[dict[str, Any]]:
    cells = zip(arch.row_names, arch.rows, arch.sizes_in, row_costs(arch), strict=True)
    return [
        {"row": name, "table": row_to_dict(row), "size_in": size, "macs": cost.macs}
        for name, row, size, cost in cells
    ]


def _accuracy(source: Source) -> dict[str, Any] | None:
    """As the run judged it: on the test images (a search down: on validation images)."""
    result = source.result
    told = ("top1", "top5", "loss", "bn_images")
    known: dict[str, Any] = {key: result[key] for key in told if key in result}
    if "accuracy" in result:
        known["validation_top1"] = result["accuracy"]
    if not known:
        return None
    return {**known, "data": result.get("data"), "resolution": result.get("train_resolution")}


def _files(folder: Path, formats: Mapping[str, Format], name: str) -> list[dict[str, Any]]:
    found = []
    for kind, form in formats.items():
        for path in (*form.files(folder / name), *form.files(folder / f"{name}{INT8}")):
            if path.exists():
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                batch = "any" if form.batch else 1
                entry = {"file": path.name, "format": kind, "batch": batch, "bytes": len(data)}
                found.append(entry | {"sha256": digest})
    return found


def _versions(formats: Mapping[str, Format]) -> dict[str, str]:
    names = ["nasaug", "torch", "numpy", *(name for f in formats.values() for name in f.versions)]
    found = {name: _version(name) for name in dict.fromkeys(names)}
    if "onnx" in formats:
        from nasaug.devices.onnx_graph import OPSET

        found["onnx opset"] = str(OPSET)
    return {"python": platform.python_version(), **found}


def _version(name: str) -> str:
    """Of a package; some are the same module under another name (onnxruntime-gpu)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _row(values: Mapping[str, Any]) -> str:
    options = " ".join(f"{key}={value}" for key, value in values.items() if key != "kind")
    return f"{values['kind']} {options}".rstrip()


def _percent(values: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracies as tables have them."""
    return {
        f"{key} (%)" if "top" in key else key: f"{100 * value:.2f}" if "top" in key else value
        for key, value in values.items()
    }


def _pairs(values: Mapping[str, Any]) -> str:
    shown = {key.replace("_", " "): value for key, value in values.items() if value is not None}
    rows = [[key, _shown(value)] for key, value in shown.items()]
    return markdown_table((("", ""), rows), 1)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else _plain(value)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _plain(text: Any) -> str:
    """Text from elsewhere in a line of Markdown, no tag of HTML in it."""
    return html.escape(" ".join(str(text).split()), quote=False)
