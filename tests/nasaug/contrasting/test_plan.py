"""What a contrast runs, in which order, and how long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.config import SearchConfig
from nasaug.contrast_config import Contrast
from nasaug.contrasting.contestants import CONTESTANTS
from nasaug.contrasting.rehearsals import macs_of, supernet_parts, training_part
from nasaug.contrasting.runs import Runs, whole_epochs
from nasaug.supernet import load_target, macs
from nasaug.train_config import TrainConfig

MakeContrast = Callable[..., Contrast]
TRAINED = [name for name, one in CONTESTANTS.items() if one.keys is not None]


def _runs(contrast: Contrast, tmp_path: Path) -> Runs:
    return Runs(contrast, tmp_path)


def _cost(runs: Runs, config: TrainConfig | SearchConfig, tmp_path: Path) -> float:
    """MACs x images of its trainings, every step rehearsed."""
    setting = runs.at(config)
    if isinstance(config, TrainConfig):
        return macs_of(training_part(config, setting, tmp_path).passes())
    space = config.make_space(setting.target)
    return sum(macs_of(part.passes()) for part in supernet_parts(config, setting, space))


def test_without_compute_it_is_what_netaug_takes(contrast: MakeContrast, tmp_path: Path) -> None:
    runs = _runs(contrast(epochs=9), tmp_path)
    config = runs.training("netaug", 0.1, 0, None)
    assert config.train.epochs == 9
    assert config.netaug is not None and (config.netaug.r, config.netaug.s) == (3, 3)
    assert _cost(runs, config, tmp_path) == pytest.approx(runs.compute, rel=0.1)


def test_the_target_alone_trains_as_long_as_the_compute_lasts(
    contrast: MakeContrast, tmp_path: Path
) -> None:
    """287 images make 4 batches of 64: what is left over of an epoch is not shown."""
    an_epoch = 256 * macs(load_target("micro_10k", 10, 28, 1))
    runs = _runs(contrast(compute=7 * an_epoch + 5), tmp_path)
    config = runs.training("alone", 0.1, 3, None)
    assert (config.train.epochs, config.seed, config.train.lr) == (7, 3, 0.1)
    assert config.augmented is None
    half = runs.training("alone", 0.1, 3, None, share=0.5)
    assert half.train.epochs == round(3.5)


@pytest.mark.parametrize("kind", ["up", "down", "whole"])
def test_a_search_takes_its_share(contrast: MakeContrast, tmp_path: Path, kind: Any) -> None:
    """Judging included, up to a whole epoch; `whole` takes all."""
    runs = _runs(contrast(epochs=300), tmp_path)
    config = runs.search(kind, 0.3, 5)
    assert (config.seed, config.train.lr, config.direction) == (
        5,
        0.3,
        "up" if kind == "up" else "down",
    )
    share = 1.0 if kind == "whole" else 0.5
    cost = _cost(runs, config, tmp_path)
    judging = runs._judging(config, runs.at(config))
    assert cost + judging == pytest.approx(share * runs.compute, rel=0.05)
    if kind != "up":
        assert config.budget == 400_000 and config.space.table == "micro_down"


def test_the_largest_that_is_searched_is_as_large_as_r_3s(
    contrast: MakeContrast, tmp_path: Path
) -> None:
    runs = _runs(contrast(), tmp_path)
    config = runs.training("netaug", 0.1, 0, None)
    part = training_part(config, runs.at(config), tmp_path)
    assert runs.search("up", 0.1, 0).budget == macs(part.net.arch)
    other = _runs(contrast(up={"trials": 2, "budget": "2M"}), tmp_path)
    assert other.search("up", 0.1, 0).budget == 2_000_000


def test_stages_keep_their_proportions(contrast: MakeContrast, tmp_path: Path) -> None:
    stages = [
        {"name": "full", "epochs": 1, "warmup_epochs": 0},
        {"name": "rest", "epochs": 3, "kernel": "all", "depth": "all", "expand": "all",
         "width": "all"},
    ]  # fmt: skip
    down = {"trials": 2, "supernet": {"method": "shrinking", "stages": stages}}
    runs = _runs(contrast(down=down, epochs=400), tmp_path)
    full, rest = runs.search("down", 0.1, 0).supernet.stages
    assert full.epochs > 5 and rest.epochs == pytest.approx(3 * full.epochs, abs=2)
    assert rest.reach["width"] == float("inf")


def test_whole_epochs_come_nearest_to_the_compute() -> None:
    assert whole_epochs([4.5, 2.2, 6.7], [58, 93, 72]) == [4, 3, 6]  # 5 too short; [5, 2, 7]: 32
    # Rounding each by itself would be 3 dear epochs too long.
    assert whole_epochs([1.5, 1.5], [10, 10]) in ([1, 2], [2, 1])
    assert whole_epochs([0.2, 3.0], [5, 1]) == [1, 3]
    assert whole_epochs([4.0], [7]) == [4]


def test_what_a_search_is_planned_to_take(contrast: MakeContrast, tmp_path: Path) -> None:
    """Whole epochs apart from its share; what builds on it has the rest."""
    runs = _runs(contrast(epochs=40), tmp_path)
    config = runs.search("down", 0.1, 0)
    planned = runs.search_macs("down")
    judging = runs._judging(config, runs.at(config))
    assert planned == pytest.approx(_cost(runs, config, tmp_path) + judging, rel=0.1)


def test_order_and_needs(contrast: MakeContrast, played: Callable[..., Any]) -> None:
    """Tuning searches, tuning trainings on what these found, then seed by seed."""
    play = played(contrast())
    plan = play.play()
    names = [cell.name for cell in play.order]
    assert not plan.later
    tuned = [name.startswith("tune-") for name in names]
    assert tuned == sorted(tuned, reverse=True)
    assert [name.startswith("tune-search") for name in names[:6]] == [True] * 6
    assert tuned.count(True) == 2 * 3 + 3 * len(TRAINED)
    finals = names[tuned.count(True) :]
    assert [name for name in finals if name.endswith("s0")] == finals[: len(finals) // 2]
    # One search serves the three that build on it.
    assert len(finals) == 2 * (len(TRAINED) + 3)
    by_name = {cell.name: cell for cell in play.order}
    searched = by_name["search-down-lr0.2-s1"]
    for name in ("ofa_finetuned", "ofa_alone", "ofa_netaug"):
        assert by_name[f"{name}-lr0.2-s1"].needs == (searched.identity,)
    assert by_name["netaug_searched-lr0.2-s1"].needs == (by_name["search-up-lr0.2-s1"].identity,)
    assert {cell.lr for cell in play.order if not cell.tuning} == {0.2}
    assert {cell.seed for cell in play.order if not cell.tuning} == {0, 1}
    assert {cell.seed for cell in play.order if cell.tuning}.isdisjoint({0, 1})


def test_trainings_take_what_their_search_left(
    contrast: MakeContrast, played: Callable[..., Any], tmp_path: Path
) -> None:
    play = played(contrast(compute="20G"))
    play.play()
    by_name = {cell.name: cell.config for cell in play.order}
    folder = str(play.store.root)
    for name in ("ofa_alone", "ofa_finetuned", "ofa_netaug", "netaug_searched"):
        config = by_name[f"{name}-lr0.2-s0"]
        cost = _cost(play.planner.runs, config, tmp_path)
        assert cost == pytest.approx(20e9 - play.SEARCHED, rel=0.05), name
        where = config.largest if name == "netaug_searched" else config.target
        assert where.startswith(folder)
    assert by_name["ofa_finetuned-lr0.2-s0"].init is not None
    assert by_name["ofa_alone-lr0.2-s0"].init is None
    assert by_name["ofa_netaug-lr0.2-s0"].largest == "published"


def test_a_rate_that_diverges_is_not_chosen_and_every_kind_is_tuned_by_itself(
    contrast: MakeContrast, played: Callable[..., Any]
) -> None:
    def score(cell: Any) -> float:
        best = 0.4 if "netaug" in cell.name else 0.1
        return 0.9 if cell.lr == best else 0.5

    plan = played(contrast(), score).play()
    assert {name: choice.rate for name, choice in plan.rates.items()} == {
        "up": 0.1, "down": 0.1, "alone": 0.1, "netaug": 0.4, "netaug_searched": 0.4,
        "ofa_finetuned": 0.1, "ofa_alone": 0.1, "ofa_netaug": 0.4,
    }  # fmt: skip


def test_cut_short_it_knows_what_is_to_come(
    contrast: MakeContrast, played: Callable[..., Any]
) -> None:
    play = played(contrast())
    whole = 2 * 3 + 3 * len(TRAINED) + 2 * (len(TRAINED) + 3)
    first = play.planner.plan()
    # A search that several build on is counted for each until it is known.
    assert len(first.cells) + len(first.later) >= whole
    assert all(cell.tuning for cell in first.cells if cell.command == "search")
    assert set(first.expected) == {cell.identity for cell in first.cells}
    assert sum(first.expected.values()) + sum(first.later) > 0
    plan = play.play(most=30)
    assert plan.later or len(plan.cells) > 30
    last = play.play()
    assert len(last.cells) == whole and not last.later


def test_a_part_of_the_contestants(contrast: MakeContrast, played: Callable[..., Any]) -> None:
    """With keys of their own; searches that nobody needs are not made."""
    own = {"alone": {}, "netaug": {"netaug": {"every": 4}}}
    play = played(contrast(contestants=own, tune={"grid": [0.3], "extend": False}))
    play.play()
    assert [cell.name for cell in play.order] == [
        "alone-lr0.3-s0", "netaug-lr0.3-s0", "alone-lr0.3-s1", "netaug-lr0.3-s1",
    ]  # fmt: skip
    config = play.order[1].config
    assert (config.netaug.every, config.netaug.r) == (4, 3)


def test_searches_that_no_rate_trains_end_what_builds_on_them(
    contrast: MakeContrast, played: Callable[..., Any]
) -> None:
    play = played(contrast(contestants={"alone": {}, "ofa_alone": {}, "ofa_inherited": {}}))
    tuning = [cell for cell in play.planner.plan().cells if cell.command == "search"]
    for cell in tuning:
        play.store.beside(cell.identity, "log").parent.mkdir(parents=True, exist_ok=True)
        play.store.beside(cell.identity, "log").write_text(
            "nasaug: the loss of path became nan at step 3: lower train.lr\n"
        )
        play.store.fail(cell.identity, 1)
    plan = play.planner.plan()
    assert plan.rates["down"].rate is None and not plan.rates["down"].wanted
    assert not [cell for cell in plan.cells if cell.name.startswith(("search", "ofa"))]
    assert all(macs < play.planner.runs.compute * 1.01 for macs in plan.later)
    assert len(plan.later) == len(play.planner.contrast.seeds), "alone's, not tuned yet"


def test_a_search_that_finds_the_target_itself_takes_nobody_else_down(
    contrast: MakeContrast, played: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to train it in; the others go on, and it is said."""
    play = played(contrast(contestants={"alone": {}, "netaug_searched": {}}))
    target = load_target("micro_10k", 10, 28, 1)
    monkeypatch.setattr(type(play), "found", staticmethod(lambda direction: target))
    plan = play.play()
    assert {entry.training is not None for entry in plan.entries["alone"].values()} == {True}
    assert {entry.training for entry in plan.entries["netaug_searched"].values()} == {None}
    [(what, why)] = plan.impossible.items()
    assert what == "tune-netaug_searched" and "nothing to train micro_10k in" in why
    assert not plan.later
    untuned = {"tune": {"grid": [0.2], "extend": False}, "seeds": 2}
    other = played(contrast(contestants={"alone": {}, "netaug_searched": {}}, **untuned))
    monkeypatch.setattr(type(other), "found", staticmethod(lambda direction: target))
    assert set(other.play().impossible) == {"netaug_searched-s0", "netaug_searched-s1"}
