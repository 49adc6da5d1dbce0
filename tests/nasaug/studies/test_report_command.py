"""`nasaug report`: what its page says, for which searches, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from scipy.stats import kendalltau

from nasaug.config import SearchConfig, load_config
from nasaug.pipelines.importances import variance_explained
from nasaug.pipelines.page import code, facts, page, paragraph, table
from nasaug.pipelines.searched import read_search
from nasaug.pipelines.stored import hide_password
from nasaug.search import search
from nasaug.supernet import Architecture, SearchSpace, load_target

Nasaug = Callable[..., Any]
MakeRun = Callable[..., Path]
SECTIONS = ["made", "winner", "best", "costs", "history", "importances", "effort", "reading"]


class Reader(HTMLParser):
    """A page's text, its tags, and everything that it might load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.identifiers: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.identifiers.append(str(value))
            if name in ("href", "src", "xlink:href", "srcset", "data", "action"):
                self.links.append(str(value))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _read(path: Path) -> Reader:
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    assert set(reader.tags).isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    assert [link for link in reader.links if not link.startswith("#")] == []
    assert {link[1:] for link in reader.links} <= set(reader.identifiers)
    assert len(set(reader.identifiers)) == len(reader.identifiers)
    assert "default-src 'none'" in text
    style = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", text)
    return reader


def test_a_finished_search(nasaug: Nasaug, run: Path, tmp_path: Path) -> None:
    done = nasaug("report", "run")
    assert done.code == 0
    assert done.out == ""
    assert "report: run/report.html" in done.said
    reader = _read(run / "report.html")
    assert [name for name in reader.identifiers if name in SECTIONS] == SECTIONS
    best = json.loads((run / "best.json").read_text())
    for text in (
        "Search around micro_10k, at most 3,000,000 MACs",
        "finished: 16 of 16 trials judged, in run",
        "micro_10k: 336,144 MACs, 9,994 parameters",
        "nasaug search --config run/config.yaml",
        "evolution, 16 trials, seed 0",
        "over 3M",
        f"{best['macs']:,}",
        f"{100 * best['accuracy']:.2f}",
        "1 min 00 s (3 epochs)",
        "sampler: evolution",
        "head.width",
    ):
        assert text in reader.text, text
    assert list(tmp_path.glob("**/.report*")) == []
    assert (run / "report.html").stat().st_size < 400_000


