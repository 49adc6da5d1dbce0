"""A search space: per-row choices and the graph that they span.

The space of single-path one-shot search (Guo et al., ECCV 2020) is a directed acyclic graph: a node
is the width of the features after a row, an edge a choice for the next row, an architecture one
path from source to sink. Costs are sums over edges, so bounds, counts and feasible sampling are
exact and cheap. The same class holds NetAug's helpers (`between`), the search's largest networks
(`around`), and what is searched top-down, tied to no target (`table`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx

from nasaug.supernet.architecture import Architecture, embed
from nasaug.supernet.choices import RowChoices, Value
from nasaug.supernet.graph import Edge, Node, NodeKey, Price, build_layers
from nasaug.supernet.limits import Limits
from nasaug.supernet.region import ChoicePath, Region, Words
from nasaug.supernet.surroundings import rows_around, rows_between
from nasaug.supernet.table import make_table

KEPT_REGIONS = 4
"""Tables of path counts that a space keeps: up to 3 MB a node each."""


class SearchSpace:
    """All architectures that `rows` allow; made by `around`, `between` or `table`.

    A path is a tuple of choice indices, one a row. Every member has the space's number of rows,
    absent ones being `Skip`, and contains `target`, which of a table is the smallest member.
    `name` is the target's or the table's.
    """

    def __init__(
        self,
        target: Architecture,
        rows: Sequence[RowChoices],
        price: Price | None = None,
        table: str | None = None,
    ) -> None:
        self.rows = tuple(rows)
        self.name = target.name if table is None else table
        self.is_table = table is not None
        self.is_priced = price is not None
        self._canonical_target = target.canonical()
        self._layers = build_layers(self._canonical_target, self.rows, price)
        self._regions: dict[Limits, Region] = {}

    @classmethod
    def around(
        cls,
        target: Architecture,
        width: Sequence[float] = (1.0, 1.8, 2.6),
        expand: Sequence[float] = (1.0, 1.6, 2.2, 2.8),
        kernel_growth: Sequence[int] = (0, 2),
        extra_depth: Sequence[int] = (0, 1),
        divisor: int = 8,
    ) -> SearchSpace:
        """Everything from `target` up to the given factors.

        width, expand: factors of at least 1, with 1 among them; kernel_growth: even amounts added
        to depthwise kernels; extra_depth: 0, 1, ... residual rows more at each stage's end.

        Raises: ValueError for factors that would not contain the target.
        """
        target = target.canonical()
        return cls(target, rows_around(target, width, expand, kernel_growth, extra_depth, divisor))

    @classmethod
    def between(
        cls,
        target: Architecture,
        largest: Architecture,
        width: Sequence[float] = (1.0, 1.8, 2.6),
        expand: Sequence[float] = (1.0, 1.6, 2.2, 2.8),
        divisor: int = 8,
    ) -> SearchSpace:
        """NetAug's helpers: from `target` up to `largest`, in the steps of the given factors.

        Where a factor list goes beyond 1, the largest's own value is among the choices. Kernels go
        from the target's to the largest's, rows that the target lacks may be absent.

        Raises: ValueError naming the first row where `largest` does not contain `target`.
        """
        target, largest = target.canonical(), largest.canonical()
        return cls(target, rows_between(target, largest, width, expand, divisor))

    @classmethod
    def table(
        cls,
        table: Mapping[str, Any] | str | Path,
        num_classes: int = 1000,
        resolution: int | None = None,
        in_channels: int | None = None,
    ) -> SearchSpace:
        """What a table of choices allows: plain data, or a YAML file's path (see `notation.py`).

        `resolution` and `in_channels` (1 or 3) replace the table's own where given.

        Raises: ValueError naming the row and what is wrong with it; FileNotFoundError.
        """
        made = make_table(table, num_classes, resolution, in_channels)
        return cls(made.smallest, made.rows, table=made.name)

    def priced(self, price: Price) -> SearchSpace:
        """The same space with a latency on every edge: `price(row, in_channels, size)` in ns."""
        table = self.name if self.is_table else None
        return SearchSpace(self._canonical_target, self.rows, price, table)

    @cached_property
    def target(self) -> Architecture:
        """What every member contains, aligned to the space's rows: the target, or the smallest
        member of a table."""
        return self.embed(self._canonical_target)

    @cached_property
    def largest(self) -> Architecture:
        """The member with the largest value in every decision; it contains all the others."""
        path, node = [], self.source
        for row in self.rows:
            edge = node.table[len(row.choices) - 1]
            assert edge is not None
            path.append(edge.choice)
            node = edge.head
        return self.architecture(tuple(path), f"{self.name}-largest")

    @property
    def source(self) -> Node:
        return next(iter(self._layers[0].values()))

    @cached_property
    def decisions(self) -> dict[str, tuple[Value, ...]]:
        """All decisions that vary, by name (`stage2.block1.expand`), with their values."""
        return {name: values for row in self.rows for name, values in row.decisions.items()}

    def embed(self, arch: Architecture) -> Architecture:
        """`arch` aligned to the space's rows; an absent row is `Skip`.

        Raises: ValueError if it is not inside the space's largest architecture.
        """
        return embed(arch, self.largest)

    def path(self, arch: Architecture) -> ChoicePath:
        """The path of a member. Raises: ValueError naming the row that is no choice here."""
        path, node = [], self.source
        for choices, row in zip(self.rows, self.embed(arch).rows, strict=True):
            edge = next((edge for edge in node.edges if edge.row == row), None)
            if edge is None:
                raise ValueError(f"{arch.name} is not in the space: {choices.name} is {row}")
            path.append(edge.choice)
            node = edge.head
        return tuple(path)

    def architecture(self, path: ChoicePath, name: str | None = None) -> Architecture:
        """The member that a path stands for, aligned to the space's rows."""
        rows = tuple(edge.row for edge in self.edges_of(path))
        name = name or f"{self.name}-member"
        return replace(self._canonical_target, rows=rows, name=name)

    def macs(self, path: ChoicePath) -> int:
        """MACs of a path, batch 1, at the target's resolution: microseconds."""
        total, node = 0, self.source
        for choice in path:
            edge = node.table[choice]
            total += edge.macs  # type: ignore[union-attr]
            node = edge.head  # type: ignore[union-attr]
        return total

    def params(self, path: ChoicePath) -> int:
        """Trainable parameters of a path."""
        return sum(edge.params for edge in self.edges_of(path))

    def memory(self, path: ChoicePath) -> int:
        """Peak activation memory of int8 inference in bytes."""
        return max(edge.memory for edge in self.edges_of(path))

    def flash(self, path: ChoicePath) -> int:
        """Bytes of its int8 weights as shipped."""
        return sum(edge.flash for edge in self.edges_of(path))

    def latency(self, path: ChoicePath) -> int:
        """Nanoseconds. Raises: ValueError for a space without a price."""
        if not self.is_priced:
            raise ValueError("the space has no latency: give it a latency table (`priced`)")
        return sum(edge.latency for edge in self.edges_of(path))

    def costs(self, path: ChoicePath) -> dict[str, int]:
        """macs, params, memory, flash, and latency where the space is priced."""
        costs = {"macs": self.macs(path), "params": self.params(path)}
        costs |= {"memory": self.memory(path), "flash": self.flash(path)}
        return costs | ({"latency": self.latency(path)} if self.is_priced else {})

    def latencies_digest(self) -> str | None:
        """Tells latency tables apart; None for a space without a price."""
        if not self.is_priced:
            return None
        found = [
            edge.latency for layer in self._layers for node in layer.values() for edge in node.edges
        ]
        return hashlib.blake2b(repr(found).encode(), digest_size=16).hexdigest()

    def edges_of(self, path: ChoicePath) -> list[Edge]:
        """Raises: ValueError for a path that breaks the prefix rule or has a wrong length."""
        edges, node = [], self.source
        for index, choice in enumerate(path):
            edge = node.table[choice] if index < len(self.rows) else None
            if edge is None:
                raise ValueError(f"{path} is no path of the space: row {index}")
            edges.append(edge)
            node = edge.head
        if len(path) != len(self.rows):
            raise ValueError(f"a path has {len(self.rows)} choices, but got {len(path)}")
        return edges

    def parameters(self, path: ChoicePath) -> dict[str, Value]:
        """The path as named decisions; those of an absent row have their first value."""
        values: dict[str, Value] = {}
        for row, index in zip(self.rows, path, strict=True):
            choice = row.choices[index]._asdict()
            for name, options in row.decisions.items():
                value = choice[name.rpartition(".")[2]]
                values[name] = options[0] if value is None else value
        return values

    def path_of(self, values: dict[str, Value]) -> ChoicePath:
        """The path that named decisions stand for, each choice replaced by its first equal.

        Raises: KeyError for a missing decision; ValueError for one that is no path.
        """
        path, node = [], self.source
        for row in self.rows:
            given = {name.rpartition(".")[2]: values[name] for name in row.decisions}
            edge = None
            if node.open or not given.get("present", False):
                edge = node.table[row.choices.index(row.choose(given))]
            if edge is None:
                raise ValueError(f"{row.name} cannot be present when the row before it is absent")
            path.append(edge.choice)
            node = edge.head
        return tuple(path)

    def sample(self, rng: random.Random, budget: int | None = None) -> Architecture:
        """One member, drawn uniformly from those within `budget` MACs (all when None).

        Raises: Infeasible.
        """
        return self.architecture(self.sample_path(rng, budget))

    def sample_path(self, rng: random.Random, budget: int | None = None) -> ChoicePath:
        """As `sample`, as a path."""
        return self.within(Limits(macs=budget)).sample_path(rng)

    def within(self, limits: Limits) -> Region:
        """The members that meet `limits`; the last few regions are kept.

        Raises: Infeasible; ValueError for a limit on the latency of a space without a price.
        """
        if limits.latency is not None and not self.is_priced:
            raise ValueError(
                "a limit on latency needs a latency table; make one with nasaug latency-table"
            )
        if limits not in self._regions:
            while len(self._regions) >= KEPT_REGIONS:
                self._regions.pop(next(iter(self._regions)))
            self._regions[limits] = Region(self._layers, limits, self._words)
        return self._regions[limits]

    @property
    def _words(self) -> Words:
        if self.is_table:
            remedy = "add smaller choices to the table, or lower its resolution"
            return Words(f"{self.name}'s smallest member's", remedy)
        return Words(f"{self.name}'s own", "choose a smaller target")

    def count(self) -> int:
        """The exact number of members."""
        return self.source.count

    def graph(self) -> nx.MultiDiGraph[NodeKey]:
        """Nodes (rows done, width, open); edges carry `choice`, `row` and all costs."""
        graph: nx.MultiDiGraph[NodeKey] = nx.MultiDiGraph(space=self.name)
        for layer in self._layers:
            for node in layer.values():
                graph.add_node(node.key, width=node.width, row=node.row_index)
                for edge in node.edges:
                    graph.add_edge(
                        node.key,
                        edge.head.key,
                        choice=self.rows[node.row_index].choices[edge.choice],
                        row=edge.row,
                        macs=edge.macs,
                        params=edge.params,
                        memory=edge.memory,
                        flash=edge.flash,
                        latency=edge.latency,
                    )
        return graph
