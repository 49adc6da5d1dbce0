"""`nasaug contrast`, from the command line to its files; what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.contrasting.report import report_page, write_outputs
from nasaug.contrasting.spending import JUDGED
from nasaug.contrasting.summary import summarise
from nasaug.contrasting.tables import markdown, notes

Nasaug = Callable[..., Any]
FEW = {
    "contestants": {"alone": {}, "ofa_inherited": {}},
    "tune": {"grid": [0.1], "extend": False},
    "seeds": 1,
    "epochs": 8,
}
OUTPUTS = {"study.yaml", "summary.json", "table.csv", "table.md", "report.html"}


def test_from_nothing_to_a_report_stopped_on_the_way(
    nasaug: Nasaug, written: Callable[..., str], stopped_after_a_cell: Callable[..., Path]
) -> None:
    name = written(**FEW)
    whole = stopped_after_a_cell("contrast", name, "--workers=1")
    before = whole.stat().st_mtime_ns
    assert nasaug("contrast", name, "--status", "--json").json["counts"]["done"] == 1
    done = nasaug("contrast", name, "--workers=1", "--json")
    assert done.code == 0, done.said
    assert whole.stat().st_mtime_ns == before, "what was finished is not run again"
    found = done.json
    rows = {row["contestant"]: row for row in found["rows"]}
    assert [row["n"] for row in rows.values()] == [1, 1] and found["final"]
    assert rows["alone"]["macs"] == [307_920] and rows["ofa_inherited"]["macs"][0] <= 400_000
    assert rows["alone"]["spent"]["unused"] == 0
    assert rows["ofa_inherited"]["spent"]["judging"] > 0
    [difference] = found["comparisons"]
    assert (difference["contestant"], difference["against"]) == ("ofa_inherited", "alone")
    assert difference["low"] is None, "no interval of one pair"
    folder = Path(found["run_dir"])
    assert folder == Path("runs/contrast-tiny")
    assert {path.name for path in folder.iterdir()} >= OUTPUTS
    # It is known by its cells: the same command finds it done, and others ask.
    again = nasaug("contrast", name, "--workers=1")
    assert again.code == 0 and "2 done of 2 cells" in again.said
    assert again.out.startswith("Down from a large network, or up from the small one?")
    asked = nasaug("contrast", name, "--status", "--json")
    assert asked.json["counts"]["done"] == 2 and asked.json["seconds_left"] == 0
    published = nasaug("contrast", name, "--publish=page")
    assert published.code == 0 and "tiny is on page/results/tiny.md" in published.said
    line, page = Path("page/results.md").read_text(), Path("page/results/tiny.md").read_text()
    assert "| [tiny](results/tiny.md) | Down from a large network" in line and "| 2 of 2 |" in line
    for figure in ("course", "spending"):
        assert f"(tiny-{figure}.svg)" in page
        assert Path(f"page/results/tiny-{figure}.svg").read_text().count("<svg") == 1
    reported = nasaug("contrast", name, "--report", "--out=elsewhere", "--cells=runs/cells")
    assert reported.code == 0
    assert Path("elsewhere/table.md").read_bytes() == (folder / "table.md").read_bytes()
    # Cells of another version of the code are found, said to be so, and can be gone on with.
    [own] = [path for path in Path("runs/cells").iterdir() if path.is_dir()]
    own.rename("runs/cells/0.0-older")
    older = nasaug("contrast", name, "--report", "--json").json
    assert (older["code"], older["mixed_code"]) == ("0.0-older", [])
    # What this code judges is kept with their cells, and said.
    for judged in Path("runs/cells/0.0-older").glob(f"*.{JUDGED}"):
        judged.unlink()
    older = nasaug("contrast", name, "--report", "--json").json
    assert older["mixed_code"] == [own.name]
    other = nasaug("contrast", name, "--workers=1", "--code=0.0-older", "--json").json
    assert (other["code"], other["mixed_code"]) == ("0.0-older", [own.name])
    assert [row["test"] for row in other["rows"]] == [row["test"] for row in found["rows"]]
    wrong = nasaug("contrast", name, "--status", "--code=0.0-oldest")
    assert wrong.code == 2 and "holds no cells of code '0.0-oldest'" in wrong.said


def test_without_a_file_the_name_tells_contrasts_apart() -> None:
    from nasaug.contrasting.run import load_contrast

    names = {load_contrast(None, (), {"budget": budget})[0] for budget in ("10M", "25M")}
    assert names == {"mbv2_tiny-mbv2_down-10M", "mbv2_tiny-mbv2_down-25M"}
    here = {"target": "mine/net.yaml", "space": "mine/table.yaml", "budget": "1M"}
    assert load_contrast(None, (), here)[0] == "net-table-1M"


def _summary(played: Callable[..., Any], contrast: Any, most: int = 500) -> dict[str, Any]:
    play = played(contrast)
    plan = play.play(most)
    return summarise(play.planner, plan, "tiny")


@pytest.fixture
def without_books(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that were played have no weights to read."""
    from nasaug.contrasting import spending
    from nasaug.supernet import load_target

    books = spending.Bookkeeper
    target = load_target("micro_10k", 10, 28, 1)
    spent = spending.Spent(100, 10, 50, 60, 20)
    monkeypatch.setattr(books, "spent", lambda self, entry: spent)
    monkeypatch.setattr(books, "network", lambda self, entry: target)
    monkeypatch.setattr(books, "test_top1", lambda self, entry: 0.8 + entry.last.seed / 100)
    monkeypatch.setattr(books, "course", lambda self, entry: [(100.0, 0.5), (150.0, 0.8)])


