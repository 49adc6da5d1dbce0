"""The graph that the choices of a space span.

A node is the width of the features after a row, an edge a choice for the next row, a path from
source to sink one architecture. Bounds and counts of completions are worked out once, backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.choices import RowChoices
from nasaug.supernet.costs import row_cost
from nasaug.supernet.rows import Row

NodeKey = tuple[int, int, bool]
Layer = dict[NodeKey, "Node"]
Price = Callable[[Row, int, int], int]


@dataclass(eq=False, slots=True, repr=False)
class Edge:
    """One choice at one node. `choice` is its index among the row's choices; costs at batch 1.

    memory, flash: bytes; latency: nanoseconds, 0 where the space has no price.
    """

    choice: int
    row: Row
    head: Node
    macs: int
    params: int
    memory: int
    flash: int
    latency: int


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """Features after `row_index` rows. `open`: the stage may still grow by the next extra row.

    `edges` are the distinct choices; `table` holds for every choice index the edge that it means,
    since rounding makes some choices equal. MACs bounds and the count are over completions.
    """

    row_index: int
    width: int
    open: bool
    edges: list[Edge] = field(default_factory=list)
    table: list[Edge | None] = field(default_factory=list)
    cheapest: int = 0
    dearest: int = 0
    count: int = 1

    @property
    def key(self) -> tuple[int, int, bool]:
        return self.row_index, self.width, self.open


def build_layers(
    target: Architecture, rows: Sequence[RowChoices], price: Price | None = None
) -> list[Layer]:
    """Layers of nodes from the input to the logits; the first and the last have one node each."""
    first = Node(0, target.in_channels, True)
    layers: list[Layer] = [{first.key: first}]
    size = target.resolution
    for index, row in enumerate(rows):
        next_is_optional = index + 1 < len(rows) and rows[index + 1].optional
        heads: Layer = {}
        for node in layers[-1].values():
            _expand(node, row, size, next_is_optional, heads, price)
        layers.append(heads)
        for leaf in row.template.leaves(1):
            size = leaf.out_size(size)
    for layer in reversed(layers[:-1]):
        for node in layer.values():
            node.cheapest = min(edge.macs + edge.head.cheapest for edge in node.edges)
            node.dearest = max(edge.macs + edge.head.dearest for edge in node.edges)
            node.count = sum(edge.head.count for edge in node.edges)
    return layers


def _expand(
    node: Node,
    row: RowChoices,
    size: int,
    next_is_optional: bool,
    heads: Layer,
    price: Price | None,
) -> None:
    """Give `node` its edges for `row`, whose input is `size` x `size`; new heads go to `heads`."""
    distinct: dict[Row, Edge] = {}
    for index, choice in enumerate(row.choices):
        if row.optional and choice.present and not node.open:
            node.table.append(None)
            continue
        made = row.realise(choice, node.width)
        if made not in distinct:
            is_open = choice.present or not next_is_optional
            key = (node.row_index + 1, made.out_channels(node.width), is_open)
            head = heads.setdefault(key, Node(*key))
            cost = row_cost(made, node.width, size)
            latency = price(made, node.width, size) if price is not None else 0
            edge = Edge(index, made, head, cost.macs, cost.params, cost.memory, cost.flash, latency)
            distinct[made] = edge
            node.edges.append(edge)
        node.table.append(distinct[made])
