"""What the tests of this room share: a small space with every kind of decision, and a backend whose
times are known.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

import pytest
import torch

from nasaug.devices import RowKey
from nasaug.supernet import Architecture, SearchSpace, load_target


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return SearchSpace.around(load_target("micro_10k", 10), width=(1, 2), expand=(1, 2))


class KnownBackend:
    """A row takes 1000 ns and one a MAC; a network a tenth more than its rows, and the empty run.

    `disturbed` of ten repeats take three times as long.
    """

    versions = "known 1"
    EMPTY = 500

    def __init__(self, disturbed: int = 0) -> None:
        self.disturbed = disturbed
        self.swept: list[set[RowKey]] = []

    @staticmethod
    def of_row(key: RowKey) -> int:
        first_leaf = sum(leaf.macs(key.size) for leaf in key.row.leaves(key.in_channels)[:1])
        return 1000 + first_leaf

    @staticmethod
    def of_network(arch: Architecture) -> int:
        keys = zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True)
        return KnownBackend.EMPTY + round(
            1.1 * sum(KnownBackend.of_row(RowKey(*key)) for key in keys)
        )

    def burst(self, nanoseconds: int) -> list[int]:
        return [nanoseconds * (3 if index < self.disturbed else 1) for index in range(10)]

    def empty(self) -> list[int]:
        return self.burst(self.EMPTY)

    def sweep(
        self, space: SearchSpace, wanted: Collection[RowKey], rng: random.Random
    ) -> Iterator[dict[RowKey, list[int]]]:
        self.swept.append(set(wanted))
        for key in wanted:
            yield {key: self.burst(self.of_row(key) + self.EMPTY)}

    def network(self, arch: Architecture) -> list[int]:
        return self.burst(self.of_network(arch.canonical()))


@pytest.fixture
def known() -> type[KnownBackend]:
    return KnownBackend
