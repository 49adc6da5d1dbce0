"""What the tests of this room share: spaces and random members, made once, and golden files."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nasaug.supernet import (
    Architecture,
    ElasticNorm,
    Network,
    Row,
    SearchSpace,
    load_space,
    load_target,
    space_names,
    target_names,
)

DATA = Path(__file__).parents[1] / "data"
PUBLISHED = ("mbv2_tiny", "mbv2_w035", "mbv3_w035", "proxylessnas_w035", "mcunet")

Members = Callable[[str, int], list[Architecture]]
MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The suite shares its cores with other workers; bit equality is promised at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture(params=PUBLISHED, scope="session")
def published(request: pytest.FixtureRequest) -> str:
    """Each of the five published targets' names in turn."""
    return str(request.param)


@pytest.fixture(params=target_names(), scope="session")
def target_name(request: pytest.FixtureRequest) -> str:
    """Each named target in turn."""
    return str(request.param)


@pytest.fixture(params=(*target_names(), *space_names()), scope="session")
def space_name(request: pytest.FixtureRequest) -> str:
    """Each named target and each named top-down space in turn, for `space_of`."""
    return str(request.param)


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """Rows, parameters, MACs and resolution of the published targets, by name."""
    found: dict[str, Any] = json.loads((DATA / "targets.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def space_of() -> Callable[[str], SearchSpace]:
    """The default space around a target, or a top-down space, with 10 classes, by name."""

    def make(name: str) -> SearchSpace:
        if name in space_names():
            return load_space(name, 10)
        return SearchSpace.around(load_target(name, 10))

    return cache(make)


@pytest.fixture(scope="session")
def members_of(space_of: Callable[[str], SearchSpace]) -> Members:
    """The first so many random members of a target's default space; always the same ones."""

    def members(name: str, count: int) -> list[Architecture]:
        rng = random.Random(zlib.crc32(name.encode()))
        return [space_of(name).sample(rng) for _ in range(count)]

    return members


@pytest.fixture(scope="session")
def micro_space() -> SearchSpace:
    """A space small enough to train in a test, with every kind of decision in it."""
    return SearchSpace.around(load_target("micro_10k", 10), width=(1, 2), expand=(1, 2))


@pytest.fixture(scope="session")
def enumerate_members() -> Callable[[SearchSpace], Iterator[tuple[Row, ...]]]:
    """The rows of every member, by brute force and without the space's graph."""
    return _members


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """A network of random weights and random norms; its running statistics are random as well."""

    def make(arch: Architecture, seed: int = 0, dtype: torch.dtype = torch.float32) -> Network:
        generator = torch.Generator().manual_seed(seed)
        net = Network(arch, generator=generator)
        for module in net.modules():
            if isinstance(module, ElasticNorm):
                for tensor in (module.weight, module.running_var):
                    torch.nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
                for tensor in (module.bias, module.running_mean):
                    torch.nn.init.normal_(tensor, 0, 0.1, generator=generator)
        return net.to(dtype)

    return make


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    """Random images (count, channels, size, size) from a seed."""

    def make(count: int, size: int, channels: int = 3, seed: int = 7) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, channels, size, size, generator=generator)

    return make


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """A golden file; `state_dict` holds the tensors that data/golden/README.md describes."""

    def read(name: str) -> dict[str, Any]:
        file = DATA / "golden" / f"{name}.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found["shapes"] = found["state_dict"]
        found["state_dict"] = {n: _golden_tensor(n, s) for n, s in found["shapes"].items()}
        return found

    return read


def _golden_tensor(name: str, shape: list[int]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    n = np.asarray(rng.standard_normal(shape), dtype=np.float32)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("norm.weight"):
        n = 1 + 0.1 * n
    elif name.endswith(("bias", "running_mean")):
        n = 0.1 * n
    elif name.endswith("running_var"):
        n = np.exp(0.2 * n)
    else:
        n = n * np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else n / np.sqrt(shape[1])
    return torch.tensor(n, dtype=torch.float32)


def _members(space: SearchSpace) -> Iterator[tuple[Row, ...]]:
    """Every combination of choices that keeps the prefix rule, realised row by row."""
    stages = [row.name.partition(".")[0] for row in space.rows]
    for combination in itertools.product(*(row.choices for row in space.rows)):
        late = any(
            stages[i] == stages[i - 1] and combination[i].present and not combination[i - 1].present
            for i in range(1, len(combination))
        )
        if late:
            continue
        rows: list[Row] = []
        width = space.target.in_channels
        for choices, choice in zip(space.rows, combination, strict=True):
            rows.append(choices.realise(choice, width))
            width = rows[-1].out_channels(width)
        yield tuple(rows)