@pytest.mark.usefixtures("without_books")
def test_tables_say_what_the_summary_holds(
    played: Callable[..., Any], contrast: Callable[..., Any], tmp_path: Path
) -> None:
    summary = _summary(played, contrast(seeds=3, answer="<b>Neither</b> | nor"))
    assert summary["final"] and len(summary["rows"]) == 7 and len(summary["comparisons"]) == 9
    row = summary["rows"][0]
    assert row["test"]["mean"] == pytest.approx(0.81) and row["test"]["sd"] == pytest.approx(0.01)
    assert row["spent"]["total"] == 160 and row["spent"]["unused"] == 90
    text = markdown(summary)
    assert "| alone | 3 | 81.00 | 78.52 to 83.48 | 307.9K | 9,850 |" in text
    assert "90 (56 %)" in text
    assert "| ofa_netaug | ofa_alone | 3 | +0.00 |" in text
    (tmp_path / "out").mkdir()
    write_outputs(tmp_path / "out", summary, "target: micro_10k\n")
    page = (tmp_path / "out/report.html").read_text()
    assert "&lt;b&gt;Neither&lt;/b&gt;" in page and "<b>Neither" not in page
    assert page.count("<svg") == 2
    lines = list(csv.DictReader((tmp_path / "out/table.csv").read_text().splitlines()))
    assert [line["contestant"] for line in lines] == [r["contestant"] for r in summary["rows"]]
    assert float(lines[0]["test_mean"]) == pytest.approx(0.81)
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary


