"""bf16 on a CPU against float32: the same losses and gradients, within what its 8 bits allow.

Stated tolerances. Of one step at the same weights: losses within 2 %, gradients within 20 degrees.
Of 32 steps from the same weights, in which runs drift apart as any two do whose rounding differs:
the mean loss within 2 % (while it falls by a tenth), a single step's within 8 %.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from nasaug.netaug import training_step
from nasaug.supernet import Network
from nasaug.training import Recipe, State, relational_loss
from nasaug.training.gradients import Gradients

PROGRAM = Path(__file__).with_name("precision_worker.py")
METHODS = ("baseline", "netaug", "rkd", "netdistiller")
ONE_LOSS, ANGLE, MEAN_LOSS, ANY_LOSS = 0.02, math.radians(20), 0.02, 0.08

Measured = list[dict[str, float]]


def _bf16() -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


@pytest.fixture(scope="module")
def trained(
    program: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Network, Measured]]:
    """A network trained by a method in a precision, and what was measured; made once."""

    def make(method: str, amp: str) -> tuple[Network, Measured]:
        net, seen = program["train"](tmp_path_factory.mktemp("run"), method, amp)
        return net, seen

    return cache(make)


def _one_step(
    program: dict[str, Any], net: Network, method: str, precision: Callable[..., Any]
) -> tuple[dict[str, float], Tensor]:
    """The losses of a step on the first batch, and all gradients."""
    state = State(Recipe(), 30, 100, 10, 0, precision, list)
    state.gradients = Gradients(net)
    state.gradients.clear()
    batch = next(iter(program["batches_of"](program["BATCH"])))
    losses = training_step(program["parts_of"](method))(net.train(), batch, state)
    state.gradients.merge()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(g is not None and g.dtype == torch.float32 for g in gradients)
    flat = torch.cat([g.flatten() for g in gradients if g is not None])
    return {name: float(loss) for name, loss in losses.items()}, flat


@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_bf16_has_the_losses_and_gradients_of_float32(
    method: str, program: dict[str, Any], trained: Callable[..., Any]
) -> None:
    net = trained(method, "off")[0]
    losses, gradients = _one_step(program, net, method, nullcontext)
    low, low_gradients = _one_step(program, net, method, _bf16)
    assert low == pytest.approx(losses, rel=ONE_LOSS)
    assert low != losses
    assert torch.isfinite(low_gradients).all()
    cosine = torch.cosine_similarity(gradients, low_gradients, 0)
    assert float(cosine) > math.cos(ANGLE)
    assert float(low_gradients.norm()) == pytest.approx(float(gradients.norm()), rel=0.1)


def _assert_alike(found: Measured, expected: Measured) -> None:
    assert len(found) == len(expected)
    for name in {"loss_target", "loss_helper"} & expected[0].keys():
        ours, theirs = ([row[name] for row in rows] for rows in (found, expected))
        assert ours == pytest.approx(theirs, rel=ANY_LOSS)
        assert statistics.fmean(ours) == pytest.approx(statistics.fmean(theirs), rel=MEAN_LOSS)
        assert ours != theirs


@pytest.mark.parametrize("method", METHODS)
def test_training_in_bf16_goes_as_in_float32(
    method: str, program: dict[str, Any], trained: Callable[..., Any]
) -> None:
    (net, expected), (low_net, found) = trained(method, "off"), trained(method, "bf16")
    assert len(found) == len(expected) == 32
    _assert_alike(found, expected)
    for rows in (found, expected):
        last, first = ([row["loss_target"] for row in part] for part in (rows[-5:], rows[:5]))
        assert statistics.fmean(last) < 0.94 * statistics.fmean(first)
    images = next(iter(program["batches_of"](256)))[0]
    with torch.no_grad():
        logits, low_logits = (n.train()(images, program["TARGET"]) for n in (net, low_net))
    pair = torch.stack([logits.flatten(), low_logits.flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.8
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in low_net.parameters())


def test_embeddings_are_bf16_and_their_relations_are_not(program: dict[str, Any]) -> None:
    net = program["fresh"]("rkd").train()
    images = next(iter(program["batches_of"](16)))[0]
    with _bf16():
        out = net.outputs(images, program["TARGET"])
        loss = relational_loss(net.outputs(images).embedding.detach(), out.embedding)
    assert out.embedding.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers, each with half of the batch, have left what they measured."""
    folder = tmp_path_factory.mktemp("workers")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_two_workers_in_bf16_go_as_one_in_float32(
    workers: Path, program: dict[str, Any], tmp_path: Path
) -> None:
    """With statistics and embeddings of both, which travel as float32."""
    found = [json.loads((workers / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    expected = program["train"](tmp_path, "rkd", "off", images=program["FEW"])[1]
    _assert_alike(found[0], expected)
    # Before any update the weights are the same, and with them all losses.
    for name, value in expected[0].items():
        if name.startswith("loss"):
            assert found[0][0][name] == pytest.approx(value, rel=ONE_LOSS), name
    first, second = (safetensors.torch.load_file(workers / f"{r}.safetensors") for r in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
