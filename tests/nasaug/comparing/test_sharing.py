"""Studies that share cells, also at the same time: no cell is run twice, none is broken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasaug.comparing.plan import Planner
from nasaug.comparing.runner import Runner
from nasaug.comparing.status import status
from nasaug.comparing.store import Store
from nasaug.study_config import Study
from nasaug.supernet import load_target
from nasaug.training import write_json

Nasaug = Callable[..., Any]
TUNE = {"grid": [0.1, 0.2, 0.3]}


def planner_of(study: Study, folder: Path) -> Planner:
    return Planner(study, Store(folder / "cells", "code"))


def run(planner: Planner, stand_in: Any, workers: int = 2) -> Planner:
    with Runner(planner, workers, command=stand_in) as runner:
        runner.run(lambda cell, plan: None)
    return planner


def test_two_studies_at_once_run_no_cell_twice(kit: Any, stand_in: Any, tmp_path: Path) -> None:
    """Both want the same baseline, and each has a method of its own; accuracies that the other's
    cells decide (the rate, hence the final runs) come to both."""
    stand_in.act({}, seconds=0.3)
    own = {"method": "netaug", "largest": "published", "netaug": {"alpha": 0.5}}
    studies = [
        kit.study(tune=TUNE, seeds=2, methods={"baseline": {}, "netaug": {"largest": "published"}}),
        kit.study(tune=TUNE, seeds=3, methods={"baseline": {}, "mine": own}),
    ]
    planners = [planner_of(study, tmp_path) for study in studies]
    threads = [threading.Thread(target=run, args=(one, stand_in)) for one in planners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for planner, cells in zip(planners, (10, 12), strict=True):
        found = status(planner, planner.plan(), 1)
        assert {key: n for key, n in found.counts.items() if n} == {"done": cells}
    began = [name for what, name, _ in stand_in.log if what == "begin"]
    # Three rates and three seeds of the baseline; the others' three rates, and two or three seeds.
    assert len(began) == len(set(began)) == (3 + 3) + (3 + 2) + (3 + 3)


def test_a_cell_that_others_run_is_waited_for(kit: Any, stand_in: Any, tmp_path: Path) -> None:
    planner = planner_of(kit.study(tune=TUNE, seeds=1), tmp_path)
    cell = planner.plan().cells[0]
    log = planner.store.claim(cell.identity)
    assert log is not None
    assert status(planner, planner.plan(), 1).running == {cell.name: 0.0}

    def finish() -> None:
        assert not any(cell.identity == name for _, name, _ in stand_in.log)
        folder = planner.store.folder(cell.identity)
        folder.mkdir()
        planner.store.beside(cell.identity, "yaml").write_text("")
        write_json(folder / "result.json", {"top1": 0.9, "validation_top1": 0.9})
        log.close()

    timer = threading.Timer(3.0, finish)
    timer.start()
    run(planner, stand_in)
    timer.join()
    # Its rate, 0.1, is at the edge and the best of the baseline's: half of it is tried too.
    assert any("baseline-e10-lr0.05-" in name for _, name, _ in stand_in.log)
    assert status(planner, planner.plan(), 1).counts["done"] == 9
    assert not any(cell.identity == name for _, name, _ in stand_in.log)


def test_what_others_left_undone_is_gone_on_with(kit: Any, stand_in: Any, tmp_path: Path) -> None:
    planner = planner_of(kit.study(tune=TUNE, seeds=1), tmp_path)
    cell = planner.plan().cells[0]
    log = planner.store.claim(cell.identity)
    assert log is not None
    timer = threading.Timer(3.0, log.close)
    timer.start()
    run(planner, stand_in)
    timer.join()
    assert status(planner, planner.plan(), 1).counts["done"] == 8
    assert [name for what, name, _ in stand_in.log if what == "begin"].count(cell.identity) == 1


def test_a_run_that_others_began_goes_on_with_ones_own_data(
    kit: Any, stand_in: Any, tmp_path: Path
) -> None:
    """A run refuses to go on with another configuration; where data lie is none."""
    base = {**kit.study().base, "data": {"name": "fashion-mnist-mini", "dir": "/here"}}
    planner = planner_of(kit.study(base=base, tune=TUNE, seeds=1), tmp_path)
    cell = planner.plan().cells[0]
    begun = planner.store.folder(cell.identity) / "config.yaml"
    begun.parent.mkdir(parents=True)
    begun.write_text("data: {dir: /there}")
    run(planner, stand_in)
    assert yaml.safe_load(begun.read_text())["data"]["dir"] == "/here"
    assert begun.read_text() == planner.store.beside(cell.identity, "yaml").read_text()


def table(folder: Path, text: str = "") -> str:
    """A target of one's own, and `text`."""
    folder.mkdir(exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(load_target("micro_10k").to_dict()) + text)
    return str(path)


def test_tables_are_kept_with_the_cells(kit: Any, stand_in: Any, tmp_path: Path) -> None:
    kept = set()
    for folder in ("here", "there"):
        target = table(tmp_path / folder)
        planner = run(
            planner_of(kit.study(targets=[target], tune=TUNE, seeds=1), tmp_path), stand_in
        )
        for cell in planner.plan().cells:
            config = yaml.safe_load(planner.store.beside(cell.identity, "yaml").read_text())
            kept.add(config["target"])
    assert len(stand_in.log) == 2 * 8
    (path,) = kept
    assert Path(path).read_text() == Path(target).read_text()
    assert Path(path).is_relative_to(planner.store.root)
    assert load_target(path).name == load_target(target).name


def test_a_table_that_changes_meanwhile_stops_the_study(
    kit: Any, stand_in: Any, tmp_path: Path
) -> None:
    planner = planner_of(
        kit.study(targets=[table(tmp_path / "here")], tune=TUNE, seeds=1), tmp_path
    )
    planner.plan()
    table(tmp_path / "here", "# edited")
    with pytest.raises(ValueError, match=r"a file that tune-mine-baseline-.* is made from changed"):
        run(planner, stand_in)
    cell = planner.plan().cells[0]
    assert planner.store.state(cell.identity) == "waiting"
    assert stand_in.log == []


def test_studies_share_cells(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    """Under other names, in another order, whichever comes first: the numbers are the same."""
    alone = nasaug("compare", study(seeds=1), "--out=alone/it", "--json").json
    assert len(quickly.log) == 2 * 8
    methods = {
        "plain": {"method": "baseline"},
        "helped": {"method": "netaug", "largest": "published"},
    }
    other = study(seeds=2, methods=methods, baseline="plain", targets=["micro_40k", "micro_10k"])
    assert nasaug("compare", other, "--out=runs/other").code == 0
    began = len(quickly.log)
    assert began == 2 * (8 + 2 * 10)
    done = nasaug("compare", study(seeds=1), "--json")
    assert len(quickly.log) == began
    for key in ("arms", "comparisons", "tuning"):
        assert done.json[key] == alone[key]
    assert {Path(folder).name for folder in done.json["arms"][0]["cells"]} <= {
        path.name for path in Path("runs/cells").glob("*/*")
    }
    # A folder of cells may be named, too.
    nasaug("compare", study(seeds=1), "--out=elsewhere/it", "--cells=runs/cells")
    assert len(quickly.log) == began


def test_a_changed_study_finds_or_makes_its_cells(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    first = nasaug("compare", study(seeds=1), "--json").json
    assert nasaug("compare", study(seeds=1), "--epochs=4", "--json").json["lengths"] == [4]
    began = len(quickly.log)
    assert began == 2 * 2 * 8
    again = nasaug("compare", study(seeds=1), "--json").json
    assert len(quickly.log) == began
    assert again == first
