"""What a study's outputs say: the summary against scipy, tables that parse, a page on its own."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasaug.comparing.cells import Cell
from nasaug.comparing.formats import duration, probability
from nasaug.comparing.report import report_page, write_outputs
from nasaug.comparing.spreadsheet import csv_text
from nasaug.comparing.studies import OUTPUTS
from nasaug.comparing.summary import summarise
from nasaug.comparing.tables import arms_table, compared_table, markdown, notes

# Test accuracies by method, target and seed.
SCORES = {
    ("baseline", "micro_10k"): [0.870, 0.874, 0.869],
    ("netaug", "micro_10k"): [0.880, 0.879, 0.877],
    ("twice", "micro_10k"): [0.871, 0.870, 0.873],
    ("baseline", "micro_40k"): [0.900, 0.904, 0.901],
    ("netaug", "micro_40k"): [0.899, 0.906, 0.905],
    ("twice", "micro_40k"): [0.880, 0.881, 0.879],
}
METHODS = {
    "baseline": {},
    "netaug": {"largest": "published"},
    "twice": {"method": "netaug", "largest": "published", "netaug": {"helpers": 2}},
}


@pytest.fixture
def summary(kit: Any) -> dict[str, Any]:
    return summarised(kit)


def summarised(kit: Any, stop: int = 10_000, **keys: Any) -> dict[str, Any]:
    """Three methods on two targets, three seeds, at equal epochs and MACs; `stop` cuts it short."""

    def answer(cell: Cell) -> dict[str, Any]:
        assert cell.arm is not None
        macs = {"baseline": 1000.0, "netaug": 3000.0, "twice": 1030.0}[cell.arm.method]
        top1 = kit.best_at(0.2)(cell)
        if not cell.tuning:
            top1 = SCORES[cell.arm.method, cell.arm.target][cell.seed or 0]
            top1 += 0.004 * (cell.arm.epochs > 10)
        return kit.trained(cell, top1, macs, validation_top1=top1 - 0.01)

    given_keys: dict[str, Any] = {
        "targets": ["micro_10k", "micro_40k"], "methods": METHODS, "seeds": 3,
        "equal": ["epochs", "macs"],
    }  # fmt: skip
    played = kit.played(kit.study(**(given_keys | keys)), answer)
    while len(played.order) < stop and played.step():
        pass
    found = summarise(played.planner, played.plan(), "tiny")
    assert found == json.loads(json.dumps(found, allow_nan=False))
    return found


def one(rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    return found


def test_arms_are_means_of_their_test_accuracies(summary: dict[str, Any]) -> None:
    arm = one(summary["arms"], target="micro_10k", method="netaug")
    values = SCORES["netaug", "micro_10k"]
    assert arm["test"]["mean"] == pytest.approx(np.mean(values))
    assert arm["test"]["sd"] == pytest.approx(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (arm["test"]["low"], arm["test"]["high"]) == (pytest.approx(low), pytest.approx(high))
    assert arm["validation"]["mean"] == pytest.approx(np.mean(values) - 0.01)
    assert (arm["n"], arm["planned"], arm["final"], arm["lr"]) == (3, 3, True, 0.2)
    assert arm["train_macs"] == pytest.approx(36_000)
    assert arm["train_seconds"] == pytest.approx(120)
    assert arm["diagnosis"] == {"under-fits": 3}
    longer = one(summary["arms"], target="micro_10k", method="baseline", longer=True)
    assert (longer["epochs"], longer["train_macs"]) == (34, pytest.approx(36_000))


def test_what_counts_is_part_of_what_a_method_costs(kit: Any) -> None:
    def answer(cell: Cell) -> dict[str, Any]:
        if cell.arm is None:
            return {"train_macs": 6000, "train_seconds": 30.0}
        return kit.trained(cell, kit.best_at(0.2)(cell))

    methods = {"baseline": {}, "netaug": {"largest": "before:it", "counts": ["it"]}}
    study = kit.study(methods=methods, before={"it": {"train": {}}})
    played = kit.played(study, answer)
    found = summarise(played.planner, played.play(), "tiny")["arms"]
    assert [arm["train_macs"] for arm in found] == [12_000, 18_000]
    assert [arm["train_seconds"] for arm in found] == [120, 150]


def test_comparisons_are_scipys_paired_tests(summary: dict[str, Any]) -> None:
    for target in ("micro_10k", "micro_40k"):
        for kind, more in (("epochs", 0.0), ("macs", 0.004)):
            found = one(summary["comparisons"], target=target, method="netaug", equal=kind)
            ours = SCORES["netaug", target]
            theirs = [value + more for value in SCORES["baseline", target]]
            expected = stats.ttest_rel(ours, theirs)
            assert found["p"] == pytest.approx(expected.pvalue)
            assert found["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
            interval = expected.confidence_interval(0.95)
            assert found["low"] == pytest.approx(interval.low)
            r = stats.pearsonr(ours, theirs).statistic
            assert found["correlation"] == pytest.approx(r)
            assert (found["epochs"], found["against_epochs"]) == (
                10,
                10 if kind == "epochs" else 34,
            )
            assert (found["n"], found["final"], found["against"]) == (3, True, "baseline")


def test_pooled_comparisons_are_over_the_pairs_of_all_targets(summary: dict[str, Any]) -> None:
    found = one(summary["comparisons"], target="all", method="netaug", equal="epochs")
    ours = SCORES["netaug", "micro_10k"] + SCORES["netaug", "micro_40k"]
    theirs = SCORES["baseline", "micro_10k"] + SCORES["baseline", "micro_40k"]
    assert found["n"] == found["planned"] == 6
    assert found["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_holm_is_over_the_methods_of_a_target_at_equal_one_thing(summary: dict[str, Any]) -> None:
    family = [
        row for row in summary["comparisons"]
        if (row["target"], row["equal"]) == ("micro_10k", "epochs")
    ]  # fmt: skip
    assert [row["family"] for row in family] == [2, 2]
    smaller, larger = sorted(family, key=lambda row: row["p"])
    assert smaller["holm"] == pytest.approx(min(1, 2 * smaller["p"]))
    assert larger["holm"] == pytest.approx(max(smaller["holm"], larger["p"]))


def test_what_costs_the_same_has_the_same_difference_at_equal_macs(summary: dict[str, Any]) -> None:
    rows = [one(summary["comparisons"], target="micro_10k", method="twice", equal=kind)
            for kind in ("epochs", "macs")]  # fmt: skip
    assert rows[0]["difference"] == rows[1]["difference"]
    assert rows[1]["against_epochs"] == 10


@pytest.mark.parametrize("stop", [0, 1, 7, 30, 45])
def test_a_study_cut_short_says_how_many_runs_it_has(kit: Any, stop: int) -> None:
    found = summarised(kit, stop)
    assert not found["final"]
    for row in (*found["arms"], *found["comparisons"]):
        assert row["final"] == (row["n"] == row["planned"])
    for text in (markdown(found), report_page(found, ""), csv_text(found)):
        assert not re.search(r"\b(nan|None|inf)\b", text)
    assert any("not final" in note for note in notes(found))


def test_a_rate_that_does_not_suit_all_seeds_is_said(summary: dict[str, Any]) -> None:
    """Else it makes whatever is compared with it look good."""
    assert len([arm for arm in summary["arms"] if arm["n"] >= 3]) >= 3
    assert not any("Doubtful" in note for note in notes(summary))
    changed = copy.deepcopy(summary)
    arm = next(arm for arm in changed["arms"] if arm["n"] >= 3)
    arm["test"]["sd"] = 3.1 * statistics.median(a["test"]["sd"] for a in summary["arms"])
    (said,) = (note for note in notes(changed) if "Doubtful" in note)
    assert f"{arm['target']}, {arm['method']}" in said
    arm["n"] = 2
    assert not any("Doubtful" in note for note in notes(changed))


def test_one_seed_has_no_interval_and_no_p(kit: Any) -> None:
    found = summarised(kit, seeds=1, targets=["micro_10k"])
    head, rows = compared_table(found)
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        assert (cells["n"], cells["95 % interval"], cells["p"]) == ("1", "-", "-")
    head, rows = arms_table(found)
    assert {dict(zip(head, row, strict=True))["sd"] for row in rows} == {"-"}
    assert "nan" not in markdown(found)


def test_more_seeds_than_finished_runs_is_said(kit: Any) -> None:
    whole = summarised(kit)
    cells = 2 * 3 * 3 + 2 * 3 + 2 * 3  # tuning, and two seeds of three of the short arms
    found = summarised(kit, cells + 2 * 3)
    head, rows = compared_table(found)
    counts = {dict(zip(head, row, strict=True))["n"] for row in rows}
    assert counts != {dict(zip(head, row, strict=True))["n"] for row in compared_table(whole)[1]}
    assert any(re.fullmatch(r"\d of \d", count) for count in counts)


def test_markdown_tables_are_whole(summary: dict[str, Any]) -> None:
    text = markdown(summary)
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        lines = table.strip().splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) <= set("|-: ")
    assert "| micro_10k | netaug | 10 | baseline | equal MACs | 34 | 3 |" in text
    assert "all, pooled" in text
    assert text.startswith("# tiny\n\n**Question:** Does it help?\n")
    assert text.endswith("**Answer:** not run yet\n")


def test_csv_holds_the_summary(summary: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(summary))))
    # Three methods and a longer baseline on two targets; two methods pooled.
    assert len(rows) == 2 * 4 + 2
    row = next(r for r in rows if (r["target"], r["method"]) == ("micro_40k", "netaug"))
    arm = one(summary["arms"], target="micro_40k", method="netaug")
    compared = one(summary["comparisons"], target="micro_40k", method="netaug", equal="macs")
    assert float(row["test_mean"]) == arm["test"]["mean"]
    assert float(row["macs_p"]) == compared["p"]
    assert int(row["macs_against_epochs"]) == 34
    assert row["time_p"] == ""


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = dict(attributes)
        self.identifiers += [value for key, value in attributes if key == "id" and value]
        for key in ("src", "href", "xlink:href", "data"):
            value = names.get(key)
            if value and not value.startswith("#"):
                self.loaded.append(value)


def test_the_page_needs_nothing_else(summary: dict[str, Any]) -> None:
    page = report_page(summary, "question: <b>?")
    reader = Reader(page)
    assert reader.loaded == []
    assert "script" not in reader.tags
    assert reader.tags.count("svg") == 2 * 4 + 2
    assert len(reader.identifiers) == len(set(reader.identifiers))
    assert "&lt;b&gt;" in page
    for heading in ("Does it help?", "micro_10k", "micro_40k", "Learning rates", "The study"):
        assert f">{heading}</h2>" in page


def test_equal_studies_have_equal_pages(kit: Any) -> None:
    pages = {report_page(summarised(kit, 40), "x") for _ in range(2)}
    assert len(pages) == 1


def test_outputs_are_written(summary: dict[str, Any], tmp_path: Path) -> None:
    paths = write_outputs(tmp_path, summary, "question: ?")
    assert set(paths) == {"summary.json", "table.csv", "table.md", "report.html"} == {*OUTPUTS}
    assert {entry.name for entry in tmp_path.iterdir()} == {*OUTPUTS}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "table.md").read_text() == markdown(summary)


def test_failures_and_other_code_are_named(kit: Any, tmp_path: Path) -> None:
    def answer(cell: Cell) -> Any:
        if cell.name == "micro_10k-netaug-e10-lr0.2-s1":
            return kit.BROKEN
        return kit.trained(cell, kit.best_at(0.2)(cell))

    played = kit.played(kit.study(), answer)
    plan = played.play()
    other = played.store.cells / "older"
    for folder in (plan.cells[0].identity, "of-another-study"):
        (other / folder).mkdir(parents=True)
        (other / folder / "result.json").write_text('{"validation_top1": 0.5}')
    found = summarise(played.planner, plan, "tiny")
    assert [row["cell"] for row in found["failed"]] == ["micro_10k-netaug-e10-lr0.2-s1"]
    said = " ".join(notes(found))
    assert "Failed: micro_10k-netaug-e10-lr0.2-s1 (exit code 1: nasaug: no space" in said
    assert "Other code, older, finished 1 of these cells: kept apart" in said
    assert "What failed" in report_page(found, "")


def test_epochs_to_the_baselines_final_accuracy(kit: Any, tmp_path: Path) -> None:
    def answer(cell: Cell) -> dict[str, Any]:
        return kit.trained(cell, 0.5)

    played = kit.played(kit.study(tune={"grid": [0.1], "extend": False}), answer)
    plan = played.play()
    rising = {"baseline": [0.1, 0.3, 0.5], "netaug": [0.2, 0.5, 0.6]}
    for arm, cells in plan.finals.items():
        for cell in cells.values():
            folder = played.store.folder(cell.identity)
            folder.mkdir(parents=True)
            rows = [{"epoch": e, "top1": v, "train_top1": v}
                    for e, v in enumerate(rising[arm.method], 1)]  # fmt: skip
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "metrics.jsonl").write_text(text)
    found = summarise(played.planner, plan, "tiny")
    reaches = {arm["method"]: arm["reaches"] for arm in found["arms"]}
    assert reaches == {"baseline": 3, "netaug": 2}
    curve = one(found["arms"], method="netaug")["curves"]["validation"]
    assert curve == {"epochs": [1, 2, 3], "top1": [0.2, 0.5, 0.6]}


@given(st.floats(0, 1))
def test_any_p_value_is_written(p: float) -> None:
    text = probability(p)
    assert text == "< 0.0001" or math.isclose(float(text), p, abs_tol=5e-5)


def test_durations() -> None:
    said = [duration(seconds) for seconds in (None, 0.4, 45, 99.4, 750, 11_520)]
    assert said == ["-", "0 s", "45 s", "99 s", "12.5 min", "3.2 h"]
