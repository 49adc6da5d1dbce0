"""Where cells lie, what their folders say, what a study's folder may hold, which code made it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.comparing.store import Failure, Store, versions_in
from nasaug.comparing.studies import check_folder
from nasaug.comparing.versions import DETECTORS, Code, syntax
from nasaug.training import TrainingFailed
from nasaug.training.monitor import Monitor


def test_a_failure_is_its_end_and_its_last_lines(tmp_path: Path) -> None:
    store = Store(tmp_path, "code")
    store.root.mkdir()
    lines = [f"line {index}\n" for index in range(40)] + ["\n", "nasaug: no space left\n"]
    store.beside("one", "log").write_text("".join(lines))
    failure = store.fail("one", 1)
    assert failure == store.failure("one")
    assert failure.lines[0] == "line 29" and len(failure.lines) == 12
    assert failure.text == "exit code 1: nasaug: no space left"
    assert store.state("one") == "failed"
    store.forget_failure("one")
    assert store.state("one") == "waiting"


def test_one_at_a_time_may_run_a_cell(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path, "code"), Store(tmp_path, "code")
    log = ours.claim("one")
    assert log is not None
    log.write(b"began\n")
    log.flush()
    assert theirs.claim("one") is None
    assert [store.state("one") for store in (ours, theirs)] == ["running", "running"]
    log.close()
    assert theirs.state("one") == "waiting"
    assert ours.beside("one", "log").read_text() == "began\n"
    again = theirs.claim("one")
    assert again is not None
    assert ours.beside("one", "log").read_text() == ""
    again.close()


def test_what_was_finished_meanwhile_is_not_begun_again(tmp_path: Path) -> None:
    store = Store(tmp_path, "code")
    store.folder("one").mkdir(parents=True)
    store.beside("one", "log").write_text("what it said")
    (store.folder("one") / "result.json").write_text('{"top1": 0.5}')
    assert store.claim("one") is None
    assert store.beside("one", "log").read_text() == "what it said"


def test_a_claim_lasts_as_long_as_the_process_that_writes(tmp_path: Path) -> None:
    """A study that is killed cannot let go of what its cell still writes."""
    store = Store(tmp_path, "code")
    log = store.claim("one")
    assert log is not None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    log.close()
    assert store.state("one") == "running"
    process.communicate(b"\n")
    assert store.state("one") == "waiting"


def test_an_end_without_a_word_is_told_too() -> None:
    assert Failure(-9, ()).text == "signal 9"
    assert not Failure(-9, ()).diverged


def test_what_training_says_of_a_loss_that_is_not_finite_is_understood() -> None:
    monitor = Monitor(torch.device("cpu"))
    losses = {"loss_target": torch.tensor(float("nan"))}
    with pytest.raises(TrainingFailed) as said:
        monitor.add(7, 0.8, losses, torch.zeros(2))
    assert Failure(1, (f"nasaug: {said.value}",)).diverged
    assert not Failure(1, ("nasaug: No space left on device",)).diverged


def test_a_result_that_is_damaged_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "code")
    store.folder("one").mkdir(parents=True)
    assert store.result("one") is None
    (store.folder("one") / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"one/result.json is damaged"):
        store.result("one")


def test_what_a_search_cost_is_its_supernets_training(tmp_path: Path) -> None:
    store = Store(tmp_path, "code")
    supernet = store.folder("before-searched") / "supernet"
    supernet.mkdir(parents=True)
    (store.folder("before-searched") / "result.json").write_text('{"best": {}}')
    unknown = {"macs": None, "seconds": None, "cpu_seconds": None}
    assert store.cost("before-searched") == unknown
    rows = [
        {"step": 1, "macs": 5, "seconds": 1.5},
        {"step": 2, "macs": 7, "seconds": 2.0, "cpu_seconds": 1.0},
    ]
    (supernet / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # One epoch was trained by a release that did not measure them all.
    assert store.cost("before-searched") == {"macs": 12, "seconds": 3.5, "cpu_seconds": None}
    rows[0]["cpu_seconds"] = 0.5
    (supernet / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert store.cost("before-searched") == {"macs": 12, "seconds": 3.5, "cpu_seconds": 1.5}


def test_versions_are_kept_apart_and_a_studys_own_cells_counted(kit: Any, tmp_path: Path) -> None:
    assert versions_in(tmp_path, "here") == []
    study = kit.study()
    cell = kit.played(study, kit.trained).plan().cells[0]
    for version in ("old", "new"):
        for name in (cell.identity, "of-another-study"):
            Store(tmp_path, version).folder(name).mkdir(parents=True)
    for name in (cell.identity, "of-another-study"):
        result = Store(tmp_path, "old").folder(name) / "result.json"
        result.write_text('{"validation_top1": 0.5}')
    assert versions_in(tmp_path, "here") == ["new", "old"]
    Store(tmp_path, f"old{DETECTORS}").folder(cell.identity).mkdir(parents=True)
    assert versions_in(tmp_path, f"here{DETECTORS}") == [f"old{DETECTORS}"]
    assert versions_in(tmp_path, "here") == ["new", "old"], "of as much code"
    here = Store(tmp_path, "new")
    assert here.elsewhere([cell.identity, "of-nobody"]) == {"old": 1}
    assert here.elsewhere(["of-nobody"]) == {}
    assert here.result(cell.identity) is None
    store = Store(tmp_path, "old")
    assert store.elsewhere([cell.identity]) == {}
    assert store.mixed() == []
    for version in ("old", "newer", "newer"):
        store.mix(version)
    assert store.mixed() == ["newer"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no study; choose another --out"):
        check_folder(tmp_path, cells)
    with pytest.raises(ValueError, match=r"--out must be a folder, but .*mine.txt is a file"):
        check_folder(tmp_path / "mine.txt", cells)
    with pytest.raises(ValueError, match=r"--cells must be a folder, but .*mine.txt is a file"):
        check_folder(tmp_path / "new", tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="where the cells of all studies lie; choose another"):
        check_folder(cells, tmp_path / "new" / ".." / "cells")
    check_folder(tmp_path / "new", cells)
    (tmp_path / "new").mkdir()
    for name in (".lock", "study.yaml", "table.md"):
        (tmp_path / "new" / name).write_text("")
        check_folder(tmp_path / "new", cells)


REPORT = {"summary.json": '{"study": "s", "arms": [], "comparisons": []}', "table.csv": ""}


@pytest.mark.parametrize(
    ("files", "gone_on_with"),
    [
        (REPORT, True),
        (REPORT | {".lock": "", "table.md": "", "report.html": ""}, True),
        (REPORT | {"mine.txt": ""}, False),
        ({"table.csv": "mine"}, False),
        ({"summary.json": '{"mine": 1}'}, False),
        ({"summary.json": "{"}, False),
        ({"summary.json": "[]"}, False),
    ],
)
def test_a_folder_of_nothing_but_a_report_is_gone_on_with(
    files: dict[str, str], gone_on_with: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    if gone_on_with:
        check_folder(out, tmp_path / "cells")
        return
    with pytest.raises(ValueError, match="is not empty and holds no study; choose another --out"):
        check_folder(out, tmp_path / "cells")


def test_syntax_is_without_comments_and_docstrings() -> None:
    plain = "def f(x):\n    return x + 1\n"
    told = (
        '"""A file."""\n\n\ndef f(x):  # adds\n    """Adds one."""\n    return (x\n        + 1)\n'
    )
    assert syntax(plain) == syntax(told)
    assert syntax(plain) != syntax(plain.replace("1", "2"))
    assert syntax('x = """a"""') != syntax('x = """b"""')
    assert syntax("return_ = None") != syntax("return_ = 0")


def test_syntax_is_without_what_is_empty() -> None:
    """Which empty fields a tree has depends on the release of Python."""
    assert "keywords" not in syntax("f()")
    assert "returns" not in syntax("def f(): return 1")


def test_the_version_of_the_code_is_what_it_trains_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nasaug.comparing.versions as versions

    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    step = room / "step.py"
    step.write_text("rate = 1\n")
    monkeypatch.setattr(versions, "ROOMS", ("room",))
    monkeypatch.setattr(versions, "MODULES", ())
    monkeypatch.setattr(versions, "_origin", lambda name: str(room / "__init__.py"))
    code = Code()
    assert not code.changed()
    step.write_text("rate = 1  # the rate\n\n")
    assert not code.changed()
    assert Code().version == code.version
    step.write_text("rate = 2\n")
    assert code.changed()
    assert Code().version != code.version
    step.write_text("rate = (\n")
    assert code.changed()


def test_the_code_of_this_project_has_a_version() -> None:
    version = Code().version
    assert version == Code().version
    assert f"torch{torch.__version__.partition('+')[0]}" in version
