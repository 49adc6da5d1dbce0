"""On what the compute of finished runs went."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasaug.comparing.store import Store
from nasaug.contrasting.plan import Planner
from nasaug.contrasting.spending import Bookkeeper, Spent
from nasaug.contrasting.summary import summarise
from nasaug.supernet import load_space, load_target, macs, shared_macs
from nasaug.training import RunFolder, load_weights

Nasaug = Callable[..., Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ran")


@pytest.fixture
def books(
    ran: Path, contrast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Planner, Bookkeeper]:
    """Of a contrast that was really run, once, its runs in this process one after the other."""
    from nasaug.__main__ import run
    from nasaug.config import dump_config

    monkeypatch.chdir(ran)
    tune = {"grid": [0.1], "extend": False}
    planner = Planner(contrast(seeds=1, tune=tune, epochs=8), Store(ran / "cells", "code"))
    while True:
        waiting = [c for c in planner.plan().cells if planner.store.result(c.identity) is None]
        if not waiting:
            break
        cell = next(c for c in waiting if all(map(planner.store.result, c.needs)))
        folder = planner.store.folder(cell.identity)
        config = ran / "config.yaml"
        config.write_text(dump_config(cell.config))
        assert run([cell.command, f"--config={config}", f"--out={folder}"]) == 0
    return planner, Bookkeeper(planner.runs, planner.store)


def test_spending(books: tuple[Planner, Bookkeeper]) -> None:
    planner, keeper = books
    plan, compute = planner.plan(), planner.runs.compute
    spent = {name: keeper.spent(entries[0]) for name, entries in plan.entries.items()}
    # Equal, up to the epochs that each cannot split: 256 images, supernets' of mean members.
    for name, one in spent.items():
        assert one.total == pytest.approx(compute, rel=0.35), name
    alone, netaug, searched = (spent[n] for n in ("alone", "netaug", "netaug_searched"))
    assert alone == Spent(training=alone.training) and alone.unused == 0
    target = macs(load_target("micro_10k", 10, 28, 1))
    rows = planner.store.rows(plan.entries["netaug"][0].training.identity)
    # Two passes of every image: the target's own, and the target's part of the helper's.
    assert netaug.training - netaug.unused == 2 * 256 * len(rows) * target
    assert searched.unused_supernet == searched.supernet > 0, "nobody inherits it"
    assert searched.judging > 0
    inherited, finetuned, fresh = (
        spent[name] for name in ("ofa_inherited", "ofa_finetuned", "ofa_alone")
    )
    assert inherited.training == 0 and 0 < inherited.unused_supernet < inherited.supernet
    assert finetuned.supernet == fresh.supernet
    assert finetuned.unused_supernet < fresh.unused_supernet == fresh.supernet
    assert finetuned.unused_training == fresh.unused_training == 0


def test_unused_of_a_single_path_supernet_by_hand(books: tuple[Planner, Bookkeeper]) -> None:
    planner, keeper = books
    entry = planner.plan().entries["ofa_inherited"][0]
    assert entry.search is not None
    folder = planner.store.folder(entry.search.identity)
    space = load_space("micro_down", 10)
    found = space.embed(load_weights(folder / "weights.safetensors").arch)
    rows = RunFolder(folder / "supernet", writes=False).metrics()
    used = 0
    for step in range(int(rows[-1]["step"])):
        member = space.sample(random.Random(f"0/step/{step}"))
        used += 64 * shared_macs(member, found, 28)
    spent = keeper.spent(entry)
    assert spent.unused_supernet == sum(row["macs"] for row in rows) - used


def test_what_takes_long_is_kept(
    books: tuple[Planner, Bookkeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner, keeper = books
    entry = planner.plan().entries["ofa_inherited"][0]
    first = keeper.spent(entry), keeper.test_top1(entry)
    assert 0 < first[1] < 1
    monkeypatch.setattr(Bookkeeper, "_passes", None)
    monkeypatch.setattr("nasaug.contrasting.spending.evaluate", None)
    again = Bookkeeper(planner.runs, Store(planner.store.cells, "code"))
    assert (again.spent(entry), again.test_top1(entry)) == first


def test_weights_live_on_where_the_run_says_so(books: tuple[Planner, Bookkeeper]) -> None:
    """Whatever keys a contestant was given, and only weights of its own search."""
    planner, keeper = books
    entry = planner.plan().entries["ofa_alone"][0]
    assert entry.search is not None and entry.training is not None
    cell, folder = entry.training, str(planner.store.folder(entry.search.identity))
    fresh = keeper.spent(entry)
    for init, live_on in ((folder, True), ("elsewhere", False)):
        config = cell.config.model_copy(update={"init": init})
        given = replace(entry, training=replace(cell, config=config))
        assert (keeper.spent(given).unused_supernet < fresh.unused_supernet) == live_on


def test_files_that_do_not_agree(books: tuple[Planner, Bookkeeper]) -> None:
    planner, keeper = books
    entry = planner.plan().entries["netaug"][0]
    assert entry.training is not None
    planner.store.beside(entry.training.identity, "unused.json").unlink(missing_ok=True)
    result = planner.store.result(entry.training.identity)
    assert result is not None
    result["train_macs"] += 1
    try:
        with pytest.raises(ValueError, match=r"recorded .* but its passes come to .* remove"):
            keeper.spent(entry)
    finally:
        result["train_macs"] -= 1


def test_a_run_that_several_build_on_counts_once(books: tuple[Planner, Bookkeeper]) -> None:
    planner, keeper = books
    plan = planner.plan()
    rows = {name: keeper.spent(entries[0]) for name, entries in plan.entries.items()}
    twice = rows["ofa_finetuned"].supernet + rows["ofa_finetuned"].judging
    every = sum(one.total for one in rows.values()) - 2 * twice
    once = summarise(planner, plan, "tiny")["once"]
    assert once["macs"] == every and once["seconds"] > 0
