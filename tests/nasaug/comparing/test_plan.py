"""What a study still has to run: the order of cells, equal compute, seeds; played in no time."""

from __future__ import annotations

from typing import Any

import pytest

from nasaug.comparing.cells import TUNING_SEED, Arm, Cell

BASE, HELPED = Arm("micro_10k", "baseline", 10), Arm("micro_10k", "netaug", 10)


def test_tuning_comes_first_then_all_methods_seed_by_seed(kit: Any) -> None:
    played = kit.played(
        kit.study(seeds=[5, 3]), lambda cell: kit.trained(cell, kit.best_at(0.2)(cell))
    )
    plan = played.play()
    assert [cell.name for cell in played.order] == [
        *(f"tune-micro_10k-baseline-e10-lr{lr}-s{TUNING_SEED}" for lr in (0.1, 0.2, 0.4)),
        *(f"tune-micro_10k-netaug-e10-lr{lr}-s{TUNING_SEED}" for lr in (0.1, 0.2, 0.4)),
        "micro_10k-baseline-e10-lr0.2-s5",
        "micro_10k-netaug-e10-lr0.2-s5",
        "micro_10k-baseline-e10-lr0.2-s3",
        "micro_10k-netaug-e10-lr0.2-s3",
    ]
    assert not plan.later
    assert [cell.name for cell in plan.cells] == [cell.name for cell in played.order]


def test_a_cell_is_base_method_and_what_the_study_decides(kit: Any) -> None:
    base = {"data": {"name": "fashion-mnist-mini", "flip": False}, "train": {"batch_size": 32}}
    methods = {"baseline": {}, "mine": {"method": "netaug", "netaug": {"alpha": 0.5}}}
    study = kit.study(base=base, methods=methods, threads=2)
    cells = kit.played(study, kit.trained).planner.cells
    config = cells.final(Arm("micro_10k", "mine", 7), 0.3, 4).config
    assert (config.target, config.seed, config.threads, config.method) == (
        "micro_10k", 4, 2, "netaug",
    )  # fmt: skip
    assert (config.train.lr, config.train.epochs, config.train.batch_size) == (0.3, 7, 32)
    assert (config.data.flip, config.netaug.alpha) == (False, 0.5)


def test_every_method_has_a_rate_of_its_own(kit: Any) -> None:
    def answer(cell: Cell) -> dict[str, Any]:
        assert cell.arm is not None
        rate = 0.8 if cell.arm.method == "baseline" else 0.1
        return kit.trained(cell, kit.best_at(rate)(cell))

    plan = kit.played(kit.study(), answer).play()
    assert (plan.tuning[BASE].rate, plan.tuning[HELPED].rate) == (0.8, 0.1)
    assert max(plan.tuning[BASE].tried) == 1.6
    assert min(plan.tuning[HELPED].tried) == 0.05
    assert {cell.lr for cell in plan.finals[BASE].values()} == {0.8}


def test_the_mean_over_tuning_seeds_decides(kit: Any) -> None:
    scores = {(0.1, 0): 0.9, (0.1, 1): 0.1, (0.2, 0): 0.6, (0.2, 1): 0.6}

    def answer(cell: Cell) -> dict[str, Any]:
        index = (cell.seed or 0) - TUNING_SEED
        return kit.trained(cell, scores.get((cell.lr, index), 0.2))

    study = kit.study(tune={"grid": [0.1, 0.2, 0.4], "seeds": 2})
    plan = kit.played(study, answer).play()
    assert plan.tuning[BASE].rate == 0.2
    assert plan.tuning[BASE].tried[0.1] == pytest.approx(0.5)


def test_tuning_seeds_are_never_final_ones(kit: Any) -> None:
    methods = {"baseline": {}, "netaug": {"largest": "published", "seeds": [TUNING_SEED + 1]}}
    study = kit.study(seeds=[TUNING_SEED], methods=methods, tune={"grid": [0.1], "seeds": 2})
    cells = kit.played(study, kit.trained).planner.cells
    assert cells.tuning_seeds == (TUNING_SEED + 2, TUNING_SEED + 3)


