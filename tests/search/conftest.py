"""What the tests of this room share: small spaces, and judges that need no training."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from nasaug.supernet import Architecture, ChoicePath, SearchSpace, load_target


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers; bit equality is promised at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro() -> Architecture:
    """A target of 10,000 parameters for grey images of 28 x 28."""
    return load_target("micro_10k", 10, in_channels=1)


@pytest.fixture(scope="session")
def space(micro: Architecture) -> SearchSpace:
    """Every kind of decision, 161 million members."""
    return SearchSpace.around(micro)


@pytest.fixture(scope="session")
def tiny_space(micro: Architecture) -> SearchSpace:
    """16 members: the four inverted residuals are twice as wide inside or not."""
    return SearchSpace.around(micro, (1,), (1, 2), (0,), (0,))


class Surface:
    """An additive judge: every choice of every row has a worth, drawn from a seed.

    It records the paths that it is asked for. `worth(path)` is from 0 to 1.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        rng = random.Random(seed)
        self._space = space
        self._table = [[rng.random() for _ in row.choices] for row in space.rows]
        self.asked: list[ChoicePath] = []

    def worth(self, path: ChoicePath) -> float:
        worths = [row[choice] for row, choice in zip(self._table, path, strict=True)]
        return sum(worths) / len(worths)

    def __call__(self, arch: Architecture) -> float:
        self.asked.append(self._space.path(arch))
        return self.worth(self.asked[-1])


@pytest.fixture(scope="session")
def surface() -> Callable[..., Surface]:
    return Surface
