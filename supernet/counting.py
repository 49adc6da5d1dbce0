"""Counting the paths of a space that meet limits on additive costs, one or several jointly.

The excess of an edge is what it costs beyond the cheapest completion from its tail; a path meets an
upper limit when its excesses sum to at most limit - cheapest. Excesses are rounded *down* to
quanta, so the table counts every feasible path and a few infeasible ones; with N rows at most N
quanta are lost. Where the quantum divides every excess nothing is lost and the count is exact.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasaug.supernet.bounds import Bounded
from nasaug.supernet.graph import Edge, Node

CELLS = {0: 1, 1: 4096, 2: 384, 3: 64, 4: 24}
"""Quanta a resource, by the number of resources: a node's table stays below 3 MB."""
EXACT_WORK = 5 * 10**9
EXACT_TOTAL = 1e30

Left = tuple[int, ...]


@dataclass(frozen=True)
class Resource:
    """An additive cost with limits that bind: from `least` to `most`, counted in `quantum`s."""

    cost: str
    least: int
    most: int
    slack: int
    unit: int
    quantum: int

    @property
    def cells(self) -> int:
        return self.slack // self.quantum + 1

    @property
    def exact(self) -> bool:
        return self.quantum == self.unit

    def may_remain(self, rows: int) -> int:
        """The most quanta that a path which meets the lower limit can have left at its end."""
        if not self.exact:
            return (self.most - self.least) // self.quantum + rows
        least_excess = self.slack - (self.most - self.least)
        return self.slack // self.quantum - -(-least_excess // self.quantum)


def resources_of(graph: Bounded, limits: dict[str, tuple[int, int]]) -> list[Resource]:
    """A resource for every cost in `limits` (least, most), with its quantum."""
    made = []
    for cost, (least, most) in limits.items():
        slack = most - graph.low[cost][id(graph.source)]
        unit = graph.unit(cost)
        quantum = unit * max(1, -(-slack // (unit * CELLS[len(limits)])))
        made.append(Resource(cost, least, most, slack, unit, quantum))
    return made


class Offers:
    """A node's edges, what each spends in quanta, and the table of the node it leads to."""

    def __init__(self, edges: list[Edge], steps: list[Left], ends: list[NDArray[Any]]) -> None:
        self.edges, self.steps, self.ends = edges, steps, ends
        strides = [stride // ends[0].itemsize for stride in ends[0].strides]
        self._strides = strides
        self._flat = [sum(map(operator.mul, step, strides)) for step in steps]

    def weights(self, left: Left) -> list[float]:
        """Per edge, the (scaled) number of completions with `left` quanta to spend."""
        place = sum(map(operator.mul, left, self._strides))
        return [
            end.item(place - spent) if all(map(operator.le, step, left)) else 0.0
            for step, spent, end in zip(self.steps, self._flat, self.ends, strict=True)
        ]

    def after(self, index: int, left: Left) -> Left:
        """The quanta left when edge `index` is taken."""
        return tuple(map(operator.sub, left, self.steps[index]))


class PathTable:
    """Completions of every node by the quanta left, scaled by a power of two a layer (only ratios
    within a layer matter, and the counts may exceed a float).
    """

    def __init__(self, graph: Bounded, resources: list[Resource]) -> None:
        self.start: Left = tuple(resource.slack // resource.quantum for resource in resources)
        self._offers: dict[int, Offers] = {}
        self._exponent = 0
        counts = {id(node): _ends(graph, resources, np.float64) for node in graph.layers[-1]}
        for layer in reversed(graph.layers[:-1]):
            for node in layer:
                offers = _offers(graph, resources, node, counts)
                self._offers[id(node)] = offers
                counts[id(node)] = _completions(offers.steps, offers.ends, resources)
            most = max(float(counts[id(node)].max()) for node in layer)
            shift = math.frexp(most)[1] if most > 0 else 0
            self._exponent += shift
            for node in layer:
                counts[id(node)] = np.ldexp(counts[id(node)], -shift)
        self._source = float(counts[id(graph.source)][self.start])

    def offers(self, node: Node) -> Offers:
        return self._offers[id(node)]

    @property
    def total(self) -> int:
        """How many paths are counted: all feasible ones, and those that rounding lets in."""
        mantissa, exponent = math.frexp(self._source)
        shift = exponent + self._exponent - 53
        scaled = int(math.ldexp(mantissa, 53))
        return scaled << shift if shift >= 0 else scaled >> -shift


def exact_count(graph: Bounded, resources: list[Resource]) -> int | None:
    """The number of feasible paths; None where the grid of exact costs is too large.

    Counted modulo 2**64, with a float beside it that says how often 2**64 fits.
    """
    if not resources:
        return _plain_count(graph)
    fine = [replace(resource, quantum=resource.unit) for resource in resources]
    if math.prod(resource.cells for resource in fine) * graph.edge_count > EXACT_WORK:
        return None
    start = tuple(resource.slack // resource.quantum for resource in fine)
    found = []
    for number in (np.uint64, np.float64):
        counts = {id(node): _ends(graph, fine, number) for node in graph.layers[-1]}
        for layer in reversed(graph.layers[:-1]):
            above = {}
            for node in layer:
                offers = _offers(graph, fine, node, counts)
                above[id(node)] = _completions(offers.steps, offers.ends, fine)
            counts = above
        found.append(counts[id(graph.source)][start])
    low, near = int(found[0]), float(found[1])
    if near > EXACT_TOTAL:
        return None
    return low + (round((near - low) / 2**64) << 64)


def _plain_count(graph: Bounded) -> int:
    counts = {id(node): 1 for node in graph.layers[-1]}
    for layer in reversed(graph.layers[:-1]):
        for node in layer:
            counts[id(node)] = sum(counts[id(edge.head)] for edge in graph.edges[id(node)])
    return counts[id(graph.source)]


def _ends(graph: Bounded, resources: list[Resource], number: type) -> NDArray[Any]:
    """At the sink: 1 where so few quanta are left that the lower limits may be met."""
    table: NDArray[Any] = np.ones([resource.cells for resource in resources], number)
    for axis, resource in enumerate(resources):
        beyond = [slice(None)] * len(resources)
        beyond[axis] = slice(resource.may_remain(len(graph.layers)) + 1, None)
        table[tuple(beyond)] = 0
    return table


def _offers(
    graph: Bounded, resources: list[Resource], node: Node, counts: dict[int, NDArray[Any]]
) -> Offers:
    edges = graph.edges[id(node)]
    steps = [
        tuple(graph.excess(one.cost, node, edge) // one.quantum for one in resources)
        for edge in edges
    ]
    return Offers(edges, steps, [counts[id(edge.head)] for edge in edges])


def _completions(
    steps: list[Left], ends: list[NDArray[Any]], resources: list[Resource]
) -> NDArray[Any]:
    shape = tuple(resource.cells for resource in resources)
    total = np.zeros(shape, ends[0].dtype)
    for step, end in zip(steps, ends, strict=True):
        if all(spent < cells for spent, cells in zip(step, shape, strict=True)):
            after = tuple(slice(spent, None) for spent in step)
            before = tuple(
                slice(0, cells - spent) for spent, cells in zip(step, shape, strict=True)
            )
            total[after] += end[before]
    return total
