"""Two processes that train together, as under torchrun, against one that does the work of both."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.training import ALONE, RunFolder, Workers, join_workers, load_weights

PROGRAM = Path(__file__).with_name("one_of_two.py")


@pytest.fixture(scope="module")
def folder(two_workers: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers have left their weights and their run."""
    folder = tmp_path_factory.mktemp("workers")
    two_workers(PROGRAM, folder)
    return folder


def test_workers_end_with_the_same_weights(folder: Path) -> None:
    first, second = (load_weights(folder / f"{r}.safetensors").state_dict() for r in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_workers_equal_one_that_averages_the_gradients_of_both(
    folder: Path,
    hand_sgd: Callable[..., Any],
    gradients_of: Callable[..., dict[str, Tensor]],
) -> None:
    """Each half batch has its own batch-norm statistics. The rate rises from 0.05 to twice that."""
    program = runpy.run_path(str(PROGRAM))
    net, recipe = program["start"](), program["RECIPE"]
    reference = hand_sgd(net, recipe)
    halves = [program["batches"](Workers(rank, 2)) for rank in (0, 1)]
    rates = [0.05 + 0.05 / 3, 0.05 + 0.1 / 3, 0.1, 0.1, 0.075, 0.025]
    for step, rate in enumerate(rates):
        batches = [list(half.epoch(step // 3))[step % 3] for half in halves]
        first, second = (gradients_of(net, reference.weights, batch, 0.1) for batch in batches)
        reference.step({name: (first[name] + second[name]) / 2 for name in first}, rate)
    found = dict(load_weights(folder / "0.safetensors").named_parameters())
    for name, weight in reference.weights.items():
        torch.testing.assert_close(found[name].detach(), weight, rtol=1e-4, atol=1e-4)


def test_first_worker_alone_keeps_the_records(folder: Path) -> None:
    """Had both written, there would be twice the lines."""
    run = RunFolder(folder / "run")
    assert [(row["step"], row["calls"]) for row in run.metrics()] == [(3, 1), (6, 2)]
    assert {path.stem for path in run.checkpoints.iterdir()} == {"step-000000003", "step-000000006"}


def test_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_workers(torch.device("cpu")) == ALONE == Workers(0, 1)


@pytest.mark.parametrize(("rank", "first"), [(0, True), (1, False)])
def test_worker_of_rank_0_is_the_first(rank: int, first: bool) -> None:
    assert Workers(rank, 2).first == first
