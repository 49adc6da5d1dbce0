"""`nasaug dashboard`: what it puts on a study, what it serves, and that it disturbs no search."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nasaug.pipelines import dashboard as pipeline
from nasaug.pipelines.dashboard import PICTURES, end_last_line
from nasaug.pipelines.notes import MARK, merged, study_note
from nasaug.pipelines.searched import Searched, read_search
from nasaug.pipelines.serving import bind, is_loopback, url_of

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="NO DASHBOARD is installed")

Nasaug = Callable[..., Any]
MakeRun = Callable[..., Path]
Prepared = Callable[[Path], tuple[Searched, Any, FileSystemArtifactStore]]
Serving = Callable[[Any, Any], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PICTURES", 2)


def _get(url: str, host: str | None = None) -> Any:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def test_the_study_is_served_with_its_note_and_pictures(
    run: Path, monkeypatch: pytest.MonkeyPatch, prepared: Prepared, serving: Serving
) -> None:
    monkeypatch.setattr(pipeline, "PICTURES", PICTURES)
    searched, storage, artifacts = prepared(run)
    assert searched.winner is not None
    with serving(storage, artifacts) as address:
        study = json.loads(_get(f"{address}/api/studies/0"))
        (path,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", study["note"]["body"])
        picture = _get(address + path).decode()
    note = study["note"]["body"]
    for text in (
        "## Search around `micro_10k`, at most 3,000,000 MACs",
        "finished: 16 of 16 trials judged",
        f"| MACs | 336,144 | {searched.winner.costs['macs']:,} |",
        "| peak int8 memory (bytes) | 7,840 |",
        f"trial {searched.winner.number}, validation top-1 (%)",
        "How to read the plots",
    ):
        assert text in note, text
    words = "".join(ElementTree.fromstring(picture).itertext())
    assert f"micro_10k trial {searched.winner.number} over micro_10k" in words
    assert study["objective_names"] == ["accuracy"]
    best = [trial for trial in study["trials"] if trial["artifacts"]]
    numbers = {trial.number for trial in searched.ranked[:10]}
    assert len(numbers) == 10
    assert {trial["number"] for trial in best} == numbers
    assert {a["filename"] for t in best for a in t["artifacts"]} == {"architecture.svg"}
    for trial in study["trials"]:
        attributes = {a["key"]: a["value"] for a in trial["user_attrs"]}
        assert {"macs", "params", "memory", "feasible"} <= attributes.keys()


def test_opened_again_nothing_is_written(run: Path, prepared: Prepared) -> None:
    prepared(run)
    journal = (run / "study.journal").read_bytes()
    pictures = sorted(path.name for path in (run / "artifacts").iterdir())
    prepared(run)
    assert (run / "study.journal").read_bytes() == journal
    assert sorted(path.name for path in (run / "artifacts").iterdir()) == pictures
    assert len(pictures) == 2


def test_a_picture_that_was_deleted_is_drawn_again(
    run: Path, prepared: Prepared, serving: Serving
) -> None:
    _, storage, _ = prepared(run)
    lost = next((run / "artifacts").iterdir())
    lost.unlink()
    prepared(run)
    assert len(list((run / "artifacts").iterdir())) == 2
    assert not lost.exists()
    with serving(storage, FileSystemArtifactStore(run / "artifacts")) as address:
        study = json.loads(_get(f"{address}/api/studies/0"))
        counts = [len(trial["artifacts"]) for trial in study["trials"] if trial["artifacts"]]
        assert counts == [1] * 2
        for trial in study["trials"]:
            for artifact in trial["artifacts"]:
                identifier = artifact["artifact_id"]
                _get(f"{address}/artifacts/0/{trial['trial_id']}/{identifier}")


def test_the_search_itself_is_as_it_was(run: Path, prepared: Prepared) -> None:
    before = _trials(run)
    prepared(run)
    assert _trials(run) == before


def _trials(run: Path) -> list[Any]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return optuna.load_study(study_name=None, storage=storage).trials


def test_what_people_wrote_into_the_note_is_kept(run: Path, prepared: Prepared) -> None:
    searched, _, _ = prepared(run)
    ours = optuna_dashboard.get_note(searched.study)
    optuna_dashboard.save_note(searched.study, ours + "mine: try a *wider* head\n")
    searched, _, _ = prepared(run)
    note = optuna_dashboard.get_note(searched.study)
    assert note == ours + "mine: try a *wider* head\n"


def test_a_note_from_before_is_kept(run: Path, prepared: Prepared) -> None:
    searched, _ = read_search(run)
    optuna_dashboard.save_note(searched.study, "the second attempt")
    prepared(run)
    note = optuna_dashboard.get_note(read_search(run)[0].study)
    assert note.startswith("## Search around")
    assert note.endswith(MARK + "the second attempt")


@given(st.text(), st.text(), st.text())
def test_notes_are_merged_once(old: str, new: str, theirs: str) -> None:
    once = merged(old, theirs)
    assert once.endswith(theirs)
    assert merged(old, once) == once
    assert merged(new, once) == merged(new, theirs)


def test_names_in_the_note_stay_names(make_run: MakeRun) -> None:
    name = "imagefolder:![x](http://elsewhere/y.png) `<b>`"
    searched, _ = read_search(make_run("names", trials=1, **{"data.name": name}))
    note = study_note(searched, None)
    assert "`imagefolder:![x](http://elsewhere/y.png) '<b>'`" in note


def test_a_study_in_a_database_with_others(
    make_run: MakeRun, tmp_path: Path, prepared: Prepared, serving: Serving
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    make_run("first", folder=tmp_path, storage=url, trials=2, max_params="100K")
    run = make_run("second", folder=tmp_path, storage=url, trials=2)
    searched, storage, artifacts = prepared(run)
    numbers = {trial.number: trial.trial_id for trial in searched.ranked}
    assert all(number != identifier for number, identifier in numbers.items())
    with serving(storage, artifacts) as address:
        study = json.loads(_get(f"{address}/api/studies/{searched.study._study_id}"))
    pictured = {t["number"]: t["trial_id"] for t in study["trials"] if t["artifacts"]}
    assert pictured == numbers
    first = optuna.load_study(study_name="micro_10k-first", storage=url)
    assert optuna_dashboard.get_note(first) == ""


def test_the_front_of_several_objectives_is_pictured(
    make_run: MakeRun, tmp_path: Path, prepared: Prepared, serving: Serving
) -> None:
    run = make_run("several", folder=tmp_path, objectives="accuracy,macs", finished=False)
    searched, storage, artifacts = prepared(run)
    with serving(storage, artifacts) as address:
        study = json.loads(_get(f"{address}/api/studies/0"))
    pictured = {trial["number"] for trial in study["trials"] if trial["artifacts"]}
    assert pictured == {trial.number for trial in searched.front[:2]}
    assert study["objective_names"] == ["accuracy", "macs"]
    assert "not finished when this was written" in study["note"]["body"]


def test_before_the_first_trial_the_note_says_so(run: Path, prepared: Prepared) -> None:
    (run / "best.json").unlink()
    lines = (run / "study.journal").read_bytes().splitlines(keepends=True)
    begun = next(i for i, line in enumerate(lines) if b'"datetime_start"' in line)
    (run / "study.journal").write_bytes(b"".join(lines[:begun]))
    searched, _, _ = prepared(run)
    note = optuna_dashboard.get_note(searched.study)
    assert "No trial is finished yet." in note
    assert "0 of 16 trials judged" in note
    assert "![" not in note


SEARCHING = """
import sys, time
from pathlib import Path
from nasaug.search import search
from nasaug.supernet import SearchSpace, load_target
space = SearchSpace.around(load_target("micro_10k", 10))
def judge(arch):
    time.sleep(0.02)
    return space.macs(space.path(arch)) / 1e7
