"""A search space: per-row choices and the graph that they span.

The space of single-path one-shot search (Guo et al., ECCV 2020) is a directed acyclic graph: a node
is the width of the features after a row, an edge a choice for the next row, an architecture one
path from source to sink. Costs are sums over edges, so bounds, counts and feasible sampling are
exact and cheap. The same class holds NetAug's helpers (`between`) and the search's space (`around`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import networkx as nx

from nasaug.supernet.architecture import BLOCKS, Architecture, embed
from nasaug.supernet.choices import Choice, RowChoices, Value, extra_row, row_choices
from nasaug.supernet.costs import row_cost
from nasaug.supernet.feasible import BudgetTable
from nasaug.supernet.rows import DepthwiseSeparable, InvertedResidual, Row, Skip

Path = tuple[int, ...]


class InfeasibleBudget(ValueError):
    """No member of the space fits the budget; `least` is the least feasible one, in MACs."""

    def __init__(self, budget: int, least: int, name: str) -> None:
        self.least = least
        super().__init__(
            f"budget must be at least {name}'s own {least:,} MACs, but got {budget:,}; "
            "raise --budget or choose a smaller target"
        )


@dataclass(eq=False, slots=True)
class Edge:
    """One choice at one node. `choice` is its index among the row's choices; costs at batch 1."""

    choice: int
    row: Row
    head: Node
    macs: int
    params: int


