"""What a row needs of a small device: activation memory while it runs, flash for its weights.

A row is read as the operations that it runs, in order. One operation is a convolution or a linear
layer with its norm and activation (int8 kernels clamp where they round), a pool, the product of
squeeze-and-excitation, or a sum. A tensor lives from the operation that makes it to the last one
that reads it; while an operation runs, what it makes is alive beside all that it must not lose.
Rows hand on a single tensor, so that a network's peak is the largest of its rows'. Scratch of the
kernels (such as im2col) is the runtime's own affair and not counted.

In place is what TinyEngine does (MCUNet, Lin et al., NeurIPS 2020, Section 3.2): a depthwise
convolution mixes no channels, so that it can copy a channel away and write its result over it. That
takes one channel of its input beside the whole input, (C + 1) H W in place of 2 C H W, with stride
2 too. A sum or a product writes over its first operand. None of them may where somebody reads the
operand later, as the input of a residual row, or would where it takes more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nasaug.supernet.leaves import BoostedLeaf, ConvLeaf, Leaf, LinearLeaf, SqueezeLeaf
from nasaug.supernet.rows import Row


class Shipped(NamedTuple):
    """Bytes of a weight, a bias, and the scale that every output channel has."""

    weight: int
    bias: int
    scale: int


BITS = {8: Shipped(1, 4, 4), 32: Shipped(4, 4, 0)}
"""int8 with a float32 scale a channel and int32 biases (Jacob et al., CVPR 2018), and float32."""


class RowMemory(NamedTuple):
    """The most values that are alive while a row runs, at one byte each: bytes of int8."""

    plain: int
    in_place: int


class Operation(NamedTuple):
    """One operation of a row.

    `reads` are tensors by number: 0 is the row's input, n the result of the n-th operation;
    `values` is the size of its own result. `spare`: the values that it needs to write over the
    first of `reads` instead of making a tensor; None where it cannot.
    """

    name: str
    reads: tuple[int, ...]
    values: int
    spare: int | None = None


def row_memory(row: Row, in_channels: int, size: int) -> RowMemory:
    """The peaks of `row` reading (in_channels, size, size), batch 1; 0 of an absent row."""
    operations = row_operations(row, in_channels, size)
    sizes = [in_channels * size**2, *(operation.values for operation in operations)]
    last = {tensor: step for step, made in enumerate(operations) for tensor in made.reads}
    plain = in_place = 0
    alive = {0}
    for step, operation in enumerate(operations):
        kept = sum(sizes[tensor] for tensor in alive)
        more, over = operation.values, operation.reads[0]
        plain = max(plain, kept + more)
        if operation.spare is not None and last[over] == step:
            assert sizes[over] >= operation.values
            more = min(more, operation.spare)
        in_place = max(in_place, kept + more)
        alive = {one for one in (*alive, step + 1) if last.get(one, len(operations)) > step}
    return RowMemory(plain, in_place)


def row_operations(row: Row, in_channels: int, size: int) -> list[Operation]:
    """What `row` runs, reading (in_channels, size, size); a shortcut convolution runs after the
    branch, as in `Network`."""
    tape: list[Operation] = []
    result, side = 0, size
    for leaf in row.leaves(in_channels):
        result = _run(tape, leaf, result, side)
        side = leaf.out_size(side)
    if row.residual:
        shortcut = row.shortcut(in_channels)
        other = 0 if shortcut is None else _run(tape, shortcut, 0, size)
        tape.append(Operation("sum", (result, other), tape[result - 1].values, spare=0))
    return tape


def row_flash(row: Row, in_channels: int, bits: int = 8) -> int:
    """Bytes of the row's weights as they are shipped: norms folded into weights and biases, a scale
    for every output channel where they are int8.

    Raises: ValueError for other `bits` than 8 (int8) and 32 (float32).
    """
    if bits not in BITS:
        raise ValueError(f"weights are shipped in 8 bits (int8) or 32 (float32), but got {bits!r}")
    each, shortcut = BITS[bits], row.shortcut(in_channels)
    leaves = (*row.leaves(in_channels), *([] if shortcut is None else [shortcut]))
    return sum(
        weights * each.weight + channels * (each.bias * biased + each.scale)
        for leaf in leaves
        for weights, channels, biased in _kernels(leaf)
    )


def _run(tape: list[Operation], leaf: Leaf, x: int, side: int) -> int:
    """Put what `leaf` does to the tensor `x`, side x side, on the tape; the result's number."""

    def add(name: str, reads: tuple[int, ...], values: int, spare: int | None = None) -> int:
        tape.append(Operation(name, reads, values, spare))
        return len(tape)

    values = leaf.out_channels * leaf.out_size(side) ** 2
    if isinstance(leaf, SqueezeLeaf):
        mean = add(f"{leaf.name}.mean", (x,), leaf.channels)
        reduced = add(f"{leaf.name}.reduce", (mean,), leaf.squeeze)
        scale = add(f"{leaf.name}.restore", (reduced,), leaf.channels)
        return add(f"{leaf.name}.scale", (x, scale), values, spare=0)
    if isinstance(leaf, BoostedLeaf):
        y = x
        for part in leaf.parts:
            y = _run(tape, part, y, side)
            side = part.out_size(side)
        return add(f"{leaf.name}.sum", (y, x), values, spare=0) if leaf.shortcut else y
    alone = isinstance(leaf, ConvLeaf) and leaf.groups == leaf.in_channels == leaf.out_channels
    return add(leaf.name, (x,), values, spare=side**2 if alone else None)


def _kernels(leaf: Leaf) -> Iterator[tuple[int, int, bool]]:
    """(weights, output channels, whether it has biases) of every convolution and linear layer."""
    if isinstance(leaf, ConvLeaf):
        yield leaf.weights, leaf.out_channels, leaf.norm or leaf.bias
    elif isinstance(leaf, LinearLeaf):
        yield leaf.in_channels * leaf.out_channels, leaf.out_channels, True
    elif isinstance(leaf, SqueezeLeaf):
        for channels in (leaf.squeeze, leaf.channels):
            yield leaf.channels * leaf.squeeze, channels, True
    elif isinstance(leaf, BoostedLeaf):
        for part in leaf.parts:
            yield from _kernels(part)
