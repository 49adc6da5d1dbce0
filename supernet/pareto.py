"""What two limits leave possible together: exact Pareto labels, backward through the graph."""

from __future__ import annotations

import numpy as np

from nasaug.supernet.bounds import Bounded


def least_together(
    graph: Bounded, first: str, first_sign: int, most: int, second: str, second_sign: int
) -> int | None:
    """The least `second_sign * second` of a path with `first_sign * first` at most `most`.

    A sign of -1 turns a cost around: its most instead of its least, and lower limits. None when no
    path meets the first limit. A label is the pair of both costs of a completion; of two labels
    the one that is worse in both is dropped, which leaves some ten thousand.
    """
    labels = {id(node): np.zeros((1, 2), np.int64) for node in graph.layers[-1]}
    for layer in reversed(graph.layers[:-1]):
        above = {}
        for node in layer:
            pairs = np.concatenate(
                [
                    labels[id(edge.head)]
                    + (first_sign * getattr(edge, first), second_sign * getattr(edge, second))
                    for edge in graph.edges[id(node)]
                ]
            )
            pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
            best = np.minimum.accumulate(pairs[:, 1])
            keep = np.concatenate(([True], pairs[1:, 1] < best[:-1]))
            above[id(node)] = pairs[keep]
        labels = above
    front = labels[id(graph.source)]
    within = front[front[:, 0] <= most]
    return int(within[:, 1].min()) if len(within) else None