@dataclass(eq=False, slots=True)
class Node:
    """Features after `row_index` rows. `open`: the stage may still grow by the next extra row.

    `edges` are the distinct choices; `table` holds for every choice index the edge that it means,
    since rounding makes some choices equal. The bounds and the count are over completions.
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


class SearchSpace:
    """All architectures that `rows` allow; made by `around` or `between`.

    A path is a tuple of choice indices, one a row. Every member has the space's number of rows,
    absent ones being `Skip`, and contains `target`.
    """

    def __init__(self, target: Architecture, rows: Sequence[RowChoices]) -> None:
        self.rows = tuple(rows)
        self._canonical_target = target.canonical()
        self._layers = self._build_graph()

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
        _check_factors("width", width)
        _check_factors("expand", expand)
        _check_growth(kernel_growth, extra_depth)
        target = target.canonical()
        rows = []
        for index, (row, name) in enumerate(zip(target.rows, target.row_names, strict=True)):
            in_channels = target.widths_in[index]
            extras = [extra_row(row, in_channels)] * max(extra_depth) if _ends_stage(target, index) else []
            block = int(name.rpartition("block")[2]) if isinstance(row, BLOCKS) else 0
            for offset, template in enumerate([row, *extras]):
                if template is None:
                    break
                kernels = [getattr(template, "kernel", 1) + growth for growth in kernel_growth]
                rows.append(
                    row_choices(
                        _renumber(name, block + offset) if block else name,
                        template,
                        row.out_channels(in_channels) if offset else in_channels,
                        width=width,
                        expand=expand,
                        kernels=kernels,
                        divisor=divisor,
                        optional=offset > 0,
                    )
                )
        return cls(target, rows)

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
        _check_factors("width", width)
        _check_factors("expand", expand)
        largest = largest.canonical()
        target = target.canonical()
        aligned = embed(target, largest)
        rows: list[RowChoices] = []
        base, base_width = target.rows[0], target.in_channels
        for index, (row, limit) in enumerate(zip(aligned.rows, largest.rows, strict=True)):
            optional = isinstance(row, Skip)
            in_channels = aligned.widths_in[index]
            template = extra_row(base, base_width) if optional else row
            assert template is not None
            if not optional:
                base, base_width = row, in_channels
            kernel, kernel_limit = getattr(template, "kernel", 1), getattr(limit, "kernel", 1)
            choices = row_choices(
                largest.row_names[index],
                template,
                in_channels,
                width=width,
                expand=expand,
                kernels=range(min(kernel, kernel_limit), kernel_limit + 1, 2),
                divisor=divisor,
                optional=optional,
                limit=limit,
            )
            if choices.expands and max(expand) > 1:
                choices = _reach_limit(choices, largest.widths_in[index])
            rows.append(choices)
        return cls(target, rows)

    @cached_property
    def target(self) -> Architecture:
        """The target, aligned to the space's rows."""
        return self.embed(self._canonical_target)

    @cached_property
    def largest(self) -> Architecture:
        """The member with the largest value in every decision; it contains all the others."""
        path, node = [], self.source
        for row in self.rows:
            edge = max(node.edges, key=lambda e: row.choices[e.choice])  # noqa: B023
            path.append(edge.choice)
            node = edge.head
        return self.architecture(tuple(path), f"{self._canonical_target.name}-largest")

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

    def path(self, arch: Architecture) -> Path:
        """The path of a member. Raises: ValueError naming the row that is no choice here."""
        path, node = [], self.source
        for choices, row in zip(self.rows, self.embed(arch).rows, strict=True):
            edge = next((edge for edge in node.edges if edge.row == row), None)
            if edge is None:
                raise ValueError(f"{arch.name} is not in the space: {choices.name} is {row}")
            path.append(edge.choice)
            node = edge.head
        return tuple(path)

    def architecture(self, path: Path, name: str | None = None) -> Architecture:
        """The member that a path stands for, aligned to the space's rows."""
        rows = tuple(edge.row for edge in self.edges_of(path))
        name = name or f"{self._canonical_target.name}-member"
        return replace(self._canonical_target, rows=rows, name=name)

    def macs(self, path: Path) -> int:
        """MACs of a path, batch 1, at the target's resolution: microseconds."""
        total, node = 0, self.source
        for choice in path:
            edge = node.table[choice]
            total += edge.macs  # type: ignore[union-attr]
            node = edge.head  # type: ignore[union-attr]
        return total

    def params(self, path: Path) -> int:
        return sum(edge.params for edge in self.edges_of(path))

    def edges_of(self, path: Path) -> list[Edge]:
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

    def parameters(self, path: Path) -> dict[str, Value]:
        """The path as named decisions; those of an absent row have their first value."""
        values: dict[str, Value] = {}
        for row, index in zip(self.rows, path, strict=True):
            choice = row.choices[index]._asdict()
            for name, options in row.decisions.items():
                value = choice[name.rpartition(".")[2]]
                values[name] = options[0] if value is None else value
        return values

    def path_of(self, values: dict[str, Value]) -> Path:
        """The path that named decisions stand for, each choice replaced by its first equal.

        Raises: KeyError for a missing decision; ValueError for one that is no path.
        """
        path, node = [], self.source
        for row in self.rows:
            given = {name.rpartition(".")[2]: values[name] for name in row.decisions}
            edge = None
            if node.open or not given.get("present", False):
                edge = node.table[row.choices.index(_choice(row, given))]
            if edge is None:
                raise ValueError(f"{row.name} cannot be present when the row before it is absent")
            path.append(edge.choice)
            node = edge.head
        return tuple(path)

    def sample(self, rng: random.Random, budget: int | None = None) -> Architecture:
        """One member, drawn uniformly from those within `budget` MACs (all when None).

        Raises: InfeasibleBudget.
        """
        return self.architecture(self.sample_path(rng, budget))

    def sample_path(self, rng: random.Random, budget: int | None = None) -> Path:
        """As `sample`, as a path."""
        if budget is None or budget >= self.source.dearest:
            return self.walk(
                lambda _, edges: rng.choices(edges, [edge.head.count for edge in edges])[0]
            )
        return self.budget_table(budget).sample(rng)

    def budget_table(self, budget: int) -> BudgetTable:
        """The sampler of members within `budget` MACs, made once. Raises: InfeasibleBudget."""
        self.check_budget(budget)
        if budget not in self._budget_tables:
            self._budget_tables[budget] = BudgetTable(self._layers, budget)
        return self._budget_tables[budget]

    def check_budget(self, budget: int) -> None:
        """Raises: InfeasibleBudget if no member has at most `budget` MACs."""
        if budget < self.source.cheapest:
            raise InfeasibleBudget(budget, self.source.cheapest, self._canonical_target.name)

    def walk(self, pick: Callable[[int, list[Edge]], Edge], budget: int | None = None) -> Path:
        """A path chosen edge by edge: `pick(row index, edges)` is offered only edges from which
        some completion stays within `budget` MACs, so every walk ends feasible.

        Raises: InfeasibleBudget.
        """
        if budget is not None:
            self.check_budget(budget)
        path, node, left = [], self.source, budget
        for index in range(len(self.rows)):
            edges = node.edges
            if left is not None:
                edges = [edge for edge in edges if edge.macs + edge.head.cheapest <= left]
            edge = pick(index, edges)
            if left is not None:
                left -= edge.macs
            path.append(edge.choice)
            node = edge.head
        return tuple(path)

    def count(self) -> int:
        """The exact number of members."""
        return self.source.count

    def graph(self) -> nx.MultiDiGraph:
        """Nodes (rows done, width, open); edges carry `choice`, `row`, `macs`, `params`."""
        graph = nx.MultiDiGraph(target=self._canonical_target.name)
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
                    )
        return graph

    @cached_property
    def _budget_tables(self) -> dict[int, BudgetTable]:
        return {}

    def _build_graph(self) -> list[dict[tuple[int, int, bool], Node]]:
        """Layers of nodes, forward; then bounds and counts, backward."""
        first = Node(0, self._canonical_target.in_channels, True)
        layers = [{first.key: first}]
        size = self._canonical_target.resolution
        for index, row in enumerate(self.rows):
            following = self.rows[index + 1] if index + 1 < len(self.rows) else None
            heads: dict[tuple[int, int, bool], Node] = {}
            for node in layers[-1].values():
                _expand(node, row, size, bool(following and following.optional), heads)
            layers.append(heads)
            sample = next(edge for node in layers[-2].values() for edge in node.edges)
            size = _size_after(row.template, sample.row, size)
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
    heads: dict[tuple[int, int, bool], Node],
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
            distinct[made] = Edge(index, made, head, cost.macs, cost.params)
            node.edges.append(distinct[made])
        node.table.append(distinct[made])