def thrice(kit: Any) -> Any:
    """NetAug costs three times the MACs and four times the seconds of the baseline."""

    def answer(cell: Cell) -> dict[str, Any]:
        more = {"macs": 3000.0, "seconds": 40.0} if cell.arm.method == "netaug" else {}
        return kit.trained(cell, kit.best_at(0.2)(cell), **more)

    return answer


def test_at_equal_compute_the_baseline_trains_as_much_longer(kit: Any) -> None:
    plan = kit.played(kit.study(equal=["epochs", "macs", "time"]), thrice(kit)).play()
    # 12 epochs with the warm-up, times three (four), less the warm-up of 2.
    lengths = {match.kind: match.reference.epochs for match in plan.matches if match.reference}
    assert lengths == {"epochs": 10, "macs": 34, "time": 46}
    for epochs in (34, 46):
        arm = Arm("micro_10k", "baseline", epochs)
        assert plan.tuning[arm].rate == 0.2
        assert [cell.seed for cell in plan.finals[arm].values()] == [0, 1]
        (cell, *_) = plan.finals[arm].values()
        assert cell.epochs * 1000 == pytest.approx(12 * (3000 if epochs == 34 else 4000))


def test_longer_baselines_may_keep_the_rate(kit: Any) -> None:
    study = kit.study(equal=["macs"], tune={"grid": [0.1, 0.2, 0.4], "longer": False})
    played = kit.played(study, thrice(kit))
    plan = played.play()
    assert plan.tuning[Arm("micro_10k", "baseline", 34)].rate == 0.2
    assert not [cell for cell in played.order if cell.tuning and cell.arm.epochs == 34]


def test_shorter_tuning_keeps_the_proportion(kit: Any) -> None:
    study = kit.study(equal=["macs"], tune={"grid": [0.1, 0.2, 0.4], "share": 0.5})
    played = kit.played(study, thrice(kit))
    played.play()
    lengths = {(c.arm.epochs, c.name.split("-")[3]) for c in played.order if c.tuning}
    # Half of 10 + 2 and of 34 + 2 epochs, less the warm-up of 2.
    assert lengths == {(10, "e4"), (34, "e16")}


def test_what_costs_about_the_same_is_compared_as_it_is(kit: Any) -> None:
    def answer(cell: Cell) -> dict[str, Any]:
        more = {"macs": 1040.0} if cell.arm.method == "netaug" else {}
        return kit.trained(cell, kit.best_at(0.2)(cell), **more)

    plan = kit.played(kit.study(equal=["epochs", "macs"]), answer).play()
    assert {match.reference for match in plan.matches} == {BASE}


def test_runs_before_are_made_first_and_may_count(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "before:searched", "counts": ["searched"]},
        "kd": {"distill": {"teacher": "before:teacher"}},
    }
    before = {
        "teacher": {"train": {"target": "micro_40k"}},
        "searched": {"search": {"budget": "2M"}},
        "unused": {"search": {"budget": "3M"}},
    }
    study = kit.study(methods=methods, before=before, equal=["macs"])
    usual = thrice(kit)

    def answer(cell: Cell) -> dict[str, Any]:
        if cell.arm is not None:
            return usual(cell)
        return {"train_macs": 6000.0, "train_seconds": 1.0, "validation_top1": 0.9}

    played = kit.played(study, answer)
    first = played.plan().cells[:2]
    assert [cell.name for cell in first] == ["before-micro_10k-searched", "before-teacher"]
    assert [cell.command for cell in first] == ["search", "train"]
    search, teacher = (cell.config for cell in first)
    assert (search.target, search.budget, search.in_channels) == ("micro_10k", 2_000_000, 1)
    assert (teacher.target, teacher.method, teacher.train.epochs) == ("micro_40k", "baseline", 10)
    plan = played.play()
    final = plan.finals[HELPED][0]
    assert final.config.largest == str(played.store.folder(first[0].identity))
    assert final.needs == (first[0].identity,)
    lengths = {m.arm.method: m.reference.epochs for m in plan.matches if m.reference}
    # NetAug: 36 of the baseline's epochs, and the search as much as 6 more, less the warm-up.
    assert lengths == {"netaug": 40, "kd": 10}


