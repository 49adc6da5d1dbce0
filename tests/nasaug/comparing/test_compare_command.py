"""`nasaug compare`: what it prints and writes, interruptions, and a study of real cells."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasaug.comparing.cells import Cell
from nasaug.comparing.runner import Runner
from nasaug.workspace import is_in_use, lock_folder

Nasaug = Callable[..., Any]
OUTPUTS = {"summary.json", "table.csv", "table.md", "report.html"}


def test_a_study_is_run_told_and_written(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    done = nasaug("compare", study(), "--workers=3")
    assert done.code == 0
    assert "10 waiting of at least 10 cells; nothing is measured yet; 3 side by side" in done.said
    assert "10 done of 10 cells" in done.said
    assert "Does it help?" in done.out
    found = {path.name for path in Path("runs/compare-tiny").iterdir()}
    assert found == OUTPUTS | {"study.yaml", ".lock"}
    (line,) = [line for line in done.out.splitlines() if "equal epochs" in line]
    # Every seed differs by the same 1 point: an interval without width, and no p value.
    assert line.split()[:2] == ["micro_10k", "netaug"]
    assert "+1.00" in line and "+1.00 to +1.00" in line
    assert "report: runs/compare-tiny/report.html" in done.said


def test_json_is_the_summary(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    done = nasaug("compare", study(), "--out=here", "--json", "--seeds=1")
    assert done.code == 0
    summary = json.loads(Path("here/summary.json").read_text())
    where = {"run_dir": "here", "cells": "cells", "report": "here/report.html"}
    assert done.json == summary | where
    assert {path.name for path in Path().iterdir()} >= {"here", "cells"}
    assert summary["final"]
    assert {arm["planned"] for arm in summary["arms"]} == {1}


def test_it_goes_on_and_grows(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    assert nasaug("compare", study(), "--epochs=2").code == 0
    began = len(quickly.log)
    assert nasaug("compare", study(), "--epochs=2", "--resume").code == 0
    assert len(quickly.log) == began
    done = nasaug("compare", study(seeds=3), "--epochs=2", "--json")
    assert {arm["n"] for arm in done.json["arms"]} == {3}
    assert len(quickly.log) == began + 4


def test_failed_cells_are_told_and_the_end_is_1(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    broken = {"do": "say", "text": "nasaug: No space left on device", "code": 1}
    quickly.act({"netaug-e3-lr0.2-s0": broken})
    done = nasaug("compare", study())
    assert done.code == 1
    assert "1 cells failed" in done.said and "tries them again" in done.said
    assert "No space left" in Path("runs/compare-tiny/report.html").read_text()
    told = nasaug("compare", study(), "--status")
    assert "9 done, 1 failed" in told.said
    assert "exit code 1: nasaug: No space left on device" in told.out
    quickly.act({})
    assert nasaug("compare", study()).code == 0


def test_ctrl_c_ends_with_130_and_the_next_start_goes_on(
    nasaug: Nasaug, study: Any, quickly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Runner, watch: Callable[[Cell, Any], None]) -> bool:
        self.workers = 1

        def once(cell: Cell, plan: Any) -> None:
            raise KeyboardInterrupt

        return run(self, once)

    run = Runner.run
    monkeypatch.setattr(Runner, "run", interrupted)
    assert nasaug("compare", study()).code == 130
    monkeypatch.setattr(Runner, "run", run)
    assert nasaug("compare", study()).code == 0
    began = [name for what, name, _ in quickly.log if what == "begin"]
    assert len(began) == len(set(began)) == 10


def test_report_says_what_is_there_so_far(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    nasaug("compare", study(seeds=1))
    for name in OUTPUTS:
        (Path("runs/compare-tiny") / name).unlink()
    done = nasaug("compare", study(seeds=3), "--report")
    assert done.code == 0
    assert "1 of 3" in done.out
    assert "not final" in done.said
    assert {path.name for path in Path("runs/compare-tiny").iterdir()} >= OUTPUTS


def test_status_writes_nothing(
    nasaug: Nasaug, study: Any, quickly: Any, files_below: Callable[[], dict[str, bytes]]
) -> None:
    nasaug("compare", study(seeds=1))
    before = files_below()
    done = nasaug("compare", study(seeds=4), "--status", "--json")
    assert done.json["counts"] == {
        "done": 8, "running": 0, "diverged": 0, "failed": 0, "waiting": 6,
    }  # fmt: skip
    assert done.json["seconds_left"] > 0
    assert "about" in nasaug("compare", study(seeds=4), "--status").said
    before["tiny.yaml"] = files_below()["tiny.yaml"]
    assert files_below() == before


def test_cells_of_other_code_are_kept_apart(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    nasaug("compare", study(seeds=1))
    cells = Path("runs/cells")
    (own,) = cells.iterdir()
    own.rename(cells / "0.0-older")
    done = nasaug("compare", study(seeds=1), "--report", "--json")
    assert done.json["code"] == "0.0-older"
    assert f"cells of other code: 0.0-older (the code here is {own.name})" in done.said
    done = nasaug("compare", study(seeds=1), "--json")
    assert "cells of other code, 0.0-older, are kept apart" in done.said
    assert (done.json["code"], done.json["other_code"]) == (own.name, {"0.0-older": 8})
    done = nasaug("compare", study(seeds=2), "--json", "--code=0.0-older")
    assert (done.json["code"], done.json["mixed_code"]) == ("0.0-older", [own.name])
    assert {arm["n"] for arm in done.json["arms"]} == {2}
    (cells / "0.0-empty").mkdir()
    for ask in ("--status", "--report", "--publish=page"):
        done = nasaug("compare", study(), "--code=0.0-empty", ask)
        assert done.code == 2
        assert "code 0.0-empty has no cell of this study in runs/cells" in done.said
    assert not Path("page").exists()
    done = nasaug("compare", study(), "--code=0.0-oldest")
    assert done.code == 2
    assert "runs/cells holds no cells of code '0.0-oldest'; those it holds: " in done.said


@pytest.mark.parametrize(
    ("keys", "options", "said"),
    [
        ({"seeds": 0}, (), "seeds must be a count from 1 to 1000"),
        ({}, ("--seeds=0",), "seeds must be a count from 1 to 1000"),
        ({"tune": {"grid": []}}, (), "a grid is one or more different learning rates"),
        ({"baseline": "netag"}, (), "none of the methods: did you mean 'netaug'"),
        (
            {"methods": {"baseline": {}, "netaug": {"netaug": {"alpa": 1}}}},
            (),
            "methods.netaug: unknown key 'netaug.alpa': did you mean 'netaug.alpha'",
        ),
        (
            {"methods": {"baseline": {}, "netbooster": {"netaug": {"alpha": 1}}}},
            (),
            "methods.netbooster: netaug and boost do not go together",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {}}},
            (),
            "methods.netaug, target micro_10k: largest: auto is whatever was searched last",
        ),
        (
            {"methods": {"baseline": {}, "kd": {"distill": {"teacher": "nowhere"}}}},
            (),
            "methods.kd, target micro_10k: 'nowhere' is no teacher",
        ),
        (
            {"methods": {"baseline": {}, "unsharing": {}}},
            (),
            "methods.unsharing, target micro_10k: weight sharing needs a stage with two equal",
        ),
        ({"targets": ["micro_11k"]}, (), "unknown target 'micro_11k': did you mean 'micro_10k'"),
        ({}, ("--data=fashion",), "unknown data set 'fashion'"),
        ({}, ("--set=base.train.epoch=3",), "unknown key 'train.epoch': did you mean 'train.ep"),
        ({}, ("--report",), "holds no cells of this study yet"),
        ({}, ("--status",), "holds no cells of this study yet"),
        ({}, ("--status", "--report"), "different questions; ask one"),
        ({}, ("--cells=runs/compare-tiny",), "is where the cells of all studies lie"),
        ({"lengths": [2, 3]}, (), "base.train.epochs is decided by lengths; leave it out of base"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    nasaug: Nasaug,
    study: Any,
    quickly: Any,
    keys: dict[str, Any],
    options: tuple[str, ...],
    said: str,
) -> None:
    done = nasaug("compare", study(**keys), *options)
    assert done.code == 2
    assert said in done.said
    assert not Path("runs").exists()
    assert quickly.log == []


def test_unknown_studies_and_other_folders_are_refused(
    nasaug: Nasaug, study: Any, quickly: Any
) -> None:
    done = nasaug("compare", "mirco")
    assert (done.code, "unknown study 'mirco': did you mean 'micro'" in done.said) == (2, True)
    assert "name a study" in nasaug("compare").said
    Path("mine").mkdir()
    Path("mine/text.txt").write_text("mine")
    done = nasaug("compare", study(), "--out=mine")
    assert (done.code, "mine is not empty and holds no study" in done.said) == (2, True)


def test_one_process_runs_a_study_at_a_time(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    nasaug("compare", study(seeds=1))
    with lock_folder(Path("runs/compare-tiny")):
        done = nasaug("compare", study(seeds=2))
    assert done.code == 2
    assert "another process is working in runs/compare-tiny; nasaug compare --status" in done.said


def test_the_built_in_studies_are_listed(nasaug: Nasaug) -> None:
    done = nasaug("compare", "--list")
    assert done.code == 0
    assert "tiny_vs_large" in done.out
    found = nasaug("compare", "--list", "--json").json
    assert found["micro"]["question"].endswith("?")


def real_study(study: Any, clothes: Path) -> str:
    """Real cells, of seconds each."""
    base = {
        "in_channels": 1,
        "data": {"name": "fashion-mnist", "dir": str(clothes)},
        "train": {"epochs": 2, "warmup_epochs": 0, "batch_size": 64, "bn_images": 64},
    }
    tune = {"grid": [0.1], "extend": False, "share": 0.5, "longer": False}
    written: str = study(base=base, tune=tune, equal=["epochs", "macs"], seeds=1)
    return written


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_real_cells_killed_asked_and_gone_on_with(
    nasaug: Nasaug, shell: Any, study: Any, clothes: Path
) -> None:
    path = real_study(study, clothes)
    process = shell.nasaug("compare", path, "--workers=1", "--out=out")

    def cells(ending: str) -> list[Path]:
        return list(Path("cells").glob(f"*/*/{ending}"))

    wait_for(lambda: cells("result.json"))
    done_before = {path.parent.name for path in cells("result.json")}
    wait_for(lambda: any(is_in_use(lock.parent) for lock in cells(".lock")))
    told = nasaug("compare", path, "--out=out", "--status", "--json").json
    assert told["counts"]["done"] >= 1
    assert told["counts"]["running"] + told["counts"]["waiting"] >= 1
    assert told["seconds_left"] > 0
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Its cell ends with it, so that nobody stands in the way of the next start.
    wait_for(lambda: not any(is_in_use(lock.parent) for lock in cells(".lock")), 20)
    times = {path: path.stat().st_mtime_ns for path in cells("result.json")}

    # The data may lie elsewhere by then.
    shutil.copytree(clothes, "moved")
    done = nasaug("compare", path, "--workers=1", "--out=out", "--json", "--data-dir=moved")
    assert done.code == 0
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert done_before <= {path.parent.name for path in cells("result.json")}
    summary = done.json
    assert summary["final"] and not summary["failed"]
    arms = {(arm["method"], arm["longer"]): arm for arm in summary["arms"]}
    assert set(arms) == {("baseline", False), ("netaug", False), ("baseline", True)}
    assert [arm["n"] for arm in arms.values()] == [1, 1, 1]
    # Equal compute, as far as whole epochs go.
    helped, longer = arms["netaug", False], arms["baseline", True]
    an_epoch = longer["train_macs"] / longer["epochs"]
    assert longer["epochs"] > 2
    assert abs(longer["train_macs"] - helped["train_macs"]) < 0.15 * helped["train_macs"] + an_epoch
    assert len(helped["curves"]["validation"]["epochs"]) == 2
    assert summary["time"] == "cpu_seconds"
    assert all(arm["train_cpu_seconds"] > 0 for arm in arms.values())
    for row in summary["comparisons"]:
        assert (row["n"], row["low"], row["p"]) == (1, None, None)
    assert {path.name for path in Path("out").iterdir()} >= OUTPUTS
    saved = next(path for path in Path("cells").glob("*/*-netaug-e2-*/config.yaml"))
    config = yaml.safe_load(saved.read_text())
    assert (config["threads"], config["method"]) == (1, "netaug")