def _size_after(template: Row, made: Row, size: int) -> int:
    leaves = template.leaves(1) if not isinstance(made, Skip) else ()
    for leaf in leaves:
        size = leaf.out_size(size)
    return size


def _choice(row: RowChoices, given: dict[str, Value]) -> Choice:
    """The choice with the `given` values; a decision that does not vary has its only value."""
    if row.optional and not given["present"]:
        return Choice(False)
    options = {"kernel": row.kernels, "expand": row.expands, "width": row.widths}
    values = {key: given.get(key, opts[0] if opts else None) for key, opts in options.items()}
    return Choice(True, **values)  # type: ignore[arg-type]


def _reach_limit(choices: RowChoices, limit_in: int) -> RowChoices:
    """With expand factors up to the limit's own, which is added."""
    limit = choices.limit
    assert limit is not None
    outer = limit_in if isinstance(limit, InvertedResidual) else limit.out_channels(limit_in)
    own = float(limit.mid / (outer * choices.ratio))  # type: ignore[attr-defined]
    nearest = min(choices.expands, key=lambda factor: abs(factor - own))
    for factor in (nearest, own):
        made = choices.realise(choices.choices[-1]._replace(expand=factor), limit_in)
        if made.mid == limit.mid:  # type: ignore[attr-defined]
            own = factor
            break
    below = {factor for factor in choices.expands if factor < own}
    return replace(choices, expands=tuple(sorted(below | {own})))


def _ends_stage(arch: Architecture, index: int) -> bool:
    """Whether row `index` is the last block of its stage."""
    if not isinstance(arch.rows[index], BLOCKS) or isinstance(arch.rows[index], DepthwiseSeparable):
        return False
    stage = arch.row_names[index].partition(".")[0]
    return arch.row_names[index + 1].partition(".")[0] != stage


def _renumber(name: str, block: int) -> str:
    return f"{name.partition('.')[0]}.block{block}"


def _check_factors(name: str, factors: Iterable[float]) -> None:
    values = list(factors)
    if not values or min(values) < 1 or 1 not in values or max(values) > 16:
        raise ValueError(
            f"{name} factors must be from 1 to 16 with 1 among them, so that every member "
            f"contains the target, but got {values}"
        )


def _check_growth(kernel_growth: Sequence[int], extra_depth: Sequence[int]) -> None:
    if 0 not in kernel_growth or any(g < 0 or g % 2 or g > 8 for g in kernel_growth):
        raise ValueError(
            f"kernel_growth must be even, from 0 to 8, with 0 among them, but got {[*kernel_growth]}"
        )
    if sorted(extra_depth) != list(range(len(extra_depth))) or len(extra_depth) > 9:
        raise ValueError(
            "extra_depth must be 0, 1, 2, ... without a gap (at most 8), since a stage grows row "
            f"by row, but got {[*extra_depth]}"
        )
