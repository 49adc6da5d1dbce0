"""What equal time means: CPU seconds of cells of one thread, where all say theirs; else seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nasaug.comparing.cells import Arm, Cell
from nasaug.comparing.spreadsheet import csv_text
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import arms_table, markdown, notes
from nasaug.publishing import results_pages

Answer = Callable[[Cell], dict[str, Any]]
CPU = "or CPU seconds of one thread."
WALL = "or seconds as measured while the cells ran side by side."


def measured(kit: Any, says: Callable[[Cell], bool] = lambda cell: True) -> Answer:
    """An epoch of NetAug takes four times the baseline's seconds, since other work came between,
    and three times its CPU seconds. Cells that do not say the latter have None."""

    def answer(cell: Cell) -> dict[str, Any]:
        helped = cell.arm is not None and cell.arm.method == "netaug"
        cpu = (24.0 if helped else 8.0) * cell.epochs if says(cell) else None
        seconds = 40.0 if helped else 10.0
        top1 = kit.best_at(0.2)(cell)
        result: dict[str, Any] = kit.trained(cell, top1, seconds=seconds, train_cpu_seconds=cpu)
        return result

    return answer


def played(kit: Any, answer: Answer, **keys: Any) -> tuple[dict[str, Any], list[int]]:
    """The summary of a study at equal time, and how long the other sides train."""
    found = kit.played(kit.study(**({"equal": ["time"]} | keys)), answer)
    plan = found.play()
    summary = summarise(found.planner, plan, "tiny")
    return summary, [match.reference.epochs for match in plan.matches if match.reference]


def test_cells_of_one_thread_have_equal_cpu_seconds(kit: Any) -> None:
    summary, lengths = played(kit, measured(kit))
    # 12 epochs with the warm-up, times three, less the warm-up of 2.
    assert (summary["time"], lengths) == ("cpu_seconds", [34])
    spent = {(arm["method"], arm["epochs"]): arm for arm in summary["arms"]}
    helped, longer = spent["netaug", 10], spent["baseline", 34]
    assert helped["train_cpu_seconds"] == longer["train_cpu_seconds"] == 12 * 24
    assert (helped["train_seconds"], longer["train_seconds"]) == (12 * 40, 36 * 10)
    head, rows = arms_table(summary)
    times = {row[head.index("epochs")]: row[head.index("time")] for row in rows}
    assert times["34"] == "4.8 min"  # 288 s
    assert any(note.endswith(CPU) for note in notes(summary))
    assert not any(WALL in note for note in notes(summary))
    # Two seeds each: 12 and 36 epochs of the baseline, 12 of NetAug.
    assert "| 22.4 min | yes |" in results_pages([summary])["results.md"]
    assert "train_cpu_seconds" in csv_text(summary).splitlines()[0].split(",")


@pytest.mark.parametrize(
    ("says", "keys"),
    [
        (lambda cell: True, {"threads": 2}),
        (lambda cell: False, {}),
        # A cell of older code, or on a GPU, among the others.
        (lambda cell: (cell.lr, cell.arm.method) != (0.4, "baseline"), {}),
        (
            lambda cell: cell.arm.method != "baseline" or cell.seed != 0,
            {"tune": {"grid": [0.2], "extend": False}},
        ),
    ],
)
def test_otherwise_they_have_equal_seconds(
    says: Callable[[Cell], bool], keys: dict[str, Any], kit: Any
) -> None:
    summary, lengths = played(kit, measured(kit, says), **keys)
    assert (summary["time"], lengths) == ("seconds", [46])
    assert any(note.endswith(WALL) for note in notes(summary))
    head, rows = arms_table(summary)
    times = {row[head.index("epochs")]: row[head.index("time")] for row in rows}
    assert times["46"] == "8.0 min"


@pytest.mark.parametrize(("cost", "time"), [(48.0, "cpu_seconds"), (None, "seconds")])
def test_what_counts_is_measured_alike(cost: float | None, time: str, kit: Any) -> None:
    methods = {"baseline": {}, "netaug": {"largest": "before:it", "counts": ["it"]}}
    usual = measured(kit)

    def answer(cell: Cell) -> dict[str, Any]:
        if cell.arm is None:
            return {"train_macs": 1.0, "train_seconds": 100.0, "train_cpu_seconds": cost}
        return usual(cell)

    summary, lengths = played(kit, answer, methods=methods, before={"it": {"train": {}}})
    # 36 (48) epochs of the baseline, and 6 (10) for the run before.
    assert (summary["time"], lengths) == (time, [40] if cost else [56])
    assert summary["arms"][1]["train_cpu_seconds"] == (12 * 24 + 48 if cost else None)


def test_what_time_is_does_not_depend_on_the_order_of_finishing(kit: Any) -> None:
    answer = measured(kit, lambda cell: cell.lr != 0.4)
    forward = kit.played(kit.study(equal=["epochs", "time"]), answer)
    forward.play()
    backward = kit.played(kit.study(equal=["epochs", "time"]), answer)
    while waiting := [
        cell for cell in backward.plan().cells if backward.store.state(cell.identity) == "waiting"
    ]:
        backward.store.results[waiting[-1].identity] = answer(waiting[-1])
    assert backward.plan().matches == forward.plan().matches


@pytest.mark.parametrize(
    ("threads", "lost", "words"),
    [(2, "train_seconds", "seconds"), (1, "train_cpu_seconds", "CPU seconds")],
)
def test_runs_that_do_not_say_their_time(threads: int, lost: str, words: str, kit: Any) -> None:
    usual = measured(kit)

    def answer(cell: Cell) -> dict[str, Any]:
        # Nothing at all is no cost of a training: clocks that stood still.
        return usual(cell) | ({lost: 0.0} if cell.arm and cell.arm.method == "netaug" else {})

    study = kit.study(equal=["time"], threads=threads)
    plan = kit.played(study, answer).play()
    assert [match.unknown for match in plan.matches] == [
        f"netaug: its runs do not say their {words}"
    ]
    assert Arm("micro_10k", "netaug", 10) in plan.tuning


def test_a_summary_of_an_older_release_is_told_in_its_words(kit: Any) -> None:
    summary, _ = played(kit, measured(kit), threads=2)
    older = {key: value for key, value in summary.items() if key != "time"}
    older["arms"] = [
        {key: value for key, value in arm.items() if key != "train_cpu_seconds"}
        for arm in summary["arms"]
    ]
    assert markdown(older) == markdown(summary)
    assert results_pages([older]) == results_pages([summary])
    assert csv_text(older) == csv_text(summary | {"arms": older["arms"]})
