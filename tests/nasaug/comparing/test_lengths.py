"""Studies of several training lengths: their arms, tuning, and references of equal compute."""

from __future__ import annotations

from typing import Any

import pytest

from nasaug.comparing.cells import Arm, Cell

BASE = {"in_channels": 1, "train": {"warmup_epochs": 2}}


def arm(method: str, epochs: int, target: str = "micro_10k") -> Arm:
    return Arm(target, method, epochs)


def thrice(kit: Any, rates: dict[int, float] | None = None) -> Any:
    """NetAug costs three times as much; `rates` are the best ones by final length."""

    def answer(cell: Cell) -> dict[str, Any]:
        assert cell.arm is not None
        more = {"macs": 3000.0, "seconds": 30.0} if cell.arm.method == "netaug" else {}
        best = (rates or {}).get(cell.arm.epochs, 0.2)
        return kit.trained(cell, kit.best_at(best)(cell), **more)

    return answer


def played(kit: Any, lengths: list[int], answer: Any = None, **keys: Any) -> Any:
    study = kit.study(base=BASE, lengths=lengths, **keys)
    return kit.played(study, answer or thrice(kit))


def test_every_method_is_an_arm_at_every_length(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "published"},
        "mine": {"method": "netaug", "largest": "published", "lengths": [20]},
    }
    found = played(kit, [20, 5], methods=methods)
    assert list(found.planner.arms) == [
        arm("baseline", 5), arm("netaug", 5),
        arm("baseline", 20), arm("netaug", 20), arm("mine", 20),
    ]  # fmt: skip
    plan = found.play()
    assert set(plan.tuning) == set(found.planner.arms)
    assert [(match.arm, match.reference) for match in plan.matches] == [
        (arm("netaug", 5), arm("baseline", 5)),
        (arm("netaug", 20), arm("baseline", 20)),
        (arm("mine", 20), arm("baseline", 20)),
    ]
    for one, cells in plan.finals.items():
        assert {cell.config.train.epochs for cell in cells.values()} == {one.epochs}


def test_every_length_is_tuned_by_runs_of_its_own(kit: Any) -> None:
    found = played(kit, [5, 20], thrice(kit, {5: 0.4, 20: 0.1}), tune={"grid": [0.2], "share": 0.5})
    plan = found.play()
    assert {one.epochs: choice.rate for one, choice in plan.tuning.items()} == {5: 0.4, 20: 0.1}
    lengths = {(c.arm.epochs, c.config.train.epochs) for c in found.order if c.tuning}
    # Half of 5 + 2 and of 20 + 2, less the warm-up of 2; one and a half is rounded to even.
    assert lengths == {(5, 2), (20, 9)}


def test_one_length_is_base_train_epochs(kit: Any) -> None:
    by_base = kit.played(kit.study(), thrice(kit)).play()
    base = {**kit.study().base, "train": {"warmup_epochs": 2}}
    by_lengths = kit.played(kit.study(base=base, lengths=[10]), thrice(kit)).play()
    assert by_base == by_lengths


@pytest.mark.parametrize(
    ("lengths", "references"),
    [
        # 7 and 12 epochs with the warm-up, times three, less the warm-up of 2.
        ([5, 10], {5: 19, 10: 34}),
        # 4 + 2 epochs cost as much as 16 + 2; that length is there already.
        ([4, 16], {4: 16, 16: 52}),
        # 36 epochs with the warm-up are asked for: 37 are within 5 %, 38 are not.
        ([10, 35], {10: 35, 35: 109}),
        ([10, 36], {10: 34, 36: 112}),
        # The nearest of two that would do.
        ([10, 33, 34], {10: 34, 33: 103, 34: 106}),
    ],
)
def test_at_equal_compute_a_length_of_the_study_is_taken_where_it_costs_the_same(
    kit: Any, lengths: list[int], references: dict[int, int]
) -> None:
    plan = played(kit, lengths, equal=["macs"]).play()
    assert {match.arm.epochs: match.reference.epochs for match in plan.matches} == references
    assert set(plan.tuning) == {
        *(arm(method, epochs) for method in ("baseline", "netaug") for epochs in lengths),
        *(arm("baseline", epochs) for epochs in references.values()),
    }


def test_only_lengths_at_which_the_other_is_trained_are_taken(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "published", "lengths": [4]},
        "mine": {
            "method": "netaug", "largest": "published", "lengths": [4], "against": "netaug",
            "netaug": {"alpha": 0.5},
        },
    }  # fmt: skip

    def answer(cell: Cell) -> dict[str, Any]:
        macs = {"baseline": 1000.0, "netaug": 3000.0, "mine": 9000.0}[cell.arm.method]
        return kit.trained(cell, kit.best_at(0.2)(cell), macs)

    plan = played(kit, [4, 16], answer, methods=methods, equal=["macs"]).play()
    references = {match.arm.method: match.reference for match in plan.matches}
    assert references == {"netaug": arm("baseline", 16), "mine": arm("netaug", 16)}
    assert arm("netaug", 16) in plan.tuning
    assert plan.seeds[arm("netaug", 16)] == (0, 1)


def test_a_length_that_is_a_reference_has_the_seeds_of_both(kit: Any) -> None:
    methods = {"baseline": {"seeds": [0]}, "netaug": {"largest": "published", "seeds": [7]}}
    plan = played(kit, [4, 16], methods=methods, equal=["macs"]).play()
    assert plan.seeds[arm("baseline", 16)] == (0, 7)
    assert plan.seeds[arm("baseline", 4)] == (0,)
    assert plan.seeds[arm("baseline", 52)] == (7,)


def test_longer_baselines_may_keep_the_nearest_lengths_rate(kit: Any) -> None:
    tune = {"grid": [0.1, 0.2, 0.4], "longer": False}
    answer = thrice(kit, {5: 0.4, 40: 0.1})
    found = played(kit, [5, 40], answer, equal=["macs"], tune=tune)
    plan = found.play()
    # 21 epochs with the warm-up are half of 42, and three times 7.
    assert plan.tuning[arm("baseline", 19)].rate == 0.1
    assert plan.tuning[arm("baseline", 124)].rate == 0.1
    assert {cell.arm.epochs for cell in found.order if cell.tuning} == {5, 40}


def test_what_comes_to_the_same_is_trained_once(kit: Any) -> None:
    methods = {
        "baseline": {},
        "netaug": {"largest": "published"},
        "twin": {"method": "netaug", "largest": "published", "netaug": {"alpha": 1.0}},
    }
    # Half of 10 + 2 and of 11 + 2 epochs, less the warm-up: tuning runs of 4 epochs for both.
    found = played(kit, [10, 11], methods=methods, tune={"grid": [0.1, 0.2, 0.4], "share": 0.5})
    plan = found.play()
    identities = [cell.identity for cell in found.order]
    assert len(identities) == len(set(identities)) == 2 * 3 + 2 * 2 * 2
    assert [cell.identity for cell in plan.cells] == identities
    assert all(len(cells) == 2 for cells in plan.finals.values())


def test_runs_before_are_as_long_as_the_longest_unless_they_say(kit: Any) -> None:
    methods = {"baseline": {}, "kd": {"distill": {"teacher": "before:teacher"}}}
    for own, epochs in (({}, 20), ({"train": {"epochs": 7}}, 7)):
        before = {"teacher": {"train": {"target": "micro_40k", **own}}}
        found = played(kit, [5, 20], methods=methods, before=before)
        (teacher,) = [cell for cell in found.plan().cells if cell.name == "before-teacher"]
        assert (teacher.config.train.epochs, teacher.epochs) == (epochs, epochs + 2)
