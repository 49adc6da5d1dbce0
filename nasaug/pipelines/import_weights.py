"""Importing weights: a foreign state dict becomes a `weights.safetensors` with its architecture.

Where no target of ours has a name for the network, its table is written too, for `--target`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml
from torch import Tensor

from nasaug.console import emit_json, emit_table, say
from nasaug.supernet import (
    Architecture,
    Network,
    did_you_mean,
    fill,
    load_published,
    load_target,
    load_torchvision,
    macs,
    params,
    published_classes,
    torchvision_networks,
)
from nasaug.training import read_state_dict, save_weights, write_atomically

# Whose batch norms add another number to variances than ours.
OTHER_NORMS = ("mobilenet_v3_large", "mobilenet_v3_small")


def run_import(
    file: str, kind: str, out: str, target: str | None, resolution: int | None, as_json: bool
) -> None:
    """Raises: ValueError for a format that is unknown, a file that is damaged, would run code or is
    of another network, and for an --out that exists or is no .safetensors; OSError."""
    weights = Path(out)
    if weights.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, but got {out}")
    net = _read(Path(file), kind, target, resolution)
    # Where neither the caller nor a table of ours has a name for it.
    table = (
        weights.with_suffix(".yaml")
        if target is None and net.arch.name in torchvision_networks()
        else None
    )
    for written in (weights, table):
        if written is not None and written.exists():
            raise ValueError(f"{written} exists; choose another --out, or remove it")
    weights.parent.mkdir(parents=True, exist_ok=True)
    known = target or net.arch.name
    facts = {"target": known, "resolution": net.arch.resolution, "imported": kind}
    save_weights(weights, net, facts)
    if table is not None:
        write_atomically(table, yaml.safe_dump(net.arch.to_dict(), sort_keys=False))
    _show(net.arch, kind, file, weights, str(table or known), as_json)


def _read(path: Path, kind: str, target: str | None, resolution: int | None) -> Network:
    """The network in the file. Raises: ValueError."""
    library, _, name = kind.partition(":")
    if library != "torchvision" and kind not in FORMATS:
        raise ValueError(f"unknown format {kind!r}: {did_you_mean(kind, FORMATS)}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is no file; name a state dict")
    tensors, _ = read_state_dict(path)
    if library != "torchvision":
        return BY_TARGET[kind](tensors, _told(target, tensors, path, resolution))
    net = load_torchvision(tensors, name, resolution or 224)
    _check_target(net.arch, target, path)
    if name in OTHER_NORMS:
        say(
            f"{name} of torchvision adds 0.001 to the variances of its batch norms, ours 0.00001; "
            "the difference is in the running variances, so that the logits are equal until they "
            "are taken anew, as nasaug train does"
        )
    return net


def _show(
    arch: Architecture, kind: str, file: str, weights: Path, target: str, as_json: bool
) -> None:
    result = {
        "weights": str(weights),
        "format": kind,
        "file": file,
        "target": target,
        "classes": arch.num_classes,
        "in_channels": arch.in_channels,
        "resolution": arch.resolution,
        "macs": macs(arch),
        "params": params(arch),
    }
    if as_json:
        emit_json(result)
        return
    row = [kind, target, f"{arch.num_classes:,}", f"{arch.resolution}"]
    row += [f"{result['macs']:,}", f"{result['params']:,}"]
    columns = ("format", "target", "classes", "resolution", "MACs", "parameters")
    emit_table(f"Imported: {weights}", columns, [row], left=2)
    say(f"next: nasaug evaluate {weights}, or nasaug train --target {target} --init {weights}")


def _told(
    target: str | None, tensors: Mapping[str, Tensor], path: Path, resolution: int | None
) -> Architecture:
    """The target that weights which do not say it are of, for their own number of classes."""
    if target is None:
        raise ValueError(f"{path} does not say what it is of; add --target")
    return load_target(target, published_classes(tensors) or 1000, resolution)


def _from_timm(tensors: Mapping[str, Tensor], arch: Architecture) -> Network:
    """What a program of timm's made of a model of `nasaug.timm_models`: our names, and a count of
    batches in each norm, which ours do not have."""
    kept = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    stem = kept.get("blocks.0.conv.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] in (1, 3):
        arch = replace(arch, in_channels=stem.shape[1])
    return fill(Network(arch.canonical(), init=None), kept)


def _check_target(arch: Architecture, target: str | None, path: Path) -> None:
    if target is None:
        return
    wanted = load_target(target, arch.num_classes, arch.resolution, arch.in_channels)
    if wanted != arch:
        raise ValueError(
            f"{path} holds {arch.name}, whose rows are not those of {target}; leave --target out"
        )


BY_TARGET: dict[str, Callable[[Mapping[str, Tensor], Architecture], Network]] = {
    "netaug": load_published,
    "timm": _from_timm,
}
"""Formats whose files do not say what network they are of."""
FORMATS = (*BY_TARGET, *(f"torchvision:{name}" for name in torchvision_networks()))
