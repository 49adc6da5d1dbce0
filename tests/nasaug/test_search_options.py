"""Searches within several limits, for several objectives, by several workers, from the shell."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.config import SearchConfig, load_config
from nasaug.pipelines.judging import make_judging
from nasaug.search import PairedRace
from nasaug.setting import prepare
from nasaug.supernet import Architecture, Network, flash_size, macs, params, peak_memory

Nasaug = Callable[..., Any]


def test_search_within_all_limits(nasaug: Nasaug, quick: tuple[str, ...], searched: Path) -> None:
    limits = ("--budget=1M..2M", "--max-params=60K", "--max-memory=40KB", "--max-flash=62KB")
    done = nasaug("search", *quick, *limits, "--trials=4", "--out=limited", "--json")
    assert done.code == 0
    best = json.loads(done.out)["best"]
    winner = Architecture.from_dict(best["architecture"])
    assert 1_000_000 <= macs(winner) == best["macs"] <= 2_000_000
    assert params(winner) == best["params"] <= 60_000
    assert peak_memory(winner) == best["memory"] <= 40 * 1024
    assert flash_size(winner) == best["flash"] <= 62 * 1024
    saved = json.loads(Path("limited/best.json").read_text())
    assert saved["limits"] == {
        "macs": 2_000_000,
        "least_macs": 1_000_000,
        "params": 60_000,
        "memory": 40 * 1024,
        "flash": 62 * 1024,
    }


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (("--max-params=100",), ["max-params must be at least micro_10k's own", "parameters"]),
        (("--max-memory=1KB",), ["max-memory must be at least", "bytes"]),
        (("--max-flash=1KB",), ["max-flash must be at least micro_10k's own", "bytes of flash"]),
        (("--budget=1G..2G",), ["lower end must be at most", "MACs"]),
        (
            ("--budget=7M..8M", "--max-params=20K"),
            ["each limit can be met alone", "no member meets all", "the least is", "parameters"],
        ),
    ],
)
def test_limits_that_nothing_meets_are_refused_before_anything_is_made(
    limits: tuple[str, ...], words: list[str], nasaug: Nasaug, quick: tuple[str, ...]
) -> None:
    done = nasaug("search", *quick, *limits, "--out=none")
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert not Path("none").exists()


def test_front_of_accuracy_and_macs(nasaug: Nasaug, quick: tuple[str, ...], searched: Path) -> None:
    options = ("--budget=2M", "--objectives=accuracy,macs", "--sampler=nsga2", "--trials=8")
    done = nasaug("search", *quick, *options, "--out=front", "--json")
    assert done.code == 0
    front = json.loads(done.out)["front"]
    points = [(row["accuracy"], row["macs"]) for row in front]
    assert points == sorted(points, reverse=True)
    assert len({*points}) == len(points)
    for (high, dear), (low, cheap) in itertools.pairwise(points):
        assert high > low and dear > cheap
    shown = nasaug("search", *quick, *options, "--out=front", "--resume")
    assert "Pareto front of accuracy, macs for micro_10k" in shown.out


@pytest.mark.parametrize("objective", ["help", "both"])
def test_search_for_what_helps_the_target(
    objective: str, nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    done = nasaug(
        "search",
        *quick,
        "--budget=2M",
        f"--objective={objective}",
        "--trials=3",
        "--out=helping",
        "--json",
    )
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert isinstance(facts["best"]["help"], float)
    assert 0 <= facts["best"]["accuracy"] <= 1
    listed = facts["front" if objective == "both" else "top"]
    helps = [row["help"] for row in listed]
    assert helps == sorted(helps, reverse=objective == "help")


@pytest.mark.parametrize(
    ("sets", "races"),
    [
        ([], True),
        (["sampler=tpe"], True),
        (["race.on=false"], False),
        (["sampler=nsga2"], False),
        (["objectives=accuracy,macs"], False),
        (["objectives=help"], False),
    ],
)
def test_race_is_run_where_it_may_be(
    sets: list[str], races: bool, data: tuple[str, ...], clothes: Path
) -> None:
    keys = {"target": "micro_10k", "data.name": "fashion-mnist", "data.dir": str(clothes)}
    config = load_config(SearchConfig, None, [*sets, "race.confidence=0.9"], keys)
    setting = prepare(config)
    space = config.make_space(setting.target)
    judging = make_judging(config, setting, space, Network(space.largest.canonical()))
    assert isinstance(judging.race, PairedRace) == races
    assert (judging.race is None) != races


def test_lost_races_are_told_from_judgements(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairedRace, "__call__", lambda self, candidate, incumbents: 0.01)
    done = nasaug("search", *quick, "--budget=2M", "--trials=5", "--out=raced")
    assert done.code == 0
    places = [line.split()[:2] for line in done.out.splitlines()[2:]]
    assert places[0][0] == "1"
    assert places[1:] == [["lost", "1.00"]] * 4
    result = json.loads(Path("raced/result.json").read_text())
    assert (result["trials"], result["pruned"]) == (5, 4)


def test_workers_share_a_search(shell: Any, quick: tuple[str, ...], searched: Path) -> None:
    done = shell.finish(
        shell.nasaug("search", *quick, "--budget=2M", "--trials=12", "--workers=2", "--out=two")
    )
    assert done.code == 0, done.err
    assert "2 workers of 1 thread(s) each" in done.said
    assert "ended early" not in done.said
    result = json.loads((shell.folder / "two/result.json").read_text())
    assert result["trials"] in (12, 13)
    assert (shell.folder / "two/workers/worker-1.log").is_file()


def test_another_process_joins_and_ends_a_search_that_was_killed(
    shell: Any, quick: tuple[str, ...], searched: Path
) -> None:
    options = ("search", *quick, "--budget=2M", "--trials=400", "--out=shared", "--no-race")
    first = shell.nasaug(*options)
    _wait_for(shell.folder / "shared/study.journal")
    refused = shell.finish(shell.nasaug(*options, "--resume"))
    assert refused.code == 2
    assert "another process is working in shared" in refused.said
    joined = shell.nasaug(*options[:-3], "--trials=150", *options[-2:], "--join")
    workers = shell.folder / "shared/workers"
    _wait_until(lambda: len(list(workers.glob("*"))) == 2)
    first.kill()
    first.communicate()
    done = shell.finish(joined)
    assert done.code == 0, done.err
    assert (shell.folder / "shared/best.json").is_file(), "the last one writes the result"


def test_there_must_be_a_search_to_join(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("search", *quick, "--budget=2M", "--out=nowhere", "--join")
    assert done.code == 2
    assert "nowhere holds no search to join" in done.said


def test_interrupted_search_says_the_best_so_far(
    shell: Any, quick: tuple[str, ...], searched: Path
) -> None:
    process = shell.nasaug("search", *quick, "--budget=2M", "--trials=4000", "--out=long")
    journal = shell.folder / "long/study.journal"
    _wait_until(lambda: journal.is_file() and journal.read_text().count('"op_code":6') >= 3)
    process.send_signal(signal.SIGINT)
    done = shell.finish(process)
    assert done.code == 130
    assert "best so far: accuracy 0." in done.said
    assert "interrupted; the same command with --resume goes on" in done.said


def test_latency_limit_from_an_imported_table(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    """A device elsewhere: the table's times are what counts, here one that widths shorten."""
    assert nasaug("latency-table", "micro_10k", "--validate=0", "--out=t.csv").code == 0
    done = nasaug(
        "search",
        *quick,
        "--budget=2M",
        "--latency-table=t.csv",
        "--max-latency=100ms",
        "--trials=3",
        "--out=fast",
        "--json",
    )
    assert done.code == 0, done.err
    assert 0 < json.loads(done.out)["best"]["latency"] <= 100_000_000
    with open("t.csv") as file:
        assert sum(1 for line in csv.reader(file) if line and not line[0].startswith("#")) > 100
    refused = nasaug("search", *quick, "--latency-table=t.csv", "--max-latency=1us", "--out=no")
    assert refused.code == 2
    assert "max-latency must be at least the fastest member's" in refused.said


def _wait_for(path: Path) -> None:
    _wait_until(path.exists)


def _wait_until(happened: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
