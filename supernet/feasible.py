"""Uniform sampling of the paths of a space that fit a budget.

The excess of an edge is what it costs beyond the cheapest completion from its tail; a path is
feasible when its excesses sum to at most budget - cheapest. Excesses are rounded *down* to quanta,
so the table counts every feasible path and a few infeasible ones; a drawn path is accepted on its
exact cost. With N rows at most N quanta are lost, which bounds the rejections.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from nasaug.supernet.graph import Edge, Layer, Node

QUANTA = 4096


class BudgetTable:
    """Path counts by quantised excess for one budget in MACs; `sample` draws from them.

    `drawn` and `accepted` count the draws so far.
    """

    def __init__(self, layers: list[Layer], budget: int) -> None:
        self._source = next(iter(layers[0].values()))
        self._budget = budget
        excess = budget - self._source.cheapest
        self._quantum = max(1, -(-excess // QUANTA))
        size = excess // self._quantum + 1
        self._offers: dict[
            int, tuple[list[Edge], NDArray[np.int64], list[NDArray[np.float64]]]
        ] = {}
        self.drawn = self.accepted = 0
        # counts[node][q]: paths from the node whose quantised excess is at most q. Scaled per
        # layer, since only ratios within a layer matter and the counts may exceed a float.
        counts = {id(node): np.ones(size) for node in layers[-1].values()}
        for layer in reversed(layers[:-1]):
            for node in layer.values():
                steps = np.array([self._quantised(node, edge) for edge in node.edges])
                ends = [counts[id(edge.head)] for edge in node.edges]
                self._offers[id(node)] = (node.edges, steps, ends)
                total = np.zeros(size)
                for step, end in zip(steps, ends, strict=True):
                    if step < size:
                        total[step:] += end[: size - step]
                counts[id(node)] = total
            scale = max(float(counts[id(node)][-1]) for node in layer.values())
            for node in layer.values():
                counts[id(node)] /= scale
        self._size = size

    @property
    def acceptance(self) -> float:
        """The share of draws that were within the budget; 1.0 before the first."""
        return self.accepted / self.drawn if self.drawn else 1.0

    def sample(self, rng: random.Random) -> tuple[int, ...]:
        """A path within the budget, uniform over all of them."""
        while True:
            self.drawn += 1
            path, cost = self._draw(rng)
            if cost <= self._budget:
                self.accepted += 1
                return path

    def _draw(self, rng: random.Random) -> tuple[tuple[int, ...], int]:
        path, cost, node, left = [], 0, self._source, self._size - 1
        while node.edges:
            edges, steps, ends = self._offers[id(node)]
            weights = [
                float(end[left - step]) if step <= left else 0.0
                for step, end in zip(steps.tolist(), ends, strict=True)
            ]
            (index,) = rng.choices(range(len(edges)), weights)
            edge = edges[index]
            path.append(edge.choice)
            cost += edge.macs
            left -= int(steps[index])
            node = edge.head
        return tuple(path), cost

    def _quantised(self, node: Node, edge: Edge) -> int:
        return (edge.macs + edge.head.cheapest - node.cheapest) // self._quantum
