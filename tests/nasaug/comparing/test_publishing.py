"""The results page is made of summaries alone, and the one in docs/ is what they say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.publishing import publish, results_pages, summaries_in

Nasaug = Callable[..., Any]
DOCS = Path(__file__).parents[3] / "docs"


def test_a_published_study_is_on_the_page(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    file = study()
    assert nasaug("compare", file).code == 0
    done = nasaug("compare", file, "--publish=page")
    assert done.code == 0 and "page/results/tiny.md" in done.said
    all_of_them = Path("page/results.md").read_text()
    assert "| [tiny](results/tiny.md) | Does it help? |" in all_of_them
    page = Path("page/results/tiny.md").read_text()
    assert "+1.00" in page and "(../results.md)" in page
    assert "![micro_10k: test accuracy against training MACs](tiny-micro_10k.svg)" in page
    assert Path("page/results/tiny-micro_10k.svg").read_text().count("<svg") == 1
    summary = json.loads(Path("runs/compare-tiny/summary.json").read_text())
    assert summaries_in(Path("page")) == [summary]


def test_json_says_where_the_page_is(nasaug: Nasaug, study: Any, quickly: Any) -> None:
    file = study()
    nasaug("compare", file)
    done = nasaug("compare", file, "--publish=page", "--json")
    assert done.json == {"study": "tiny", "page": "page/results/tiny.md"}


def test_publishing_runs_nothing(nasaug: Nasaug, study: Any) -> None:
    done = nasaug("compare", study(), "--publish=page")
    assert done.code == 2 and "holds no cells of this study yet" in done.said
    assert not Path("page").exists()


@pytest.mark.parametrize("ask", ["--publish=page", "--report"])
def test_a_study_may_be_run_after_its_report(
    ask: str, nasaug: Nasaug, study: Any, quickly: Any
) -> None:
    """There is something to report before, where it shares cells with another study."""
    shutil.copy(study(seeds=1), "first.yaml")
    assert nasaug("compare", "first.yaml").code == 0
    assert nasaug("compare", study(), ask).code == 0
    assert not Path("runs/compare-tiny/study.yaml").exists()
    done = nasaug("compare", study(), "--json")
    assert done.code == 0, done.err
    assert done.json["final"]


@pytest.mark.parametrize("other", ["--status", "--report"])
def test_one_question_at_a_time(nasaug: Nasaug, study: Any, other: str) -> None:
    done = nasaug("compare", study(), "--publish=page", other)
    assert done.code == 2 and "ask one" in done.said


def test_studies_stand_beside_each_other_and_are_replaced(
    nasaug: Nasaug, study: Any, quickly: Any, tmp_path: Path
) -> None:
    file = study()
    nasaug("compare", file)
    summary = json.loads(Path("runs/compare-tiny/summary.json").read_text())
    other = publish(tmp_path, {**summary, "study": "other", "answer": "No."})
    assert other == tmp_path / "results/other.md" and other.read_text().startswith("# other\n")
    page = tmp_path / "results.md"
    first = page.read_text()
    tiny = publish(tmp_path, summary)
    both = page.read_text()
    assert both.index("| [other]") < both.index("| [tiny]")
    publish(tmp_path, {**summary, "answer": "Yes."})
    assert page.read_text().count("| [tiny]") == 1 and "**Answer:** Yes." in tiny.read_text()
    (tmp_path / "results/tiny.json").unlink()
    publish(tmp_path, {**summary, "study": "other", "answer": "No."})
    assert page.read_text() == first


def test_figures_of_targets_that_a_study_no_longer_has_go(
    nasaug: Nasaug, study: Any, quickly: Any, tmp_path: Path
) -> None:
    nasaug("compare", study())
    summary = json.loads(Path("runs/compare-tiny/summary.json").read_text())
    publish(tmp_path, summary)
    own = tmp_path / "results"
    kept = own / "tiny-mine.svg"
    kept.write_text("a figure that no page shows")
    publish(tmp_path, _on(summary, "micro_3k"))
    assert {path.name for path in own.glob("*.svg")} == {
        "tiny-micro_3k.svg", kept.name, "together.svg",
    }  # fmt: skip


def test_figures_that_another_page_shows_stay(tmp_path: Path) -> None:
    """Two studies may come to one name; a person's pictures are nobody's."""
    summary = _published()
    own = tmp_path / "results"
    own.mkdir()
    (own / "tiny.md").write_text("![mine](mine.svg)")
    (own / "mine.svg").write_text("a person's")
    publish(tmp_path, _on(summary, "wide-micro"))
    publish(tmp_path, {**_on(summary, "micro"), "study": "tiny-wide"})
    publish(tmp_path, _on(summary, "micro_3k"))
    assert {path.name for path in own.glob("*.svg")} == {
        "tiny-micro_3k.svg", "tiny-wide-micro.svg", "mine.svg", "together.svg",
    }  # fmt: skip


def test_a_publishing_that_was_stopped_still_knows_the_former_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = _published()
    publish(tmp_path, summary)
    with monkeypatch.context() as stopping:
        stopping.setattr(Path, "unlink", _stopped)
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, _on(summary, "micro_3k"))
    publish(tmp_path, _on(summary, "micro_3k"))
    there = {path.name for path in (tmp_path / "results").glob("*.svg")}
    assert there == {"tiny-micro_3k.svg", "together.svg"}


def _published() -> dict[str, Any]:
    """Of a study of one target, as if its name were tiny."""
    [summary] = [one for one in summaries_in(DOCS) if one["study"] == "sorting"]
    return {**summary, "study": "tiny"}


def _on(summary: dict[str, Any], target: str) -> dict[str, Any]:
    """The summary of a study of one target, as of another."""
    moved = {
        part: [{**one, "target": target} for one in summary[part]]
        for part in ("arms", "comparisons")
    }
    return {**summary, "targets": [target], **moved}


def _stopped(path: Path, missing_ok: bool = False) -> None:
    raise KeyboardInterrupt


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json"):
        summaries_in(tmp_path)


def test_the_pages_in_docs_are_what_their_summaries_say() -> None:
    pages = results_pages(summaries_in(DOCS))
    assert {name: (DOCS / name).read_text() for name in pages} == pages
    own = {f"results/{path.name}" for path in (DOCS / "results").glob("*.md")}
    assert own == pages.keys() - {"results.md"}
    shown = set(re.findall(r"\]\((?:results/)?([^)/]+\.svg)\)", "".join(pages.values())))
    assert {path.name for path in (DOCS / "results").glob("*.svg")} == shown


def test_a_contrast_and_a_study_of_one_name(tmp_path: Path) -> None:
    """The one's file is not written over with the other's."""
    there = tmp_path / "results" / "micro.json"
    there.parent.mkdir()
    there.write_text('{"kind": "contrast", "study": "micro"}')
    with pytest.raises(ValueError, match="is of a contrast of the same name, micro; rename"):
        publish(tmp_path, {"study": "micro"})
    assert json.loads(there.read_text())["kind"] == "contrast"


def test_a_summary_of_another_release_is_named(tmp_path: Path) -> None:
    [summary, *_] = summaries_in(DOCS)
    older = {key: summary[key] for key in summary if key != "tuning"}
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / f"{older['study']}.json").write_text(json.dumps(older))
    with pytest.raises(ValueError) as error:
        publish(tmp_path, {**summary, "study": "newer"})
    assert f"{summary['study']}.json is of another release of nasaug" in str(error.value)
    assert "it does not say 'tuning'; publish that study again" in str(error.value)
    assert [path.name for path in folder.iterdir()] == [f"{older['study']}.json"]
    # What is said of code is not needed: releases before did not say it.
    unsaid = {key: summary[key] for key in summary if key not in ("other_code", "mixed_code")}
    assert results_pages([unsaid]) == results_pages(
        [{**summary, "other_code": {}, "mixed_code": []}]
    )