@pytest.mark.usefixtures("without_books")
def test_unfinished_it_says_so(played: Callable[..., Any], contrast: Callable[..., Any]) -> None:
    nothing = _summary(played, contrast(), most=0)
    assert not nothing["final"] and all(row["n"] == 0 for row in nothing["rows"])
    assert "Not finished" in " ".join(notes(nothing))
    assert "<svg" not in report_page(nothing, "")
    part = _summary(played, contrast(), most=32)
    counts = [row["n"] for row in part["rows"]]
    assert 0 < sum(counts) < 14
    assert any(row["n"] < row["planned"] for row in part["rows"]) and not part["final"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"budget": "300K"}, ["micro_10k", "307,920", "300,000", "smaller target"]),
        (
            {"budget": "330K", "space": "mbv3_ofa"},
            ["mbv3_ofa's smallest member", "330,000"],
        ),
        ({"compute": "1M"}, ["up: ", "raise compute or search_share"]),
        ({"compute": "100M", "contestants": {"netaug": {}}}, ["netaug: 100M", "raise compute"]),
        ({"contestants": {"ofa": {}}}, ["unknown contestant 'ofa'", "did you mean"]),
        ({"contestants": {}}, ["contestants must name one"]),
        ({"contestants": {"ofa_inherited": {"netaug": {"r": 2}}}}, ["not trained any further"]),
        ({"contestants": {"alone": {"train": {"lr": 0.1}}}}, ["train.lr is decided by tune.grid"]),
        ({"base": {"train": {"epochs": 3}}}, ["base.train.epochs is decided by compute"]),
        ({"base": {"distill": {"teacher": "x"}}}, ["base.distill", "nasaug compare"]),
        ({"up": {"direction": "down"}}, ["up.direction is decided by the kind of search"]),
        ({"down": {"budget": "1M"}}, ["down.budget is decided by budget"]),
        ({"down": {"objectives": "accuracy,macs"}}, ["down.objectives must be accuracy"]),
        ({"down": {"trails": 3}}, ["down", "trails", "did you mean", "trials"]),
        ({"contestants": {"alone": {"init": "runs/x"}}}, ["alone.init is decided by the contest"]),
        ({"base": {"init": "runs/x"}}, ["base.init is decided by the contestants"]),
        ({"contestants": {"alone": {"resolution": 20}}}, ["resolution is decided by base"]),
        ({"up": {"data": {"name": "cifar10"}}}, ["up.data is decided by base"]),
        ({"down": {"storage": "sqlite:///s.db"}}, ["down.storage is decided by"]),
        (
            {"down": {"supernet": {"stages": [{"name": "full", "epochs": 1, "lr": 0.1}]}}},
            ["down.supernet.stages.0.lr is decided by tune.grid"],
        ),
        ({"search_share": 1.5}, ["search_share", "less than 1", "1.5"]),
        ({"seeds": 0}, ["seeds must be a count"]),
        ({"target": "micro_10"}, ["unknown target 'micro_10'"]),
        ({"space": "micro_dwn"}, ["unknown space 'micro_dwn'"]),
    ],
)
def test_wrong_keys_are_named_before_anything_runs(
    nasaug: Nasaug, written: Callable[..., str], keys: dict[str, Any], said: list[str]
) -> None:
    done = nasaug("contrast", written(**keys))
    assert done.code == 2
    for text in said:
        assert text in done.said
    assert not Path("runs").exists()


def test_wrong_options(nasaug: Nasaug, written: Callable[..., str]) -> None:
    name = written(**FEW)
    assert "ask one" in nasaug("contrast", name, "--status", "--report").said
    unknown = nasaug("contrast", "contrast_fashon")
    assert unknown.code == 2 and "did you mean 'contrast_fashion_mnist'" in unknown.said
    early = nasaug("contrast", name, "--report")
    assert early.code == 2 and "holds no cells" in early.said
    Path("runs/contrast-tiny").mkdir(parents=True)
    Path("runs/contrast-tiny/mine.txt").write_text("mine")
    taken = nasaug("contrast", name)
    assert taken.code == 2 and "holds no study" in taken.said
    assert nasaug("compare", "contrast_fashion_mnist").code == 2, "it is no study of compare's"


def test_built_in_contrasts_are_legal() -> None:
    from nasaug.contrasting.run import built_in_contrasts, load_contrast

    assert "contrast_fashion_mnist" in built_in_contrasts()
    for name in built_in_contrasts():
        stem, loaded = load_contrast(name, (), {})
        assert stem == name and len(loaded.seeds) >= 5
