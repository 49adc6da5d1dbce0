"""Which rows a search space is made of, and which of its networks together hold given rows."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from nasaug.devices.entries import RowKey
from nasaug.supernet import Architecture, SearchSpace, Skip


class _Step(NamedTuple):
    """The best way on from a node: how many wanted rows it passes, a tie-break, the first edge."""

    worth: int
    tie: float
    key: RowKey
    head: object


def rows_of(space: SearchSpace) -> frozenset[RowKey]:
    """Every distinct row with its input, over all members of `space`; absent rows cost nothing."""
    return frozenset(
        key
        for edges in _edges_by_node(space).values()
        for key, _ in edges
        if not isinstance(key.row, Skip)
    )


def networks_covering(
    space: SearchSpace, wanted: Collection[RowKey], rng: random.Random
) -> Iterator[Architecture]:
    """Few members of `space` that hold all `wanted` rows between them.

    Greedy: each passes as many rows that are still wanted as a path can, ties broken by `rng`, so
    that another call puts the same rows between other neighbours.

    Raises: ValueError for a wanted row that no member has.
    """
    edges_by_node = _edges_by_node(space)
    left = set(wanted)
    while left:
        best: dict[object, _Step] = {}
        for node in reversed(edges_by_node):
            steps = []
            for key, head in edges_by_node[node]:
                worth = (key in left) + (best[head].worth if head in best else 0)
                steps.append(_Step(worth, rng.random(), key, head))
            best[node] = max(steps, key=lambda step: (step.worth, step.tie))
        rows, node = [], next(iter(edges_by_node))
        if best[node].worth == 0:
            raise ValueError(f"no member of the space has {next(iter(left))}")
        while node in best:
            rows.append(best[node].key.row)
            left.discard(best[node].key)
            node = best[node].head
        yield replace(space.target, rows=tuple(rows), name="cover").canonical()


def _edges_by_node(space: SearchSpace) -> dict[object, list[tuple[RowKey, object]]]:
    """(row, node after it) by node, in the order of the rows; the last node has no edges."""
    graph = space.graph()
    sizes = space.largest.sizes_in
    edges: dict[object, list[tuple[RowKey, object]]] = {}
    for node in sorted(graph.nodes, key=lambda node: int(graph.nodes[node]["row"])):
        place = graph.nodes[node]
        for _, head, edge in graph.edges(node, data=True):
            key = RowKey(edge["row"], place["width"], sizes[place["row"]])
            edges.setdefault(node, []).append((key, head))
    return edges
