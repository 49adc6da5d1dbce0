"""`nasaug detect compare`: what a study found as numbers, tables, a figure and a published page;
its scenes; and from the command line to its files, stopped and gone on with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from nasaug.comparing.cells import Cell
from nasaug.detect_config import DetectConfig
from nasaug.detect_study_config import DetectStudy
from nasaug.detecting.report import curves_figure, report_page, write_outputs
from nasaug.detecting.scenes import make_scenes, scenes_folder
from nasaug.detecting.summary import summarise
from nasaug.detecting.tables import equal_table, markdown, notes
from nasaug.detection import DetectorOptions, detector_macs, load_detection_set, write_scenes
from nasaug.publishing import publish, results_pages, summaries_in
from nasaug.supernet import load_target
from nasaug.training import load_dataset

Make = Callable[..., Any]
Nasaug = Callable[..., Any]
SPREAD = (0.003, 0.0, -0.003, 0.004, -0.004)


def score(gain: float) -> Callable[[Cell], float]:
    """A detector's mAP rises by 1 % for every 8 pixels; NetAug's is better by `gain`, by seed more
    or less."""

    def of(cell: Cell) -> float:
        if not isinstance(cell.config, DetectConfig):
            return 0.8
        ours = "netaug" in cell.name
        noise = SPREAD[(cell.seed or 0) % 5] * (1 + 0.5 * ours)
        return 0.2 + (cell.config.detector.size - 64) / 800 + gain * ours + noise

    return of


def summary_of(played: Make, study: DetectStudy, gain: float = 0.01, most: int = 500) -> Any:
    play = played(study, score(gain))
    return summarise(play.planner, play.play(most), "tiny")


def test_numbers_are_those_of_the_runs(detect_study: Make, played: Make) -> None:
    summary = summary_of(played, detect_study(seeds=5, sizes=[64, 96, 128]))
    assert summary["final"] and not summary["failed"]
    rows = {(row["method"], row["size"]): row for row in summary["rows"]}
    assert len(rows) == 6 and all(row["n"] == row["planned"] == 5 for row in rows.values())
    row = rows["baseline", 96]
    maps = [0.24 + noise for noise in SPREAD]
    interval = stats.t.interval(0.95, 4, 0.24, stats.sem(maps))
    assert row["map"]["mean"] == pytest.approx(0.24)
    assert (row["map"]["low"], row["map"]["high"]) == pytest.approx(interval)
    options = DetectorOptions(size=96, extra=(32, 16), aspect_ratios=(2.0,))
    macs = detector_macs(load_target("micro_3k", 10), 10, options)
    assert [row[f"macs_{part}"] for part in ("backbone", "extra", "heads")] == [*macs]
    assert row["macs"] == macs.total and row["lr"] == 0.05 and row["epochs"] == 4
    [start, augmented] = summary["starts"]
    assert (start["by"], augmented["by"]) == ("baseline", "netaug")
    assert start["n"] == 5 and start["train_macs"] == 1000 and start["epochs"] == 2
    # 5 pre-trainings a method, 5 detectors a method and size.
    assert summary["once"] == {"macs": 1000 * (10 + 30), "seconds": 2.0 * (10 + 30)}
    compared = {one["size"]: one for one in summary["comparisons"]}
    assert list(compared) == [64, 96, 128, "all"]
    theirs = [0.2 + noise for noise in SPREAD]
    ours = [0.21 + 1.5 * noise for noise in SPREAD]
    assert compared[64]["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert compared[64]["difference"] == pytest.approx(0.01)
    assert compared[64]["holm"] == pytest.approx(3 * compared[64]["p"])
    # Over sizes a seed has one difference: it counts once, however many sizes there are.
    assert compared["all"]["n"] == 5 and compared["all"]["holm"] == pytest.approx(compared[64]["p"])
    chosen = {(one["method"], one["size"]): one["chosen"] for one in summary["tuning"]}
    assert chosen["netaug", None] == 0.4 and chosen["netaug", 128] == 0.05


def test_macs_at_equal_map(detect_study: Make, played: Make) -> None:
    summary = summary_of(played, detect_study(seeds=5, sizes=[64, 96, 128]), gain=0.02)
    [one] = summary["equal"]
    found = one["found"]
    assert (
        one["n"] == 5 and one["unknown"] == "" and found["overlap"] == pytest.approx([0.22, 0.28])
    )
    # NetAug is half a size ahead: at the mAP of the baseline's 96 it stands between 64 and 96.
    cheap, mid, _ = one["curves"][1]["macs"]
    at_96 = found["savings"][0]
    assert [saving["resolution"] for saving in found["savings"]] == [96, 128]
    assert at_96["resolution"] == 96 and at_96["macs"] == pytest.approx(
        (cheap * mid) ** 0.5, rel=1e-6
    )
    assert at_96["fewer"]["value"] == pytest.approx(100 * (1 - (cheap / mid) ** 0.5), rel=1e-6)
    assert at_96["fewer"]["low"] < at_96["fewer"]["value"] < at_96["fewer"]["high"]
    _, [over, first, _] = equal_table(summary)
    assert over[:5] == ["netaug", "baseline", "all that both reach", "5", "22.00 to 28.00"]
    assert first[2] == "baseline at 96" and first[-1] == at_96["fewer"]["said"]
    figure = curves_figure(one)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "MACs of the detector, batch 1"
    texts = [text.get_text() for text in axes.texts]
    best = max(found["savings"], key=lambda saving: saving["fewer"]["value"])
    assert f"{best['fewer']['said']} fewer MACs" in texts
    assert [line.get_label() for line in axes.containers] == ["baseline (n = 5)", "netaug (n = 5)"]


def test_no_interval_of_one_seed(detect_study: Make, played: Make) -> None:
    alone = summary_of(played, detect_study(seeds=1))
    [one] = alone["equal"]
    assert one["found"]["mean"]["low"] is None and one["found"]["mean"]["high"] is None
    assert "one seed: there is no interval" in one["found"]["notes"]
    assert alone["rows"][0]["map"]["low"] is None and alone["comparisons"][0]["p"] is None
    said = " ".join(notes(alone))
    assert "netaug against baseline: one seed: there is no interval." in said


def test_curves_that_do_not_overlap(detect_study: Make, played: Make) -> None:
    summary = summary_of(played, detect_study(), gain=0.3)
    [one] = summary["equal"]
    assert one["found"] is None and "equal mAP needs a range that both reach" in one["unknown"]
    assert equal_table(summary)[1] == [
        ["netaug", "baseline", "-", "2", "-", "-", "-", "not known (see the notes)"]
    ]
    assert any("train netaug at lower resolutions" in note for note in notes(summary))
    assert curves_figure(one).axes, "the curves are drawn all the same"


def test_an_unfinished_study_says_so(detect_study: Make, played: Make, tmp_path: Path) -> None:
    empty = summary_of(played, detect_study(), most=0)
    assert not empty["final"] and empty["equal"][0]["curves"] == []
    assert "no seed is finished at all sizes" in markdown(empty)
    assert "<svg" not in report_page(empty, "")
    # The tuning (14 cells), then the first seed (6 cells) and one pre-training more.
    some = summary_of(played, detect_study(), most=21)
    assert [row["n"] for row in some["rows"]] == [1, 1, 1, 1] and not some["final"]
    assert "| baseline | 64 | 1 of 2 |" in markdown(some)
    assert any(note.startswith("Not finished") for note in notes(some))


def test_outputs_and_the_published_page(detect_study: Make, played: Make, tmp_path: Path) -> None:
    summary = summary_of(played, detect_study(answer="<b>Yes</b> | no"), gain=0.02)
    out, docs = tmp_path / "out", tmp_path / "docs"
    out.mkdir()
    write_outputs(out, summary, "target: micro_3k\n")
    assert json.loads((out / "summary.json").read_text()) == summary
    page = (out / "report.html").read_text()
    assert "&lt;b&gt;Yes&lt;/b&gt;" in page and "<b>Yes" not in page and page.count("<svg") == 1
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [(line["method"], line["size"]) for line in lines][:2] == [
        ("baseline", "64"),
        ("baseline", "96"),
    ]
    assert float(lines[2]["map_mean"]) == pytest.approx(summary["rows"][2]["map"]["mean"])
    assert lines[0]["against_p"] == ""
    difference = 0.02 + 0.5 * (SPREAD[0] + SPREAD[1]) / 2
    assert float(lines[2]["against_difference"]) == pytest.approx(difference)
    assert float(lines[2]["pretrain_macs"]) == 1000
    docs.mkdir()
    text = publish(docs, summary).read_text()
    pages = results_pages(summaries_in(docs))
    assert text == pages["results/tiny.md"] and [*pages] == ["results.md", "results/tiny.md"]
    said = "Does it work? | <b>Yes</b> \\| no | 8 of 8 | 12K | 24 s | yes |"
    assert f"| [tiny](results/tiny.md) | {said}" in (docs / "results.md").read_text()
    assert "# tiny" in text and "## MACs at equal mAP" in text
    assert "![mAP against MACs: netaug and baseline](tiny-equal-netaug.svg)" in text
    assert (docs / "results/tiny-equal-netaug.svg").read_text().count("<svg") == 1


def test_scenes_are_made_once_and_anew_where_half_made(
    detect_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = detect_study().scenes
    folder = scenes_folder(section, tmp_path)
    left = folder.with_name(f"{folder.name}.new")
    left.mkdir(parents=True)
    (left / "half").write_text("made")
    make_scenes(section, folder, None)
    assert not left.exists()
    data = load_detection_set(f"coco:{folder}")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    # As the command makes them: items to train on are training images, and so on.
    counts = {"train": 12, "val": 4, "test": 4}
    items = load_dataset("fashion-mnist-mini")
    same = write_scenes(tmp_path / "same", "coco", counts, items)
    files = sorted(path.relative_to(same) for path in same.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert all((same / name).read_bytes() == (folder / name).read_bytes() for name in files)

    def fails(*given: Any) -> None:
        Path(given[0]).mkdir()
        raise OSError("no space left")

    monkeypatch.setattr("nasaug.detecting.scenes.write_scenes", fails)
    make_scenes(section, folder, None)  # they are there: nothing is made
    other = scenes_folder(section.model_copy(update={"seed": 1}), tmp_path)
    with pytest.raises(OSError, match="no space left"):
        make_scenes(section, other, None)
    assert {path.name for path in folder.parent.iterdir() if path.is_dir()} == {folder.name}


# One pre-training and two detectors: both methods' runs are the same.
FEW = {
    "methods": {"baseline": {}, "alike": {}},
    "tune": {"grid": [0.1], "extend": False},
    "seeds": 1,
}


def test_from_nothing_to_a_published_page_stopped_on_the_way(
    nasaug: Nasaug, detect_file: Callable[..., str], stopped_after_a_cell: Callable[..., Path]
) -> None:
    name = detect_file(**FEW)
    whole = stopped_after_a_cell("detect", "compare", name, "--workers=2")
    before = whole.stat().st_mtime_ns
    asked = nasaug("detect", "compare", name, "--status", "--json")
    assert asked.json["counts"]["done"] >= 1 and asked.json["counts"]["failed"] == 0
    done = nasaug("detect", "compare", name, "--workers=2", "--json")
    assert done.code == 0, done.said
    assert whole.stat().st_mtime_ns == before, "what was finished is not run again"
    found = done.json
    assert found["final"] and [row["n"] for row in found["rows"]] == [1, 1, 1, 1]
    assert {one["difference"] for one in found["comparisons"]} == {0.0}
    assert [start["by"] for start in found["starts"]] == ["baseline", "baseline"]
    assert found["once"]["macs"] == sum(
        row["train_macs"] for row in (found["starts"][0], *found["rows"][:2])
    )
    sizes = {row["size"]: row["macs"] for row in found["rows"]}
    assert sizes[64] < sizes[96]
    folder = Path(found["run_dir"])
    assert folder == Path("runs/detect-tiny")
    outputs = {"study.yaml", "summary.json", "table.csv", "table.md", "report.html"}
    assert {path.name for path in folder.iterdir()} >= outputs
    again = nasaug("detect", "compare", name)
    assert again.code == 0 and "3 done of 3 cells" in again.said
    assert again.out.startswith("Does it work?") and "alike" in again.out
    published = nasaug("detect", "compare", name, "--publish=page")
    assert published.code == 0 and "tiny is on page/results/tiny.md" in published.said
    assert "| [tiny](results/tiny.md) | Does it work? |" in Path("page/results.md").read_text()
    # Of another version of the code that trains detectors; a classifier's is none.
    [own] = Path("runs/cells").iterdir()
    assert own.name == found["code"] and own.name.endswith("-detect")
    own.rename("runs/cells/0.0-older-detect")
    Path("runs/cells/0.0-older").mkdir()
    older = nasaug("detect", "compare", name, "--report", "--json")
    assert older.json["code"] == "0.0-older-detect"
    assert [row["map"] for row in older.json["rows"]] == [row["map"] for row in found["rows"]]
    asked = nasaug("detect", "compare", name, "--status", "--code=0.0-older-detect")
    assert asked.code == 0 and "3 done of 3 cells" in asked.said
    wrong = nasaug("detect", "compare", name, "--status", "--code=0.0-older")
    assert wrong.code == 2 and "those it holds: 0.0-older-detect" in wrong.said
