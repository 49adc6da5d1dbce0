"""What is said of several training lengths: tables, maps, accuracy against compute."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from scipy import stats

from nasaug.comparing.cells import Cell
from nasaug.comparing.figures import compute_figure, rates_figure
from nasaug.comparing.maps import difference_maps
from nasaug.comparing.report import report_page
from nasaug.comparing.spreadsheet import csv_text
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import arms_table, compared_table, map_tables, markdown

PARAMS = {"micro_10k": 9_850, "micro_40k": 39_000}
# Test accuracies by target, method and epochs, of three seeds.
SCORES = {
    ("micro_10k", "baseline", 4): [0.80, 0.81, 0.79],
    ("micro_10k", "netaug", 4): [0.79, 0.80, 0.76],
    ("micro_10k", "baseline", 16): [0.85, 0.86, 0.84],
    ("micro_10k", "netaug", 16): [0.87, 0.87, 0.88],
    ("micro_10k", "baseline", 52): [0.86, 0.87, 0.85],
    ("micro_40k", "baseline", 4): [0.88, 0.89, 0.87],
    ("micro_40k", "netaug", 4): [0.87, 0.89, 0.88],
    ("micro_40k", "baseline", 16): [0.90, 0.91, 0.89],
    ("micro_40k", "netaug", 16): [0.93, 0.92, 0.91],
    ("micro_40k", "baseline", 52): [0.92, 0.91, 0.92],
}


def summarised(kit: Any, **keys: Any) -> dict[str, Any]:
    """The report of a study played to its end."""
    made = played(kit, **keys)
    return summarise(made.planner, made.play(), "tiny")


def played(kit: Any, **keys: Any) -> Any:
    """Two methods, NetAug at three times the baseline's cost, on two targets, the larger first, at
    two lengths, at equal epochs and MACs."""

    def answer(cell: Cell) -> dict[str, Any]:
        assert cell.arm is not None
        arm, macs = cell.arm, 3000.0 if cell.arm.method == "netaug" else 1000.0
        top1 = kit.best_at(0.2)(cell)
        if not cell.tuning:
            top1 = SCORES[arm.target, arm.method, arm.epochs][cell.seed or 0]
        said = "under-fits" if arm.epochs < 10 or cell.seed else "undecided"
        more = {"diagnosis": f"{said}: 60 %", "params": PARAMS[arm.target]}
        found: dict[str, Any] = kit.trained(cell, top1, macs, validation_top1=top1, **more)
        return found

    given: dict[str, Any] = {
        "base": {"in_channels": 1, "train": {"warmup_epochs": 2}},
        "targets": ["micro_40k", "micro_10k"],
        "lengths": [4, 16],
        "seeds": 3,
        "equal": ["epochs", "macs"],
    }
    return kit.played(kit.study(**(given | keys)), answer)


def one(rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    return found


def test_there_is_a_row_for_every_arm_and_length(kit: Any) -> None:
    summary = summarised(kit)
    assert summary["lengths"] == [4, 16]
    rows = [(arm["target"], arm["method"], arm["epochs"], arm["longer"]) for arm in summary["arms"]]
    assert rows[:5] == [
        ("micro_40k", "baseline", 4, False), ("micro_40k", "netaug", 4, False),
        ("micro_40k", "baseline", 16, False), ("micro_40k", "netaug", 16, False),
        ("micro_40k", "baseline", 52, True),
    ]  # fmt: skip
    assert len(rows) == len(arms_table(summary)[1]) == 10


def test_differences_are_pooled_over_targets_within_a_length(kit: Any) -> None:
    summary = summarised(kit)
    for epochs, other in ((4, 16), (16, 52)):
        found = one(
            summary["comparisons"], target="all", method="netaug", equal="macs", epochs=epochs
        )
        ours = [s for t in PARAMS for s in SCORES[t, "netaug", epochs]]
        theirs = [s for t in PARAMS for s in SCORES[t, "baseline", other]]
        assert found["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
        assert (found["n"], found["planned"], found["final"]) == (6, 6, True)
    assert sum(row["target"] == "all" for row in summary["comparisons"]) == 4
    head, rows = compared_table(summary)
    own = [dict(zip(head, row, strict=True)) for row in rows]
    assert {(row["epochs"], row["its epochs"]) for row in own if row["at"] == "equal MACs"} == {
        ("4", "-"), ("16", "-"), ("4", "16"), ("16", "52"),
    }  # fmt: skip


def test_holm_is_within_a_length(kit: Any) -> None:
    assert {row["family"] for row in summarised(kit)["comparisons"]} == {1}


def test_the_map_is_targets_by_lengths(kit: Any) -> None:
    summary = summarised(kit)
    assert [(m["method"], m["equal"], m["lengths"]) for m in summary["maps"]] == [
        ("netaug", "epochs", [4, 16]), ("netaug", "macs", [4, 16]),
    ]  # fmt: skip
    for found in summary["maps"]:
        assert [(row["target"], row["params"]) for row in found["rows"]] == [*PARAMS.items()]
        for row in found["rows"]:
            for cell in row["cells"]:
                same = one(
                    summary["comparisons"],
                    target=row["target"],
                    equal=found["equal"],
                    epochs=cell["epochs"],
                )
                assert {key: cell[key] for key in ("difference", "low", "high", "n")} == {
                    key: same[key] for key in ("difference", "low", "high", "n")
                }
    cells = one(summary["maps"][0]["rows"], target="micro_10k")["cells"]
    assert [cell["baseline_fits"] for cell in cells] == [
        {"under-fits": 3}, {"under-fits": 2, "undecided": 1},
    ]  # fmt: skip


def test_the_map_is_a_table_of_each_report(kit: Any) -> None:
    summary = summarised(kit)
    (title, (head, rows)), (second, _) = map_tables(summary)
    assert title == "netaug against baseline, equal epochs"
    assert second == "netaug against baseline, equal MACs"
    assert head == ("target", "parameters", "4 epochs", "16 epochs")
    low, high = stats.t.interval(0.95, 2, loc=-1 / 60, scale=stats.sem([-0.01, -0.01, -0.03]))
    assert rows[0][:3] == [
        "micro_10k",
        "9,850",
        f"-1.67 ({100 * low:+.2f} to {100 * high:+.2f}), n = 3; baseline under-fits",
    ]
    assert rows[0][3].endswith("n = 3; baseline under-fits in 2, undecided in 1")
    text = markdown(summary)
    assert "## Map" in text and f"{title}:\n\n| target | parameters |" in text
    assert ">Map</h2>" in report_page(summary, "")


def test_one_target_and_one_length_need_no_map(kit: Any) -> None:
    summary = summarised(kit, lengths=[4], targets=["micro_10k"], equal=["epochs"])
    assert summary["maps"] == []
    assert "## Map" not in markdown(summary)
    assert ">Map</h2>" not in report_page(summary, "")


def test_a_map_of_what_is_not_known_yet_has_dashes() -> None:
    row = {"target": "it", "method": "netaug", "against": "baseline", "equal": "macs", "n": 0,
           "difference": None, "low": None, "high": None, "p": None, "planned": 3,
           "final": False, "unknown": "", "against_epochs": None}  # fmt: skip
    maps = difference_maps([], [{**row, "epochs": epochs} for epochs in (4, 16)], "baseline")
    unknown = {**row, "epochs": 4, "unknown": "netaug: no rate trains it", "target": "other"}
    more = difference_maps([], [{**row, "epochs": 16}, unknown], "baseline")
    assert [map_tables({"maps": found})[0][1][1] for found in (maps, more)] == [
        [["it", "-", "-", "-"]],
        [["it", "-", "-", "-"], ["other", "-", "netaug: no rate trains it", "-"]],
    ]


def test_reaching_the_baseline_is_by_length(kit: Any) -> None:
    """Validation accuracies rise by epochs; every baseline ends at another level."""
    made = played(kit, targets=["micro_10k"], seeds=1)
    plan = made.play()
    for arm, cells in plan.finals.items():
        for cell in cells.values():
            end = 0.5 + arm.epochs / 100
            made.store.results[cell.identity]["validation_top1"] = end
            steps = [round(end * share, 4) for share in (0.6, 0.9, 0.95, 1.0)]
            made.store.rows = rows_of(made.store.rows, cell.identity, steps)
    arms = summarise(made.planner, plan, "tiny")["arms"]
    found = {(row["method"], row["epochs"]): row["reaches"] for row in arms}
    # 0.54 and 0.66 are the levels of the short ones; the longer baseline, 1.02 at its end, is the
    # reference of NetAug's 16 epochs.
    assert found == {
        ("baseline", 4): 4, ("netaug", 4): 4, ("baseline", 16): 4, ("netaug", 16): 4,
        ("baseline", 52): 2,
    }  # fmt: skip


def rows_of(before: Any, cell: str, values: list[float]) -> Any:
    """Like `before`, with curves for one cell more."""
    rows = [{"epoch": e, "top1": v, "train_top1": v} for e, v in enumerate(values, 1)]
    return lambda name: rows if name == cell else before(name)


def test_csv_has_each_length_with_its_comparisons(kit: Any) -> None:
    summary = summarised(kit)
    rows = list(csv.DictReader(io.StringIO(csv_text(summary))))
    assert len(rows) == 10 + 2
    for row in rows:
        if (row["target"], row["method"]) == ("micro_10k", "netaug"):
            want = one(summary["comparisons"], target="micro_10k", epochs=int(row["epochs"]),
                       equal="macs")  # fmt: skip
            assert float(row["macs_difference"]) == want["difference"]
            assert int(row["macs_against_epochs"]) == want["against_epochs"]
    assert [row["epochs"] for row in rows if row["target"] == "all"] == ["4", "16"]


def test_accuracy_against_compute_is_a_line_a_method_through_its_lengths(kit: Any) -> None:
    arms = [arm for arm in summarised(kit)["arms"] if arm["target"] == "micro_10k"]
    (axes,) = compute_figure(arms, ["baseline", "netaug"]).axes
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.containers}
    assert list(lines) == ["baseline", "netaug"]
    for method, epochs in (("baseline", [4, 16, 52]), ("netaug", [4, 16])):
        line, _, (bars,) = lines[method]
        an_epoch = 1000 if method == "baseline" else 3000
        assert list(line.get_xdata()) == pytest.approx([an_epoch * (e + 2) for e in epochs])
        scores = [SCORES["micro_10k", method, e] for e in epochs]
        assert list(line.get_ydata()) == pytest.approx([sum(s) / 3 for s in scores])
        for segment, values in zip(bars.get_segments(), scores, strict=True):
            low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
            assert list(segment[:, 1]) == pytest.approx([low, high])


def test_rates_are_named_by_their_lengths(kit: Any) -> None:
    tuning = [one for one in summarised(kit)["tuning"] if one["target"] == "micro_10k"]
    (axes,) = rates_figure(tuning, ["baseline", "netaug"]).axes
    names = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert names == [
        "baseline, 4 epochs", "netaug, 4 epochs", "baseline, 16 epochs", "netaug, 16 epochs",
        "baseline, 52 epochs",
    ]  # fmt: skip
    styles = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert len({styles[name] for name in names}) == 3


def test_every_length_has_its_curves_on_the_page(kit: Any) -> None:
    page = report_page(summarised(kit), "")
    for epochs in (4, 16):
        assert f"micro_10k: validation and training accuracy over {epochs} epochs" in page