def test_the_table_of_the_winner_is_the_winner(nasaug: Nasaug, run: Path) -> None:
    assert nasaug("report", "run").code == 0
    winner = Architecture.from_dict(json.loads((run / "best.json").read_text())["architecture"])
    text = (run / "report.html").read_text()
    (body,) = re.findall(r"The same as a table</summary>.*?<tbody>(.*?)</tbody>", text)
    rows = [
        [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in re.findall(r"<tr.*?</tr>", body)
    ]
    assert [row[0] for row in rows] == list(winner.row_names)
    outs = [*winner.widths_in[1:], winner.num_classes]
    assert [row[4].rpartition("→ ")[2] for row in rows] == [str(width) for width in outs]
    target = load_target("micro_10k", 10)
    extra = [row[0] for row in rows if row[1].startswith("extra")]
    assert len(extra) == len(winner.rows) - len(target.rows)
    assert body.count('class="extra"') == len(extra)


def test_the_ten_best_are_the_ten_best(nasaug: Nasaug, run: Path) -> None:
    assert nasaug("report", "run").code == 0
    study = optuna.load_study(study_name=None, storage=_journal(run))
    values = sorted({(-t.values[0], t.user_attrs["macs"]) for t in study.trials})[:10]
    text = (run / "report.html").read_text()
    (body,) = re.findall(r'id="best".*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", body)]
    assert [row[2] for row in rows] == [f"{-100 * value:.2f}" for value, _ in values]
    assert [row[3] for row in rows] == [f"{macs:,}" for _, macs in values]


def _journal(run: Path) -> optuna.storages.JournalStorage:
    backend = optuna.storages.journal.JournalFileBackend(str(run / "study.journal"))
    return optuna.storages.JournalStorage(backend)


def test_an_unfinished_search_with_several_objectives_and_limits(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    keys = {"objectives": "accuracy,macs", "max_params": "150K", "max_memory": "60KB"}
    run = make_run("several", finished=False, folder=tmp_path, **keys)
    assert nasaug("report", "several").code == 0
    reader = _read(run / "report.html")
    for text in (
        "not finished when this was written: 16 of 16 trials",
        "at most 150,000 parameters",
        "at most 60.0 peak int8 memory (KB)",
        "The Pareto front",
        "None of these betters another in every objective.",
        "over 150,000",
        "over 60.0",
        "objectives accuracy, macs",
    ):
        assert text in reader.text, text
    searched, _ = read_search(run)
    study = optuna.load_study(study_name=None, storage=_journal(run))
    assert {t.values["macs"] for t in searched.front} == {t.values[1] for t in study.best_trials}


def test_the_front_has_no_architecture_twice(make_run: MakeRun) -> None:
    run = make_run("front", trials=24, objectives="accuracy,macs", sampler="nsga2")
    searched, _ = read_search(run)
    paths = [trial.path for trial in searched.front]
    assert len(paths) == len(set(paths)) > 1
    first = [trial.values["accuracy"] for trial in searched.front]
    assert first == sorted(first, reverse=True)
    macs = [trial.values["macs"] for trial in searched.front]
    assert macs == sorted(macs, reverse=True)


def test_two_judgements_are_plotted_against_each_other(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("both", folder=tmp_path, objectives="both")
    assert nasaug("report", "both").code == 0
    reader = _read(run / "report.html")
    assert "not bettered in both" in reader.text
    assert reader.text.count("help to the target") >= 3


def test_dropped_trials_and_latency_are_shown(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("raced", trials=24, race=True, priced=True, folder=tmp_path)
    assert nasaug("report", "raced").code == 0
    reader = _read(run / "report.html")
    searched, _ = read_search(run)
    dropped = [trial for trial in searched.judged if trial.pruned]
    assert dropped
    assert all(trial.values["accuracy"] > 0 for trial in dropped)
    assert f"24 of 24 trials judged, {len(dropped)} of them dropped early" in reader.text
    assert "dropped early, interim judgement" in reader.text
    assert "predicted latency (ms)" in reader.text
    assert searched.winner is not None
    assert f"{searched.winner.costs['latency'] / 1e6:.3f}" in reader.text
    assert not {trial.path for trial in dropped} & {trial.path for trial in searched.ranked}


def test_few_trials_say_nothing_of_importances(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("few", trials=2, folder=tmp_path)
    assert nasaug("report", "few").code == 0
    assert "2 architectures are too few to say" in _read(run / "report.html").text


def test_a_search_whose_first_trial_runs(nasaug: Nasaug, run: Path) -> None:
    (run / "best.json").unlink()
    lines = (run / "study.journal").read_bytes().splitlines(keepends=True)
    begun = next(i for i, line in enumerate(lines) if b'"param_name"' in line)
    # Also half-written, as a reader may find a journal that a search is writing.
    (run / "study.journal").write_bytes(b"".join(lines[:begun]) + lines[begun][:20])
    assert nasaug("report", "run").code == 0
    reader = _read(run / "report.html")
    assert "not finished when this was written: 0 of 16 trials judged" in reader.text
    assert "winner" not in reader.identifiers
    assert "supernet's training" in reader.text


def test_nothing_of_the_run_is_touched(
    nasaug: Nasaug, run: Path, files_below: Callable[[], dict[str, bytes]]
) -> None:
    with (run / "study.journal").open("ab") as file:
        file.write(b'{"op_code":8,"half')
    before = files_below()
    assert nasaug("report", "run", "--out=elsewhere.html").code == 0
    after = files_below()
    assert after.pop("elsewhere.html").startswith(b"<!DOCTYPE html>")
    assert after == before


def test_json_says_where_and_what(nasaug: Nasaug, run: Path) -> None:
    done = nasaug("report", "run/best.json", "--json", "--out=page.html")
    best = json.loads((run / "best.json").read_text())
    said = done.json
    assert (said["report"], said["run_dir"], said["finished"]) == ("page.html", "run", True)
    assert (said["study"], said["trials"]) == ("micro_10k-finished", 16)
    assert said["best"]["accuracy"] == best["accuracy"]
    assert said["best"]["macs"] == best["macs"]


def test_without_a_run_it_is_the_newest_search(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    make_run("older", trials=1, folder=tmp_path / "runs")
    # In a database and unfinished: nothing but its configuration says that it is a search.
    url = f"sqlite:///{tmp_path}/x.db"
    newer = make_run("newer", trials=1, folder=tmp_path / "runs", finished=False, storage=url)
    training = tmp_path / "runs" / "training"
    training.mkdir()
    (training / "config.yaml").write_text("target: micro_10k\n")
    assert nasaug("report").code == 0
    assert (newer / "report.html").is_file()
    assert len(list(tmp_path.rglob("report.html"))) == 1


def test_what_people_named_is_text_and_not_markup(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    evil = "imagefolder:<script>alert(1)</script><img src=x onerror=y>"
    run = make_run("a&b <i>", trials=8, folder=tmp_path, **{"data.name": evil})
    assert nasaug("report", "a&b <i>").code == 0
    reader = _read(run / "report.html")
    assert evil in reader.text
    assert "nasaug search --config 'a&b <i>/config.yaml'" in reader.text
    assert "img" not in reader.tags
    assert "i" not in reader.tags


@given(st.text())
def test_every_text_of_a_page_is_escaped(text: str) -> None:
    parts = paragraph(text) + code(text) + facts([(text, text)]) + table([text], [[text]])
    reader = Reader(page(text, text, [("here", text, parts)]))
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "p", "nav", "a", "section"}
    allowed |= {"h2", "pre", "dl", "dt", "dd", "table", "thead", "tr", "th", "tbody", "td"}
    assert set(reader.tags) <= allowed
    assert reader.links == ["#here"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/nas", "postgresql://me:***@db:5432/nas"),
        ("mysql+pymysql://me:sec:ret@db/nas", "mysql+pymysql://me:***@db/nas"),
        ("postgresql://me:secret@db:port/nas", "postgresql://me:***@db:port/nas"),
        ("sqlite:///runs/study.db", "sqlite:///runs/study.db"),
        ("postgresql:///nas?password=secret&x=1", "postgresql:///nas?password=hidden&x=1"),
        ("me:secret", "me:secret"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@given(st.text(alphabet="abc0"), st.text(min_size=3), st.text())
def test_any_url_can_be_shown(user: str, password: str, rest: str) -> None:
    shown = hide_password(f"postgresql://{user}:{'x' * len(password)}q@{rest}")
    assert "x" * len(password) + "q" not in shown


def test_a_password_of_the_storage_is_not_on_the_page(nasaug: Nasaug, run: Path) -> None:
    config = run / "config.yaml"
    url = "postgresql://me:secret@db/nas"
    config.write_text(config.read_text().replace("storage: null", f"storage: {url}"))
    study = optuna.create_study(storage="sqlite:///copy.db", study_name="x", direction="maximize")
    theirs = optuna.load_study(study_name=None, storage=_journal(run))
    study.add_trials(theirs.trials)
    for name, value in theirs.user_attrs.items():
        study.set_user_attr(name, value)
    assert nasaug("report", "run", "--storage=sqlite:///copy.db").code == 0
    text = (run / "report.html").read_text()
    assert "secret" not in text
    assert "postgresql://me:***@db/nas" in text


def test_one_of_several_studies_in_a_database(
    nasaug: Nasaug, make_run: MakeRun, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    run = make_run("one", folder=tmp_path, storage=url, trials=2)
    make_run("other", folder=tmp_path, storage=url, trials=1, max_params="100K")
    assert nasaug("report", "one", "--json").json["study"] == "micro_10k-one"
    assert nasaug("report", "other", "--json").json["study"] == "micro_10k-other"
    make_run("alike", folder=tmp_path, storage=url, trials=1)
    done = nasaug("report", "one")
    assert done.code == 2
    assert "several studies like it; name one by --study" in done.said
    assert "micro_10k-alike, micro_10k-one, micro_10k-other" in done.said
    assert nasaug("report", "one", "--study=micro_10k-one", "--json").json["trials"] == 2
    done = nasaug("report", "one", "--study=mine")
    assert (done.code, "no study 'mine'; it holds micro_10k-alike" in done.said) == (2, True)
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda run: (run / "config.yaml").unlink(), "run is no search's run folder"),
        (
            lambda run: (run / "config.yaml").write_text("target: micro_10k\nmethod: netaug\n"),
            "run is no search's run folder: its config.yaml is not of a search",
        ),
        (lambda run: (run / "config.yaml").write_text("a: [b"), "config.yaml is not of a search"),
        (lambda run: (run / "study.journal").unlink(), "has not come to its study yet"),
        (lambda run: (run / "study.journal").write_text("pork"), "is no Optuna journal"),
        (lambda run: (run / "study.journal").write_text(""), "no study of this search"),
        (lambda run: (run / "best.json").write_text("{"), "is not a search result"),
        (
            lambda run: (run / "config.yaml").write_text("sampler: random\nbudget: 3M\n"),
            "no study of this search",
        ),
        (
            lambda run: _replace(run / "study.journal", '"limits"', '"limitz"'),
            "no study of this search; name one by --study: micro_10k-finished",
        ),
        (
            lambda run: _replace(
                run / "config.yaml", "extra_depth:\n  - 0\n  - 1", "extra_depth: [0]"
            ),
            "the winner in best.json is not of the space that run/config.yaml describes",
        ),
        (
            lambda run: [
                (run / "best.json").unlink(),
                _replace(run / "config.yaml", "extra_depth:\n  - 0\n  - 1", "extra_depth: [0]"),
            ],
            "trial 0 of the study is not of the space that run/config.yaml describes",
        ),
        (
            lambda run: _replace(run / "study.journal", '{"op_code":5', '{"op_code":99', 3),
            "is damaged",
        ),
        (
            lambda run: _replace(run / "study.journal", '{"op_code":5', '{"op_code"!5', 3),
            "is damaged",
        ),
    ],
)
def test_bad_runs_are_refused(
    break_it: Callable[[Path], object], said: str, nasaug: Nasaug, run: Path
) -> None:
    break_it(run)
    done = nasaug("report", "run")
    assert (done.code, done.out) == (2, "")
    assert said in done.said
    assert not (run / "report.html").exists()


def _replace(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_a_search_that_still_trains_its_supernet(nasaug: Nasaug, run: Path) -> None:
    for name in ("best.json", "study.journal", "supernet/weights.safetensors"):
        (run / name).unlink()
    done = nasaug("report", "run")
    assert done.code == 2
    assert "run has no study yet: its supernet is not trained" in done.said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is no search's run folder: it has no config.yaml"),
        ([], "no search was found below runs/; name its folder"),
        (["run", "--storage=sqlite:///nowhere.db"], "nowhere.db does not exist"),
        (["run", "--storage=nonsense"], "cannot be used"),
        (["run", "--storage=oracel://x/y"], "cannot be used"),
        (["run", "--out=nowhere/page.html"], "nowhere"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], said: str, nasaug: Nasaug, run: Path, tmp_path: Path
) -> None:
    done = nasaug("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.said
    assert list(tmp_path.rglob("*.db")) == []


def test_shares_find_what_matters_where_ped_anova_does_not() -> None:
    """An additive surface over the space, searched by evolution: which importances are true?"""
    config = load_config(SearchConfig, None, (), {"target": "micro_10k"})
    space: SearchSpace = config.space.build(load_target("micro_10k", 10))
    names = list(space.decisions)
    ours, theirs = [], []
    for seed in range(3):
        # The i-th decision moves the judgement by 0.8 ** i from one end of its values to the other.
        order = {name: 0.8 ** ((7 * i + seed) % len(names)) for i, name in enumerate(names)}
        truth = [order[name] for name in names]

        def judge(arch: Architecture, order: dict[str, float] = order) -> float:
            values = space.parameters(space.path(arch))
            places = {n: space.decisions[n].index(v) for n, v in values.items()}
            return sum(order[n] * p / (len(space.decisions[n]) - 1) for n, p in places.items())

        study = search(
            space, judge, 4_000_000, optuna.storages.InMemoryStorage(), trials=64, seed=seed
        )
        trials = study.get_trials(deepcopy=False)
        shares = variance_explained([t.params for t in trials], [t.values[0] for t in trials])
        other = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        ours.append(kendalltau([shares[name] for name in names], truth).statistic)
        theirs.append(kendalltau([other[name] for name in names], truth).statistic)
    assert sum(ours) / 3 > 0.2
    assert sum(ours) > sum(theirs)
