"""Sorting the features between rows, so that a narrower network keeps the most important ones.

What rows hand on is a stream: a residual row adds to the stream it reads, any other row begins a
new one. The channels of a stream may be put in any order, if all that write and read it agree.
Here the order is by importance, the L1 norm of all weights that read a channel, largest first
(Once-for-All, Cai et al., ICLR 2020, sorts inner channels so; see `sorting.py`). The whole network
computes the same function before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nasaug.supernet.leaves import BoostedLeaf, ConvLeaf, Leaf, LinearLeaf, SqueezeLeaf
from nasaug.supernet.network import Network

NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass
class Stream:
    """Names of tensors: those that have its channels, with the dimension, and of these the ones
    that read it by a dense convolution or the classifier."""

    moved: list[tuple[str, int]] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


def sort_features(net: Network, companions: Sequence[Mapping[str, Tensor]] = ()) -> None:
    """Sort every stream in place, stably, so that sorting twice changes nothing more.

    `companions` are mappings from parameter names to tensors that must move along: momentum
    buffers, averaged weights. A name that is missing there is passed over.

    Raises: ValueError for a network with boosted rows.
    """
    own = net.state_dict(keep_vars=True)
    with torch.no_grad():
        for stream in streams(net):
            order = _importance(own, stream).argsort(descending=True, stable=True)
            for name, dim in stream.moved:
                for tensor in (own.get(name), *(mapping.get(name) for mapping in companions)):
                    if tensor is not None:
                        tensor.copy_(tensor.index_select(dim, order))


def streams(net: Network) -> Iterator[Stream]:
    """Those of a network between its first and its last dense layer, in order."""
    stream: Stream | None = None  # the image's channels have their order
    for index, (row, width) in enumerate(zip(net.arch.rows, net.arch.widths_in, strict=True)):
        leaves = _named(index, row.leaves(width))
        if not any(map(_is_dense, leaves.values())):
            _through(stream, leaves.items())
            continue
        shortcut = row.shortcut(width)
        paths = [leaves] if shortcut is None else [leaves, _named(index, (shortcut,))]
        before, stays = stream, row.residual and shortcut is None
        for path in paths:
            _read(before, path)
        if not stays:
            if before is not None:
                yield before
            stream = Stream()
        for path in paths:
            _write(stream, path)
    # What the last layer writes are the classes.


def _named(index: int, leaves: Iterable[Leaf]) -> dict[str, Leaf]:
    return {f"blocks.{index}.{leaf.name}": leaf for leaf in leaves}


def _is_dense(leaf: Leaf) -> bool:
    if isinstance(leaf, BoostedLeaf):
        raise ValueError("features of a network with boosted rows cannot be sorted")
    return isinstance(leaf, LinearLeaf) or (isinstance(leaf, ConvLeaf) and leaf.groups == 1)


def _read(stream: Stream | None, path: Mapping[str, Leaf]) -> None:
    """Up to the first dense leaf, which reads the channels; those before keep them."""
    for name, leaf in path.items():
        if _is_dense(leaf):
            if stream is not None:
                stream.moved.append((f"{name}.weight", 1))
                stream.readers.append(f"{name}.weight")
            return
        _through(stream, [(name, leaf)])


def _write(stream: Stream | None, path: Mapping[str, Leaf]) -> None:
    """From the last dense leaf on, which makes the channels."""
    for name, leaf in reversed(list(path.items())):
        _through(stream, [(name, leaf)])
        if _is_dense(leaf):
            return


def _through(stream: Stream | None, leaves: Iterable[tuple[str, Leaf]]) -> None:
    """Tensors whose output has the stream's channels."""
    if stream is None:
        return
    for name, leaf in leaves:
        if isinstance(leaf, ConvLeaf | LinearLeaf):
            stream.moved += [(f"{name}.weight", 0), (f"{name}.bias", 0)]
            stream.moved += [
                (f"{name}.{norm}.{t}", 0) for norm in ("norm", "own_norm") for t in NORM
            ]
        elif isinstance(leaf, SqueezeLeaf):
            stream.moved += [(f"{name}.reduce.weight", 1), (f"{name}.restore.weight", 0)]
            stream.moved.append((f"{name}.restore.bias", 0))


def _importance(own: Mapping[str, Tensor], stream: Stream) -> Tensor:
    """(channels,): the L1 norm of the weights that read each."""
    norms = [own[name].abs().transpose(0, 1).flatten(1).sum(1) for name in stream.readers]
    return torch.stack(norms).sum(0)
