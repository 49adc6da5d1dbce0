"""The members of a space within limits: how many, uniform draws, walks that end inside.

Limits on several costs are counted jointly, since each can be met alone where no member meets all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import scipy  # its parts are loaded when they are used: scipy.stats takes half a second

from nasaug.supernet.bounds import Bounded, bound, least_memory
from nasaug.supernet.counting import PathTable, exact_count, resources_of
from nasaug.supernet.graph import Edge, Layer
from nasaug.supernet.limits import ADDITIVE, Infeasible, Limits
from nasaug.supernet.pareto import least_together

WITNESS_DRAWS = 20_000
ESTIMATE_DRAWS = 10_000
WALKS = 100
WORDS = {"macs": "MACs", "params": "parameters", "flash": "bytes of flash", "latency": "ns"}
OPTIONS = {
    "macs": "budget",
    "params": "max-params",
    "flash": "max-flash",
    "latency": "max-latency",
}

ChoicePath = tuple[int, ...]
Pick = Callable[[int, list[Edge]], Edge]


@dataclass(frozen=True)
class Count:
    """How many members there are; where not `exact`, an estimate with a 95 % interval."""

    value: int
    exact: bool
    low: int
    high: int


class Words(NamedTuple):
    """What an error calls the least of a space: whose cost it is, and what would make it less."""

    whose: str
    remedy: str


class Region:
    """Made by `SearchSpace.within`. `drawn` and `accepted` count the draws so far.

    Raises: Infeasible, naming the limit that no member meets and its least feasible value, or the
        limits that no member meets together.
    """

    def __init__(self, layers: Sequence[Layer], limits: Limits, words: Words) -> None:
        self.limits = limits
        self.drawn = self.accepted = 0
        _check_alone(layers, limits, words)
        graph = bound(layers, limits.memory)
        assert graph is not None
        self._graph = graph
        self._binding = _binding(graph, limits)
        self._resources = resources_of(graph, self._binding)
        self._table = PathTable(graph, self._resources)
        if self._table.total == 0 or not self._has_witness():
            raise Infeasible(_say_together(graph, limits, self._table.total == 0))

    @property
    def acceptance(self) -> float:
        """The share of draws that were within the limits; 1.0 before the first."""
        return self.accepted / self.drawn if self.drawn else 1.0

    def contains(self, path: ChoicePath) -> bool:
        """Whether a path of the space meets the limits."""
        node, spent, memory = self._graph.source, dict.fromkeys(ADDITIVE, 0), 0
        for choice in path:
            edge = node.table[choice]
            assert edge is not None, f"{path} is no path of the space"
            for cost in ADDITIVE:
                spent[cost] += getattr(edge, cost)
            memory = max(memory, edge.memory)
            node = edge.head
        most_memory = self.limits.memory
        fits = most_memory is None or memory <= most_memory
        return fits and self._accepts([spent[one.cost] for one in self._resources])

    def sample_path(self, rng: random.Random) -> ChoicePath:
        """One member, uniform over all of them."""
        while (path := self._draw(rng)) is None:
            pass
        return path

    def walk(self, rng: random.Random, pick: Pick) -> ChoicePath:
        """A member chosen edge by edge: `pick(row index, edges)` is offered the edges from which
        some completion meets the limits. Rounding lets a walk end outside now and then: it is
        walked again, and after 100 times a member is drawn with `rng`.
        """
        for _ in range(WALKS):
            path = self._walk(pick)
            if path is not None:
                return path
        return self.sample_path(rng)

    def count(self) -> Count:
        """Exact where the grid of costs can be counted through in seconds, else estimated from the
        table's count and the share of 10,000 draws that was accepted.
        """
        exact = exact_count(self._graph, self._resources)
        if exact is not None:
            return Count(exact, True, exact, exact)
        rng = random.Random(0)
        hits = sum(self._draw(rng) is not None for _ in range(ESTIMATE_DRAWS))
        interval = scipy.stats.binomtest(hits, ESTIMATE_DRAWS).proportion_ci(0.95, "wilson")
        total = self._table.total
        low, high = (total * round(share * 10**9) // 10**9 for share in interval)
        return Count(total * hits // ESTIMATE_DRAWS, False, low, high)

    def _draw(self, rng: random.Random) -> ChoicePath | None:
        """One draw from the table, which rounding may have let in; None where it did."""
        path, node, left = [], self._graph.source, self._table.start
        spent = [0] * len(left)
        while node.edges:
            offers = self._table.offers(node)
            (index,) = rng.choices(range(len(offers.edges)), offers.weights(left))
            edge, left = offers.edges[index], offers.after(index, left)
            for axis, resource in enumerate(self._resources):
                spent[axis] += getattr(edge, resource.cost)
            path.append(edge.choice)
            node = edge.head
        self.drawn += 1
        if not self._accepts(spent):
            return None
        self.accepted += 1
        return tuple(path)

    def _walk(self, pick: Pick) -> ChoicePath | None:
        path, node, left = [], self._graph.source, self._table.start
        spent = [0] * len(left)
        while node.edges:
            offers = self._table.offers(node)
            weights = offers.weights(left)
            edges = [
                edge
                for edge, weight in zip(offers.edges, weights, strict=True)
                if weight > 0 and self._may_complete(spent, edge)
            ]
            if not edges:
                return None
            edge = pick(node.row_index, edges)
            left = offers.after(offers.edges.index(edge), left)
            for axis, resource in enumerate(self._resources):
                spent[axis] += getattr(edge, resource.cost)
            path.append(edge.choice)
            node = edge.head
        return tuple(path) if self._accepts(spent) else None

    def _may_complete(self, spent: list[int], edge: Edge) -> bool:
        """Whether for each cost alone some completion after `edge` meets its limits: exact."""
        head = id(edge.head)
        return all(
            so_far + getattr(edge, one.cost) + self._graph.low[one.cost][head] <= one.most
            and so_far + getattr(edge, one.cost) + self._graph.high[one.cost][head] >= one.least
            for so_far, one in zip(spent, self._resources, strict=True)
        )

    def _accepts(self, spent: Sequence[int]) -> bool:
        return all(
            one.least <= total <= one.most
            for total, one in zip(spent, self._resources, strict=True)
        )

    def _has_witness(self) -> bool:
        """Whether some member is known to meet the limits."""
        if all(one.exact for one in self._resources):
            return True
        if len(self._resources) == 1 and self.limits.least_macs is None:
            return True  # the cheapest path
        rng = random.Random(0)
        return any(self._draw(rng) is not None for _ in range(WITNESS_DRAWS))


def _binding(graph: Bounded, limits: Limits) -> dict[str, tuple[int, int]]:
    """(least, most) of every additive cost that the limits restrict.

    Raises: Infeasible when a memory limit leaves no path that meets another limit.
    """
    source = id(graph.source)
    found = {}
    for cost in ADDITIVE:
        low, high = graph.low[cost][source], graph.high[cost][source]
        least, most = max(low, limits.least(cost) or low), min(high, limits.most(cost) or high)
        if least > high or most < low:
            raise Infeasible(
                f"each limit can be met alone, but no member meets all of them: {limits}; with the "
                f"limit on memory, members have {low:,} to {high:,} {WORDS[cost]}"
            )
        if (least, most) != (low, high):
            found[cost] = (least, most)
    return found


def _check_alone(layers: Sequence[Layer], limits: Limits, words: Words) -> None:
    """Raises: Infeasible naming the first limit that no member meets."""
    graph = bound(layers, None)
    assert graph is not None
    source = id(graph.source)
    if limits.memory is not None and limits.memory < (floor := least_memory(layers)):
        raise Infeasible(
            f"max-memory must be at least {floor:,} bytes, the least peak memory of any member, "
            f"but got {limits.memory:,}; raise --max-memory or {words.remedy}"
        )
    for cost in ADDITIVE:
        low, high = graph.low[cost][source], graph.high[cost][source]
        least, most = limits.least(cost), limits.most(cost)
        if most is not None and most < low:
            whose = "the fastest member's" if cost == "latency" else words.whose
            raise Infeasible(
                f"{OPTIONS[cost]} must be at least {whose} {low:,} {WORDS[cost]}, but got "
                f"{most:,}; raise --{OPTIONS[cost]} or {words.remedy}"
            )
        if least is not None and least > high:
            raise Infeasible(
                f"the budget's lower end must be at most {high:,} {WORDS[cost]}, the most of any "
                f"member, but got {least:,}; lower it or widen the space"
            )


def _say_together(graph: Bounded, limits: Limits, proven: bool) -> str:
    """The two limits that exclude each other, or all of them."""
    given = [
        (cost, sign, sign * value)
        for cost in ADDITIVE
        for sign, value in ((1, limits.most(cost)), (-1, limits.least(cost)))
        if value is not None
    ]
    text = f"each limit can be met alone, but no member meets all of them: {limits}"
    for (one, sign, limit), (other, other_sign, other_limit) in combinations(given, 2):
        if one == other:
            continue
        possible = least_together(graph, one, sign, limit, other, other_sign)
        if possible is not None and possible > other_limit:
            extreme, which = ("least", "at most") if other_sign > 0 else ("most", "at least")
            held = "at most" if sign > 0 else "at least"
            return (
                f"{text}; with {held} {sign * limit:,} {WORDS[one]} the {extreme} is "
                f"{other_sign * possible:,} {WORDS[other]}, not {which} "
                f"{other_sign * other_limit:,}"
            )
    if proven:
        return f"{text}; relax one of them"
    return (
        f"no member was found that meets {limits} (none of {WITNESS_DRAWS:,} draws from the paths "
        "that nearly do); widen the limits"
    )