def test_what_counts_of_the_other_side_is_not_trained_again(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "before:searched", "counts": ["searched"]},
        "twice": {"method": "netaug", "largest": "published", "against": "netaug"},
    }
    study = kit.study(
        methods=methods, before={"searched": {"train": {}}}, equal=["macs"],
        tune={"grid": [0.2], "extend": False},
    )  # fmt: skip
    costs = {"baseline": 1000.0, "netaug": 2000.0, "twice": 4000.0}

    def answer(cell: Cell) -> dict[str, Any]:
        if cell.arm is None:
            return {"train_macs": 6000, "train_seconds": 1.0}
        return kit.trained(cell, macs=costs[cell.arm.method])

    plan = kit.played(study, answer).play()
    lengths = {m.arm.method: m.reference.epochs for m in plan.matches if m.reference}
    # 12 x 2000 + 6000 is 30 of the baseline's epochs; 12 x 4000 - 6000 is 21 of NetAug's.
    assert lengths == {"netaug": 28, "twice": 19}


def test_a_run_before_may_differ_by_target(kit: Any) -> None:
    before = {
        "searched": {
            "search": {"budget": "2M", "trials": 5},
            "per_target": {"micro_40k": {"budget": "8M"}},
        }
    }
    methods = {"baseline": {}, "netaug": {"largest": "before:searched"}}
    study = kit.study(targets=["micro_10k", "micro_40k"], methods=methods, before=before)
    configs = [c.config for c in kit.played(study, kit.trained).plan().cells if c.arm is None]
    assert [(c.budget, c.trials) for c in configs] == [(2_000_000, 5), (8_000_000, 5)]


def test_a_run_before_that_is_not_there_is_named(kit: Any) -> None:
    methods = {"baseline": {}, "netaug": {"largest": "before:serched"}}
    study = kit.study(methods=methods, before={"searched": {"search": {}}})
    with pytest.raises(ValueError, match="before:serched is not there: before holds searched"):
        kit.played(study, kit.trained).plan()


def test_methods_have_their_own_seeds_targets_and_opponents(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "published", "seeds": 4},
        "unsorted": {
            "method": "netaug",
            "largest": "published",
            "netaug": {"sort_channels": False},
            "against": "netaug",
            "targets": ["micro_10k"],
            "seeds": [7],
        },
    }
    study = kit.study(targets=["micro_10k", "micro_40k"], methods=methods)
    plan = kit.played(study, thrice(kit)).play()
    assert plan.seeds[BASE] == (0, 1, 2, 3)
    assert plan.seeds[HELPED] == (0, 1, 2, 3, 7)
    assert plan.seeds[Arm("micro_40k", "netaug", 10)] == (0, 1, 2, 3)
    assert plan.seeds[Arm("micro_10k", "unsorted", 10)] == (7,)
    assert Arm("micro_40k", "unsorted", 10) not in plan.tuning
    against = {match.arm: match.reference for match in plan.matches}
    assert against[Arm("micro_10k", "unsorted", 10)] == HELPED


def test_two_methods_of_equal_cost_share_the_longer_baseline(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "published", "seeds": [0]},
        "twin": {"method": "netaug", "largest": "published", "seeds": [1]},
    }

    def answer(cell: Cell) -> dict[str, Any]:
        macs = 1000.0 if cell.arm.method == "baseline" else 3000.0
        return kit.trained(cell, kit.best_at(0.2)(cell), macs=macs)

    played = kit.played(kit.study(methods=methods, equal=["macs"]), answer)
    plan = played.play()
    assert plan.seeds[Arm("micro_10k", "baseline", 34)] == (0, 1)
    names = [cell.name for cell in played.order]
    assert len(names) == len(set(names))