study = search(space, judge, 3_000_000, Path(sys.argv[1]), trials=16, name="live")
assert len(study.trials) == 16
"""


def test_a_running_search_is_not_disturbed(run: Path, shell: Any, prepared: Prepared) -> None:
    """A search writes its journal while the note and pictures are put on it again and again."""
    journal = run / "study.journal"
    journal.unlink()
    (run / "best.json").unlink()
    process = shell.python(SEARCHING, str(journal))
    seen = []
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if journal.is_file() and journal.stat().st_size > 2000:
            end_last_line(journal)
            searched, _, _ = prepared(run)
            seen.append(len(searched.judged))
    done = shell.finish(process)
    assert (done.code, done.err) == (0, "")
    assert min(seen) < max(seen)
    trials = _trials(run)
    assert [trial.number for trial in trials] == list(range(16))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert not journal.with_name("study.journal.lock").is_symlink()


def test_a_line_cut_off_is_removed_before_something_is_added(run: Path, prepared: Prepared) -> None:
    journal = run / "study.journal"
    whole = journal.read_bytes()
    end_last_line(journal)
    assert journal.read_bytes() == whole
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"dead","trial_')
    before = _trials(run)
    end_last_line(journal)
    assert journal.read_bytes() == whole
    prepared(run)
    assert _trials(run) == before
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_of_a_journal_with_half_a_line_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.journal").write_bytes(b'{"op_code":0')
    end_last_line(tmp_path / "x.journal")
    assert (tmp_path / "x.journal").read_bytes() == b""
    end_last_line(tmp_path / "x.journal")
    end_last_line(tmp_path / "absent.journal")
    assert [path.name for path in tmp_path.iterdir()] == ["x.journal"]


def test_ctrl_c_ends_it(run: Path, shell: Any) -> None:
    process = shell.nasaug("dashboard", "run", "--port=0", "--json")
    said = json.loads(process.stdout.readline())
    assert (said["study"], said["run_dir"]) == ("micro_10k-finished", "run")
    page, _, _ = said["url"].partition("/dashboard/")
    assert said["url"] == f"{page}/dashboard/studies/0"
    assert b"/static/bundle.js" in _get(said["url"])
    assert page.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    done = shell.finish(process)
    assert (done.code, done.out) == (0, "")
    assert done.said.endswith("dashboard closed")
    assert f"dashboard: {said['url']} (Ctrl-C ends it)" in done.said
    assert f"{said['url']}/note" in done.said
    assert "warning" not in done.said


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Servers end at once, as by Ctrl-C; the opened pages are listed."""
    import webbrowser

    opened: list[str] = []

    def interrupted(self: object, poll_interval: float = 0.5) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nasaug.pipelines.serving.Server.serve_forever", interrupted)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    return opened


