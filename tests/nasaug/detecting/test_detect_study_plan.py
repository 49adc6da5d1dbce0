"""What a detection study runs, in which order, and by what its runs are known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.comparing.cells import Cell
from nasaug.comparing.identity import identity
from nasaug.comparing.versions import MODULES, ROOMS, Code
from nasaug.detect_config import DetectConfig
from nasaug.detecting import run as running
from nasaug.detecting.plan import Planner
from nasaug.detecting.runs import Runs
from nasaug.train_config import TrainConfig

NOWHERE = Path("/nowhere")
Make = Callable[..., Any]


def by_size(cell: Cell) -> float:
    """Best at 0.1, better with NetAug and at larger sizes."""
    if isinstance(cell.config, TrainConfig):
        return 0.8 if cell.config.method == "baseline" else 0.9
    assert isinstance(cell.config, DetectConfig) and cell.lr is not None and cell.seed is not None
    better = 0.02 * cell.name.removeprefix("tune-").startswith("netaug")
    off = 0.01 * abs(math.log2(cell.lr / 0.1))
    return 0.1 + cell.config.detector.size / 1000 + better - off + 0.001 * (cell.seed % 10)


def test_the_order_and_what_builds_on_what(detect_study: Make, played: Make) -> None:
    play = played(detect_study(), by_size)
    plan = play.planner.plan()
    # Nothing is known yet: the pre-trainings of a rate that is not tuned, the detectors' rates.
    names = [cell.name for cell in plan.cells if cell.tuning or cell.seed == 1_000_000]
    assert names[0] == "pretrain-baseline-e2-lr0.4-s1000000"
    assert names[1:4] == [f"tune-baseline-64-e2-lr{rate}-s1000000" for rate in (0.05, 0.1, 0.2)]
    assert len(names) == 2 * (1 + 2 * 3)
    assert sum(later.runs for later in plan.later) == 2 * 2 * 2
    plan = play.play()
    assert not plan.later
    assert {choice.rate for choice in plan.rates.values()} == {0.1}
    finals = [cell for cell in plan.cells if cell.seed in (0, 1)]
    # Seed by seed, every method and size.
    begins = [cell.name for cell in finals if cell.seed == 0 and cell.command == "detect"]
    assert begins == [f"{m}-{s}-e4-lr0.1-s0" for m in ("baseline", "netaug") for s in (64, 96)]
    for (method, _), cells in plan.finals.items():
        for seed, cell in cells.items():
            start = plan.starts[method][seed]
            assert cell.needs == (start.identity,)
            config = cell.config
            assert isinstance(config, DetectConfig)
            assert config.init == str(play.store.folder(start.identity))
            assert start.config.seed == config.seed == seed
    ran = [cell.identity for cell in play.order]
    assert len(ran) == len(set(ran)) == len(plan.cells) == 14 + 2 * 2 * 3


def test_pretraining_rates_are_tuned_like_detectors(detect_study: Make, played: Make) -> None:
    tune = {"grid": [0.2, 0.4], "extend": False, "share": 0.5}
    study = detect_study(tune_pretrain=tune, seeds=1)
    plan = played(study, by_size).planner.plan()
    assert [cell.name for cell in plan.cells] == [
        f"tune-pretrain-{method}-e1-lr{rate}-s1000000"
        for method in ("baseline", "netaug")
        for rate in (0.2, 0.4)
    ]
    # A pre-training a method, three rates at each size, a detector at each size.
    assert sum(later.runs for later in plan.later) == 2 * (1 + 2 * 3 + 2)

    def best(cell: Cell) -> float:
        return 1.0 - (cell.lr or 0) if cell.command == "train" else by_size(cell)

    plan = played(study, best).play()
    assert {choice.rate for choice in plan.start_rates.values()} == {0.2}
    assert plan.starts["netaug"][0].name == "pretrain-netaug-e2-lr0.2-s0"


def test_fresh_weights_and_help_while_detecting(detect_study: Make, played: Make) -> None:
    methods = {
        "baseline": {},
        "fresh": {"pretrain": None},
        "throughout": {"detect": {"method": "netaug"}},
    }
    plan = played(detect_study(methods=methods, seeds=1), by_size).play()
    assert set(plan.starts) == {"baseline", "throughout"}
    fresh, helped = (plan.finals[name, 64][0] for name in ("fresh", "throughout"))
    assert fresh.needs == () and fresh.config.init is None  # type: ignore[attr-defined]
    assert helped.config.method == "netaug"  # type: ignore[attr-defined]
    # Pre-trained alike: one run for both.
    assert plan.starts["baseline"] == plan.starts["throughout"]
    assert [cell.name for cell in plan.cells].count("pretrain-baseline-e2-lr0.4-s0") == 1


def test_scenes_are_known_by_their_settings_and_no_path(detect_study: Make) -> None:
    def cell(root: Path = NOWHERE, **keys: Any) -> str:
        return Runs(detect_study(**keys), root).detecting("baseline", 64, 0.1, 0, None).identity

    first = cell()
    assert re.fullmatch(r"micro_3k-detect64-baseline-e4-lr0.1-s0-[0-9a-f]{8}", first)
    assert cell(Path("/elsewhere")) == first == cell(data_dir="/data")
    scenes = {"items": "fashion-mnist-mini", "train": 12, "val": 4, "test": 4}
    assert cell(scenes=scenes) == first
    for other in ({"seed": 1}, {"train": 13}, {"size": "96..128"}, {"format": "voc"}):
        assert cell(scenes=scenes | other) != first, other
    assert cell(scenes=None, data="coco:mine") != cell(scenes=None, data="coco:yours")


def test_what_a_detector_begins_with_is_part_of_it(detect_study: Make) -> None:
    def cell(root: Path, rate: float) -> str:
        runs = Runs(detect_study(), root)
        return runs.detecting("netaug", 64, 0.1, 0, runs.pretraining("netaug", rate, 0)).identity

    assert cell(NOWHERE, 0.4) == cell(Path("/elsewhere"), 0.4) != cell(NOWHERE, 0.2)


def test_a_larger_network_that_was_searched_counts_by_its_content(tmp_path: Path) -> None:
    def named(text: str) -> str:
        (tmp_path / "best.json").write_text(text)
        keys = {
            "method": "netaug",
            "netaug": {"largest": str(tmp_path)},
            "data": {"name": "coco:x"},
        }
        return identity(DetectConfig.model_validate(keys), NOWHERE)

    assert named("{}") != named('{"other": 1}')


def test_other_studies_keep_their_version_and_this_one_has_the_detection_room() -> None:
    """What is stored of `nasaug compare` and `contrast` stays theirs when detection changes."""
    rooms = ("supernet", "training", "netaug", "search")
    assert tuple(f"nasaug.{room}" for room in rooms) == ROOMS
    pipelines = ("train", "plan", "starting", "inside", "teacher", "search", "judging", "supernet")
    modules = ["nasaug.config", "nasaug.train_config", "nasaug.setting"]
    modules += [f"nasaug.pipelines.{name}" for name in (*pipelines, "stages", "found")]
    assert list(MODULES) == modules
    ours = Code(running.ROOMS, running.MODULES)
    assert ours.version != Code().version == Code((), ()).version
    names = {path.parent.name for path in ours._files} - {
        path.parent.name for path in Code()._files
    }
    assert names >= {"detection"}


def test_a_cell_is_a_command_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from nasaug.comparing import cell

    given: list[list[str]] = []
    monkeypatch.setattr(cell, "run", lambda arguments: given.append(arguments) or 0)
    monkeypatch.setattr(cell.threading.Thread, "start", lambda self: None)
    for command in ("train", "detect"):
        monkeypatch.setattr(cell.sys, "argv", ["cell", "1", command, "--json"])
        with pytest.raises(SystemExit):
            cell.main()
    assert given == [["train", "--json"], ["detect", "train", "--json"]]


def test_no_rate_trains_it(detect_study: Make, tmp_path: Path) -> None:
    """All pre-trainings of the tuning diverge: nothing more is planned for the method."""
    from nasaug.comparing.store import Store

    tune = {"grid": [0.2, 0.4], "extend": False}
    store = Store(tmp_path, "code")
    store.root.mkdir()
    planner = Planner(detect_study(tune_pretrain=tune), store)
    for cell in planner.plan().cells:
        text = "nasaug: the loss of target became nan at step 7: lower it"
        store.beside(cell.identity, "log").write_text(text)
        store.fail(cell.identity, 1)
    plan = planner.plan()
    assert not plan.later and len(plan.cells) == 4
    assert all(choice.said == "no rate trains it" for choice in plan.rates.values())