def test_one_rate_without_extension_is_not_tuned(kit: Any) -> None:
    study = kit.study(tune={"grid": [0.3], "extend": False}, equal=["macs"])
    played = kit.played(study, thrice(kit))
    plan = played.play()
    assert not any(cell.tuning for cell in played.order)
    assert Arm("micro_10k", "baseline", 34) in plan.tuning
    assert {cell.lr for cell in played.order} == {0.3}


def test_diverged_rates_are_passed_over(kit: Any) -> None:
    def answer(cell: Cell) -> Any:
        return kit.DIVERGED if cell.lr > 0.15 else kit.trained(cell, cell.lr)

    plan = kit.played(kit.study(), answer).play()
    assert (plan.tuning[BASE].rate, plan.tuning[BASE].inside) == (0.1, True)
    assert len(plan.finals[BASE]) == 2


def test_a_broken_tuning_run_holds_up_its_arm_and_no_other(kit: Any) -> None:
    def answer(cell: Cell) -> Any:
        broken = cell.arm.method == "netaug" and cell.lr == 0.4
        return kit.BROKEN if broken else kit.trained(cell, kit.best_at(0.2)(cell))

    played = kit.played(kit.study(equal=["epochs", "macs"]), answer)
    plan = played.play()
    assert plan.tuning[HELPED].wanted == (0.4,)
    assert not plan.finals[HELPED]
    assert len(plan.finals[BASE]) == 2
    assert plan.matches[1].reference is None and not plan.matches[1].unknown
    assert sum(later.runs for later in plan.later) > 0


def test_a_method_that_no_rate_trains_is_known_to_be_lost(kit: Any) -> None:
    def answer(cell: Cell) -> Any:
        return kit.DIVERGED if cell.arm.method == "netaug" else kit.trained(cell, 0.5)

    study = kit.study(equal=["macs"], tune={"grid": [0.1, 0.2], "limit": 2})
    plan = kit.played(study, answer).play()
    assert plan.matches[0].unknown == "netaug: no rate trains it"
    assert not plan.later


def test_results_that_do_not_say_their_macs_are_compared_at_equal_epochs_only(kit: Any) -> None:
    def answer(cell: Cell) -> dict[str, Any]:
        result = kit.trained(cell, kit.best_at(0.2)(cell))
        del result["train_macs"]
        return result

    plan = kit.played(kit.study(equal=["epochs", "macs"]), answer).play()
    assert [match.unknown for match in plan.matches] == [
        "",
        "netaug: its runs do not say their MACs",
    ]


def test_what_is_sure_to_come_is_counted_before_it_is_known(kit: Any) -> None:
    played = kit.played(kit.study(equal=["epochs", "macs", "time"]), thrice(kit))
    plan = played.plan()
    assert len(plan.cells) == 6
    # Two methods' final runs; and two longer baselines, each tuned at three rates.
    assert sum(later.runs for later in plan.later) == 2 * 2 + 2 * (2 + 3)
    played.play()
    assert len(played.order) == 6 + 4 + 2 * 5


def test_any_order_of_finishing_comes_to_the_same_plan(kit: Any) -> None:
    """What is derived is a function of what is there, not of when it came."""
    study = kit.study(equal=["epochs", "macs", "time"])
    answer = thrice(kit)
    forward = kit.played(study, answer).play()
    backward = kit.played(study, answer)
    while True:
        waiting = [
            c for c in backward.plan().cells if backward.store.state(c.identity) == "waiting"
        ]
        if not waiting:
            break
        cell = waiting[-1]
        backward.store.results[cell.identity] = answer(cell)
    assert backward.plan() == forward