def test_another_address_only_with_a_warning(
    nasaug: Nasaug, run: Path, unserved: list[str]
) -> None:
    done = nasaug("dashboard", "run", "--host=0.0.0.0", "--port=0", "--browser")
    assert done.code == 0
    assert "warning: the dashboard has no password; whoever reaches 0.0.0.0" in done.said
    assert len(unserved) == 1
    assert unserved[0].startswith("http://0.0.0.0:")
    done = nasaug("dashboard", "run", "--port=0")
    assert (done.code, len(unserved)) == (0, 1)
    assert "warning" not in done.said


def test_a_storage_without_a_run_is_shown_as_it_is(
    nasaug: Nasaug, tmp_path: Path, unserved: list[str]
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    study = optuna.create_study(storage=url, study_name="strange")
    done = nasaug("dashboard", f"--storage={url}", "--port=0", "--json")
    assert done.code == 0
    assert list(done.json) == ["url"]
    assert done.json["url"].endswith("/dashboard")
    assert optuna_dashboard.get_note(study) == ""


def test_a_port_in_use_is_told_and_nothing_is_written(
    nasaug: Nasaug, run: Path, files_below: Callable[[], dict[str, bytes]]
) -> None:
    before = files_below()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = nasaug("dashboard", "run", f"--port={port}")
    assert (done.code, done.out) == (2, "")
    assert f"port {port} of 127.0.0.1 is in use" in done.said
    assert "choose another --port (0 takes a free one)" in done.said
    assert files_below() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--host=no.such.host.invalid"], "is no address of this machine"),
        (["run", "--host=192.0.2.1", "--port=0"], "cannot listen on 192.0.2.1"),
        (["run", "--port=65536"], "65536"),
        (["nowhere", "--port=0"], "nowhere is no search's run folder"),
        (["--port=0"], "no search was found below runs/"),
        (["run", "--port=0", "--storage=sqlite:///nowhere.db"], "nowhere.db does not exist"),
        (["run", "--port=0", "--study=mine"], "no study 'mine'"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], said: str, nasaug: Nasaug, run: Path, unserved: list[str]
) -> None:
    done = nasaug("dashboard", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.said
    assert not (run / "artifacts").exists()


def test_a_missing_package_is_named(
    nasaug: Nasaug, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    done = nasaug("dashboard", "run")
    assert done.code == 2
    assert "pip install 'nasaug[dashboard]'" in done.said
    assert not (run / "artifacts").exists()


def test_pages_from_elsewhere_cannot_reach_it(run: Path, serving: Serving) -> None:
    """An attacker's name that points to this machine carries that name in its requests."""
    searched, storage = read_search(run)
    with serving(storage, None) as address:
        _get(f"{address}/api/studies")
        port = address.rpartition(":")[2]
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "[::1]"):
            _get(f"{address}/api/studies", host)
        for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "192.0.2.1"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                _get(f"{address}/api/studies", host)
    assert searched.trials


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_address_of_the_newer_kind() -> None:
    try:
        server = bind("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert server.socket.family == socket.AF_INET6
        assert url_of("::1", server.server_port) == f"http://[::1]:{server.server_port}"


def test_its_help_says_the_defaults(nasaug: Nasaug) -> None:
    said = " ".join(nasaug("dashboard", "--help").out.split())
    assert "[default: 127.0.0.1]" in said
    assert re.search(r"--browser / --no-browser.*\[default: no-browser\]", said)
