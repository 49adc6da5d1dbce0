"""A space's graph without the edges that a memory limit forbids, and its bounds on every cost.

Peak memory is the maximum over the rows, so a limit on it forbids single edges. What cannot reach
the sink any more is dropped too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nasaug.supernet.graph import Edge, Layer, Node
from nasaug.supernet.limits import ADDITIVE


@dataclass(frozen=True)
class Bounded:
    """`layers` from source to sink, `edges` of a node by its id, and for every additive cost the
    cheapest (`low`) and dearest (`high`) completion from a node, by the node's id.
    """

    layers: list[list[Node]]
    edges: dict[int, list[Edge]]
    low: dict[str, dict[int, int]]
    high: dict[str, dict[int, int]]

    @property
    def source(self) -> Node:
        return self.layers[0][0]

    @property
    def edge_count(self) -> int:
        return sum(map(len, self.edges.values()))

    def excess(self, cost: str, node: Node, edge: Edge) -> int:
        """What `edge` costs beyond the cheapest completion from `node`."""
        low = self.low[cost]
        spent: int = getattr(edge, cost) + low[id(edge.head)] - low[id(node)]
        return spent

    def unit(self, cost: str) -> int:
        """The greatest common divisor of all excesses: what is spent comes in these steps."""
        divisor = 0
        for layer in self.layers[:-1]:
            for node in layer:
                for edge in self.edges[id(node)]:
                    divisor = math.gcd(divisor, self.excess(cost, node, edge))
        return max(1, divisor)


def bound(layers: Sequence[Layer], memory: int | None) -> Bounded | None:
    """The graph within `memory` bytes; None when no path is left."""
    edges: dict[int, list[Edge]] = {}
    low: dict[str, dict[int, int]] = {cost: {} for cost in ADDITIVE}
    high: dict[str, dict[int, int]] = {cost: {} for cost in ADDITIVE}
    alive: list[list[Node]] = []
    for layer in reversed(layers):
        alive.append([])
        for node in layer.values():
            kept = [
                edge
                for edge in node.edges
                if id(edge.head) in edges and (memory is None or edge.memory <= memory)
            ]
            if node.edges and not kept:
                continue
            edges[id(node)] = kept
            alive[-1].append(node)
            for cost in ADDITIVE:
                ends = [
                    (getattr(edge, cost), low[cost][id(edge.head)], high[cost][id(edge.head)])
                    for edge in kept
                ] or [(0, 0, 0)]
                low[cost][id(node)] = min(own + cheapest for own, cheapest, _ in ends)
                high[cost][id(node)] = max(own + dearest for own, _, dearest in ends)
    return Bounded(alive[::-1], edges, low, high) if alive[-1] else None


def least_memory(layers: Sequence[Layer]) -> int:
    """The least peak memory of any path, in bytes."""
    least: dict[int, int] = {}
    for layer in reversed(layers):
        for node in layer.values():
            ends = [max(edge.memory, least[id(edge.head)]) for edge in node.edges]
            least[id(node)] = min(ends, default=0)
    return least[id(next(iter(layers[0].values())))]
