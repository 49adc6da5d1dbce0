"""How long exported files take on this machine, one image at a time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasaug.console import progress_bar
from nasaug.devices import calm, measure_bursts, processor, timed_burst
from nasaug.export import Runner

REPEATS = 100


def measured(
    runners: Mapping[str, Runner], image: Tensor, threads: int, repeats: int = REPEATS
) -> dict[str, Any]:
    """Medians and 90th percentiles in nanoseconds of the calm repeats of each (see
    `nasaug.devices.samples`), batch 1; image (1, channels, R, R). The turns are shuffled, so that a
    noisy moment costs each a few repeats instead of one all of them.

    `threads` are set for torch here; runners of others were opened with them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(), progress_bar("latency (repeats)") as bar:
            bursts = measure_bursts(
                [partial(timed_burst, partial(run, image)) for run in runners.values()],
                random.Random(0),
                repeats,
                lambda done, total: bar(done, total, {}),
            )
    finally:
        torch.set_num_threads(before)
    rows = [_row(name, calm(found)) for name, found in zip(runners, bursts, strict=True)]
    return {"device": processor(), "threads": threads, "batch": 1, "rows": rows}


def _row(name: str, counted: list[int]) -> dict[str, Any]:
    median, p90 = np.percentile(counted, (50, 90))
    return {"file": name, "median_ns": round(median), "p90_ns": round(p90), "repeats": len(counted)}
