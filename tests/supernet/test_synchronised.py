"""Batch statistics over two workers, against one process that has the whole batch."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import ElasticNorm, Network, SearchSpace, load_target, synchronise_batch_norm

PROGRAM = Path(__file__).with_name("half_of_batch.py")
JOBS = ("plain", "sub-network", "two passes")

Found = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


@pytest.fixture(scope="module")
def found(two_workers: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two workers computed on its half of the batch."""
    folder = tmp_path_factory.mktemp("workers")
    two_workers(PROGRAM, folder)
    first, second = (safetensors.torch.load_file(folder / f"{r}.safetensors") for r in (0, 1))
    return first, second


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _part(found: Found, prefix: str) -> list[dict[str, Tensor]]:
    return [
        {k.removeprefix(prefix): v for k, v in own.items() if k.startswith(prefix)} for own in found
    ]


def test_two_workers_compute_what_one_computes_on_the_whole_batch(
    program: dict[str, Any], found: Found, job: str
) -> None:
    """Logits of each half; gradients of the whole, once they are averaged over the workers."""
    expected = program["step"](program["jobs"]()[job], *program["batch"]())
    halves = _part(found, f"{job}/global/")
    assert sum(name.startswith("gradient") for name in expected) > 20
    for name, whole in expected.items():
        parts = [half[name] for half in halves]
        combined = torch.cat(parts) if name.startswith("logits") else (parts[0] + parts[1]) / 2
        torch.testing.assert_close(combined, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["own", "off again", "export"])
def test_unsynchronised_workers_and_exports_use_their_own_batch(
    program: dict[str, Any], found: Found, job: str, variant: str
) -> None:
    net, subs = program["jobs"]()[job]
    images, labels = program["batch"]()
    if variant == "export":
        net, subs = net.export(subs[0]).train(), [None]
    for rank, half in enumerate(_part(found, f"{job}/{variant}/")):
        mine = slice(6 * rank, 6 * rank + 6)
        expected = program["step"]((net, subs), images[mine], labels[mine])
        assert half.pop("calls.all_gather") == half.pop("calls.all_reduce") == 0
        assert half.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(half[name], tensor, rtol=1e-12, atol=1e-12)
    first, whole = (_part(found, f"{job}/{v}/")[0]["logits.0"] for v in ("own", "global"))
    assert (first - whole).abs().max() > 0.01


def test_every_norm_waits_once_forward_and_once_backward(
    program: dict[str, Any], found: Found, job: str
) -> None:
    net, subs = program["jobs"]()[job]
    norms = sum(
        isinstance(module, ElasticNorm) for sub in subs for module in net.export(sub).modules()
    )
    for calls in _part(found, f"{job}/global/calls."):
        assert calls["all_gather"] == calls["all_reduce"] == norms


def test_statistics_of_values_far_from_zero_are_exact(
    program: dict[str, Any], found: Found
) -> None:
    """The mean of squares less the square of the mean would lose every digit here."""
    x = program["values"]()
    expected = F.batch_norm(x.double(), None, None, training=True).float()
    own = torch.cat([half["far"] for half in found])
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-3)


def test_autocast_is_as_near_to_the_truth_as_a_plain_pass_with_autocast(
    program: dict[str, Any], found: Found
) -> None:
    images, labels = program["batch"]()
    truth = program["step"](program["jobs"]()["plain"], images, labels)["logits.0"]
    with torch.autocast("cpu", torch.bfloat16):
        job = program["jobs"](torch.float32)["plain"]
        plain = program["step"](job, images.float(), labels)["logits.0"]
    own = torch.cat([half["autocast"] for half in found])
    assert own.dtype == plain.dtype == torch.bfloat16
    # bfloat16 has 8 bits, 2^-8 = 0.004, and there are 13 convolutions.
    assert (plain.double() - truth).norm() / truth.norm() < 0.03
    assert (own.double() - truth).norm() / truth.norm() < 0.03


def test_alone_nothing_changes(
    make_network: Callable[..., Network], images: Callable[..., Tensor], tmp_path: Path
) -> None:
    """Without a group, and as the only one in it."""
    space = SearchSpace.around(load_target("micro_10k", 10))
    net, x, sub = make_network(space.largest).train(), images(4, 28), space.target
    expected = net(x, sub)
    synchronise_batch_norm(net, True)
    assert torch.equal(net(x, sub), expected)
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert torch.equal(net(x, sub), expected)
    finally:
        dist.destroy_process_group()
