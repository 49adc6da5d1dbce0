"""The graph of a space: its paths are the members, its edges their costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import networkx as nx

from nasaug.supernet import SearchSpace, macs

SpaceOf = Callable[[str], SearchSpace]


def test_graph_is_acyclic_and_its_paths_are_the_members(space_name: str, space_of: SpaceOf) -> None:
    space = space_of(space_name)
    graph = space.graph()
    assert nx.is_directed_acyclic_graph(graph)
    (source,) = [node for node, degree in graph.in_degree() if degree == 0]
    sinks = [node for node, degree in graph.out_degree() if degree == 0]
    assert {graph.nodes[sink]["row"] for sink in sinks} == {len(space.rows)}
    paths = dict.fromkeys(graph, 0) | {source: 1}
    for node in nx.topological_sort(graph):
        for head in graph.successors(node):
            paths[head] += paths[node] * graph.number_of_edges(node, head)
    assert sum(paths[sink] for sink in sinks) == space.count()


def test_graphs_edges_add_up_to_the_macs_of_a_member(space_name: str, space_of: SpaceOf) -> None:
    space = space_of(space_name)
    graph, rng = space.graph(), random.Random(0)
    for _ in range(20):
        node, rows, total = space.source.key, [], 0
        while edges := list(graph.out_edges(node, data=True)):
            _, node, data = rng.choice(edges)
            rows.append(data["row"])
            total += data["macs"]
        member = replace(space.target, rows=tuple(rows))
        assert macs(member) == total
        assert space.path(member)


def test_bounds_are_the_graphs_shortest_and_longest_paths(
    space_name: str, space_of: SpaceOf
) -> None:
    space = space_of(space_name)
    graph = space.graph()
    sinks = {node for node, degree in graph.out_degree() if degree == 0}
    shortest = nx.multi_source_dijkstra_path_length(graph.reverse(), sinks, weight="macs")
    waiting = [space.source]
    bounds = {}
    while waiting:
        node = waiting.pop()
        if node.key not in bounds:
            bounds[node.key] = node.cheapest
            waiting.extend(edge.head for edge in node.edges)
    assert bounds == shortest
    assert space.source.cheapest == macs(space.target)
    longest = nx.dag_longest_path_length(graph, weight="macs")
    assert space.source.dearest == longest == macs(space.largest)
