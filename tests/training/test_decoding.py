"""Decoding processes make way for the step that computes on the same cores."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from nasaug.training.decoding import NICE, Decoding
from nasaug.training.orders import InOrder


class Niceness(Dataset[int]):
    """In place of a picture, how nice the process is that decodes it."""

    def __getitem__(self, place: Any) -> int:
        return os.nice(0)


@pytest.mark.parametrize(("device", "nicer"), [("cpu", NICE), ("meta", 0)])
def test_only_where_the_step_is_on_the_processor_too(device: str, nicer: int) -> None:
    own = os.nice(0)
    batches = Decoding(Niceness(), InOrder(4, 2), list, 1, torch.device(device)).epoch(0)
    assert list(batches) == 2 * [2 * [min(19, own + nicer)]]
    assert os.nice(0) == own
