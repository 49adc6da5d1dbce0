"""Where a target's weights start when they are not fresh: at those of a run, or of a file.

Transfer learning begins with the weights of another training and a head for one's own classes;
fine-tuning what a search down found begins with the weights that it inherited (Once-for-All,
Section 3.4); a finished training can be gone on with by another recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from nasaug.given_weights import given_weights
from nasaug.supernet import (
    Architecture,
    Network,
    load_published,
    published_classes,
    read_pickle_safely,
)
from nasaug.training import (
    Batch,
    Losses,
    State,
    Step,
    load_weights,
    read_facts,
    read_json_object,
)


class Start(NamedTuple):
    """A target with weights, and in words where they come from."""

    net: Network
    said: str


def started_from(
    place: str, target: Architecture, classes: Sequence[str], generator: torch.Generator
) -> Start:
    """`target` with the weights of `place`: a finished run's folder (or the best.json in it), a
    weights file, a checkpoint of the NetAug authors' (any file that is no .safetensors), or the
    name of weights that come with the package.

    `classes` are the names of those to be told apart. Where the weights are for others the
    classifier is new: that of a fresh network drawn from `generator`. Weights of ours say their
    names, those of older releases by themselves and authors' only their number.

    Raises: ValueError if there are none, or they are of another network; the resolution may
        differ.
    """
    try:
        path = given_weights(place)
    except ValueError as error:
        raise ValueError(f"--init {place}: {error}; or choose fresh or supernet") from None
    theirs = load_weights(path) if path.suffix == ".safetensors" else _published(path, target)
    ours = target.canonical()
    difference = _difference(theirs.arch.canonical().with_classes(ours.num_classes), ours)
    if difference is not None:
        raise ValueError(
            f"--init {place}: the weights are not of {target.name}, but of {theirs.arch.name}: "
            f"{difference}; choose the --target that they are of (a search down: its folder), or "
            "leave --init out"
        )
    said = f"from the weights of {place}"
    replaced = _replaced(theirs.arch.num_classes, _class_names(path), classes)
    if replaced is None:
        net = Network(ours, init=None)
        net.load_state_dict(theirs.state_dict())
        return Start(net, said)
    net = Network(ours, "fan_out", generator)
    for block, other in zip(net.blocks[:-1], theirs.blocks[:-1], strict=True):
        block.load_state_dict(other.state_dict())
    said += f", with a new head for {ours.num_classes} classes in place of {replaced}"
    return Start(net, said)


def keep_features(net: Network) -> None:
    """Have all but the classifier untrained: no gradient reaches it, no decay."""
    for block in net.blocks[:-1]:
        block.requires_grad_(False)


def on_kept_features(step: Step) -> Step:
    """`step`, with what the classifier reads as it is in the shipped network: batch norms use, and
    leave as they are, the statistics that came with the weights."""

    def kept(net: Network, batch: Batch, state: State) -> Losses:
        for block in net.blocks[:-1]:
            block.eval()
        return step(net, batch, state)

    return kept


def _replaced(theirs: int, names: object, ours: Sequence[str]) -> str | None:
    """In words, which classes a head is of that cannot be kept; None where it can."""
    if theirs != len(ours):
        return str(theirs)
    return f"{theirs} others" if names is not None and names != list(ours) else None


def _class_names(weights: Path) -> object:
    """What the weights say of themselves, or else the run's metrics beside them; None where neither
    does."""
    if weights.suffix == ".safetensors" and "classes" in (facts := read_facts(weights)):
        return facts["classes"]
    metrics = weights.with_name("metrics.json")
    if weights.name != "weights.safetensors" or not metrics.exists():
        return None
    return read_json_object(metrics).get("classes")


def _published(path: Path, target: Architecture) -> Network:
    """An authors' checkpoint of `target`, for as many classes as it has."""
    given = read_pickle_safely(path)
    return load_published(
        given, target.with_classes(published_classes(given) or target.num_classes)
    )


def _difference(theirs: Architecture, ours: Architecture) -> str | None:
    """In a few words, what tells two networks apart besides their resolution and classes."""
    if theirs.in_channels != ours.in_channels:
        return (
            f"they read {theirs.in_channels} channels, not {ours.in_channels} (set in_channels="
            f"{theirs.in_channels})"
        )
    if len(theirs.rows) != len(ours.rows):
        return f"they have {len(theirs.rows)} rows, not {len(ours.rows)}"
    for name, row, own in zip(ours.row_names, theirs.rows, ours.rows, strict=True):
        if row != own:
            return f"{name} differs"
    return None
