"""Two workers that gather their embeddings, against one process with the whole batch."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nasaug.training import ALONE, gather, relational_loss

PROGRAM = Path(__file__).with_name("gathering_worker.py")


@pytest.fixture(scope="module")
def folder(two_workers: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both workers have left what they found."""
    folder = tmp_path_factory.mktemp("gathered")
    two_workers(PROGRAM, folder)
    return folder


def test_loss_and_averaged_gradients_are_those_of_the_whole_batch(folder: Path) -> None:
    program = runpy.run_path(str(PROGRAM))
    images, weights = program["start"]()
    teacher, student = (program["embed"](images, weight) for weight in weights)
    loss = relational_loss(teacher, student)
    loss.backward()
    expected = {
        "loss": loss.detach(),
        "teacher": teacher.detach(),
        "student": student.detach(),
        "gradient.teacher": weights[0].grad,
        "gradient.student": weights[1].grad,
    }
    assert all(float(weight.grad.abs().max()) > 1e-3 for weight in weights)
    for rank in (0, 1):
        found = safetensors.torch.load_file(folder / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14, msg=name)


def test_who_is_alone_keeps_the_embedding() -> None:
    embedding = torch.randn(3, 2)
    assert gather(embedding, ALONE) is embedding
