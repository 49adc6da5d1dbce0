"""Where cells lie, what their folders say, which study a folder holds, which code made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nasaug.comparing.store import Failure, Store, check_same_study, versions_in
from nasaug.comparing.versions import Code, syntax
from nasaug.training import TrainingFailed
from nasaug.training.monitor import Monitor


def test_a_failure_is_its_end_and_its_last_lines(kit: Any, tmp_path: Path) -> None:
    store = Store(tmp_path, "code")
    store.prepare(kit.study())
    cell = next(iter(kit.played(kit.study(), kit.trained).plan().cells))
    lines = [f"line {index}\n" for index in range(40)] + ["\n", "nasaug: no space left\n"]
    store.beside(cell.name, "log").write_text("".join(lines))
    failure = store.fail(cell, 1)
    assert failure == store.failure(cell.name)
    assert failure.lines[0] == "line 29" and len(failure.lines) == 12
    assert failure.text == "exit code 1: nasaug: no space left"
    assert store.state(cell.name) == "failed"
    store.forget_failure(cell.name)
    assert store.state(cell.name) == "waiting"


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
    assert store.cost("before-searched") == {"macs": None, "seconds": None}
    rows = [{"step": 1, "macs": 5, "seconds": 1.5}, {"step": 2, "macs": 7, "seconds": 2.0}]
    (supernet / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert store.cost("before-searched") == {"macs": 12, "seconds": 3.5}


def test_versions_are_kept_apart_and_counted(kit: Any, tmp_path: Path) -> None:
    assert versions_in(tmp_path) == {}
    for version in ("old", "new"):
        store = Store(tmp_path, version)
        store.prepare(kit.study())
        store.folder("one").mkdir()
    (Store(tmp_path, "old").folder("one") / "result.json").write_text('{"top1": 0.5}')
    assert versions_in(tmp_path) == {"new": 0, "old": 1}
    assert Store(tmp_path, "new").result("one") is None
    store = Store(tmp_path, "old")
    assert store.mixed() == []
    for version in ("old", "newer", "newer"):
        store.mix(version)
    assert store.mixed() == ["newer"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base": {"in_channels": 3}}, "another study .base: .* there, .* here.; choose another"),
        ({"methods": {"baseline": {}, "netaug": {"netaug": {"alpha": 2}}}}, "methods.netaug"),
        ({"before": {"it": {"search": {"budget": "3M"}}}}, "before.it"),
        ({"baseline": "netaug"}, "baseline: baseline there, netaug here"),
    ],
)
def test_another_study_is_refused(
    kit: Any, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    before = {"it": {"search": {"budget": "2M"}}}
    Store(tmp_path, "code").prepare(kit.study(before=before))
    with pytest.raises(ValueError, match=said):
        check_same_study(tmp_path, kit.study(**({"before": before} | keys)))


def test_a_study_may_grow(kit: Any, tmp_path: Path) -> None:
    Store(tmp_path, "code").prepare(kit.study())
    methods = {
        "baseline": {"seeds": 9},
        "netaug": {"largest": "published", "equal": ["macs"]},
        "kd": {"distill": {"teacher": "before:teacher"}},
    }
    check_same_study(
        tmp_path,
        kit.study(
            methods=methods,
            before={"teacher": {"train": {}}},
            seeds=8,
            targets=["micro_10k", "micro_40k"],
            tune={"grid": [0.1, 0.8]},
            answer="yes",
            workers=3,
        ),
    )


def test_a_folder_of_something_else_is_refused(kit: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no study"):
        check_same_study(tmp_path, kit.study())
    with pytest.raises(ValueError, match=r"mine.txt is a file"):
        check_same_study(tmp_path / "mine.txt", kit.study())
    check_same_study(tmp_path / "new", kit.study())


def test_syntax_is_without_comments_and_docstrings() -> None:
    plain = "def f(x):\n    return x + 1\n"
    told = (
        '"""A file."""\n\n\ndef f(x):  # adds\n    """Adds one."""\n    return (x\n        + 1)\n'
    )
    assert syntax(plain) == syntax(told)
    assert syntax(plain) != syntax(plain.replace("1", "2"))
    assert syntax('x = """a"""') != syntax('x = """b"""')


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
    assert version != Code(searches=True).version
    assert f"torch{torch.__version__.partition('+')[0]}" in version
