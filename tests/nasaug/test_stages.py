"""A supernet trained in stages: all of them by one command, each going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.pipelines import stages
from nasaug.training import load_weights

Nasaug = Callable[..., Any]
STAGES = (
    "[{name: full, epochs: 1}, {name: kernel, epochs: 1, kernel: all, paths: 2},"
    " {name: rest, epochs: 1, lr: 0.05, kernel: all, depth: all, expand: all, width: all}]"
)
DOWN = ("--direction=down", "--space=micro_down", "--budget=800K", "--trials=3")
SHRINK = ("--set", "supernet.method=shrinking", "--set", f"supernet.stages={STAGES}")


@pytest.fixture
def options(quick: tuple[str, ...]) -> tuple[str, ...]:
    return (*quick[1:], *DOWN, *SHRINK, "--set", "supernet.kernel_transforms=true")


def _weights(folder: str) -> dict[str, torch.Tensor]:
    return load_weights(Path(folder) / "supernet/weights.safetensors").state_dict()


def test_all_stages_run_in_order_and_the_search_uses_the_last(
    nasaug: Nasaug, options: tuple[str, ...]
) -> None:
    done = nasaug("search", *options, "--out=run", "--json")
    assert done.code == 0, done.said
    order = [
        done.said.index(f"stage {n} of 3, {name}")
        for n, name in ((1, "full"), (2, "kernel"), (3, "rest"))
    ]
    assert order == sorted(order)
    folders = sorted(path.name for path in Path("run/supernet/stages").iterdir())
    assert folders == ["1-full", "2-kernel", "3-rest"]
    rows = [
        json.loads(line) for line in Path("run/supernet/metrics.jsonl").read_text().splitlines()
    ]
    assert [row["stage"] for row in rows] == sorted(
        (row["stage"] for row in rows), key=["full", "kernel", "rest"].index
    )
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["macs"] > 0 and "smallest_top1" in row for row in rows)
    last = load_weights(Path("run/supernet/stages/3-rest/weights.safetensors")).state_dict()
    found = _weights("run")
    assert all(torch.equal(found[name], last[name]) for name in last)
    assert any(".transforms." in name for name in found)
    assert done.json["best"]["macs"] <= 800_000


def test_an_interrupted_stage_goes_on_and_finished_ones_stay(
    nasaug: Nasaug, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nasaug("search", *options, "--out=whole").code == 0
    real, begun = stages.fit, []

    def stops_in_the_last(
        net: Any, step: Any, batches: Any, recipe: Any, run: Any, **keys: Any
    ) -> Any:
        begun.append(run.path.name)
        if run.path.name == "3-rest":
            raise KeyboardInterrupt
        return real(net, step, batches, recipe, run, **keys)

    monkeypatch.setattr(stages, "fit", stops_in_the_last)
    # A folder of its own: a finished supernet nearby would be used again.
    assert nasaug("search", *options, "--out=elsewhere/run").code == 130
    assert begun == ["1-full", "2-kernel", "3-rest"]
    monkeypatch.setattr(
        stages, "fit", lambda *a, **k: begun.append(a[4].path.name) or real(*a, **k)
    )
    assert nasaug("search", *options, "--out=elsewhere/run", "--resume").code == 0
    assert begun[3:] == ["3-rest"]
    whole, resumed = _weights("whole"), _weights("elsewhere/run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_averaged_weights_are_trained_on(nasaug: Nasaug, options: tuple[str, ...]) -> None:
    done = nasaug("search", *options, "--set", "train.ema=0.9", "--out=run")
    assert done.code == 0, done.said
    first, last = (
        load_weights(Path(f"run/supernet/stages/{name}/weights.safetensors")).state_dict()
        for name in ("1-full", "3-rest")
    )
    assert not torch.equal(first["blocks.0.conv.weight"], last["blocks.0.conv.weight"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[{name: full, epochs: 1}]", "leaves values of kernel, depth, expand, width out"),
        ("[{name: a, epochs: 1, kernel: 2}]", "must train the full network alone"),
        ("[{name: a, epochs: 1}, {name: b, epochs: 1, kernel: 9}]", "kernel 9 is more than the 2"),
    ],
)
def test_stages_that_make_no_sense_train_nothing(
    nasaug: Nasaug, quick: tuple[str, ...], given: str, said: str
) -> None:
    shrink = ("--set", "supernet.method=shrinking", "--set", f"supernet.stages={given}")
    done = nasaug("search", *quick[1:], *DOWN, *shrink, "--out=run")
    assert done.code == 2 and said in done.said
    assert not Path("run/supernet").exists()
