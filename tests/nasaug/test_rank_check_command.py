"""`nasaug rank-check`: whom it trains, what it reports, whose supernet it checks, and resuming."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scipy.stats import kendalltau, spearmanr

from nasaug.config import load_config
from nasaug.pipelines import rank_check
from nasaug.pipelines.rank_config import RankConfig, as_searched
from nasaug.pipelines.supernet import rank_warning
from nasaug.search import InheritedAccuracy
from nasaug.setting import prepare
from nasaug.supernet import Architecture, Limits, Network, SearchSpace, load_target, macs, params
from nasaug.training import (
    load_weights,
    read_json_object,
    save_weights,
)

Nasaug = Callable[..., Any]
# Four steps a candidate.
ALONE = ("--set=alone.batch_size=64", "--set=alone.warmup_epochs=0", "--set=resamples=200")
CHECK = ("rank-check", "--target=micro_10k", "--epochs=1", "--n=5", "--bands=2", *ALONE)
JUDGES = ("tau", "spearman", "macs_tau", "gain")


@pytest.fixture(scope="module")
def checked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search and a check of its supernet."""
    torch.set_num_threads(1)  # equal numbers are promised at equal threads
    folder = tmp_path_factory.mktemp("checked")
    shutil.copytree(finished / "searched", folder / "searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        from nasaug.__main__ import run

        assert run([*CHECK, "--supernet=searched", "--out=rank"]) == 0
    return folder


@pytest.fixture
def here(checked: Path, tmp_path: Path) -> Path:
    """A copy of both, in `tmp_path`."""
    for name in ("searched", "rank"):
        shutil.copytree(checked / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def report(checked: Path) -> dict[str, Any]:
    return read_json_object(checked / "rank" / "rank.json")


def _begun(folder: Path, lines: int, rest: str = "") -> None:
    """Make a finished check look killed after so many candidates."""
    for name in ("rank.json", "result.json", "rank.svg"):
        (folder / name).unlink()
    text = (folder / "candidates.jsonl").read_text().splitlines(keepends=True)
    (folder / "candidates.jsonl").write_text("".join(text[:lines]) + rest)
    for index in range(lines, len(text)):
        shutil.rmtree(folder / "alone" / f"{index:03d}")


def test_the_candidates_are_distinct_members_within_the_search_s_budget(
    report: dict[str, Any],
) -> None:
    space = SearchSpace.around(load_target("micro_10k", 10))
    found = report["candidates"]
    assert len(found) == report["n"] == 5
    archs = [Architecture.from_dict(candidate["architecture"]) for candidate in found]
    assert len(set(archs)) == 5
    middle = (space.source.cheapest + 2_000_000) // 2
    for candidate, arch in zip(found, archs, strict=True):
        assert candidate["macs"] == macs(arch) <= 2_000_000
        assert candidate["params"] == params(arch)
        assert space.architecture(tuple(candidate["path"])) == arch
    assert [candidate["macs"] <= middle for candidate in found] == [True] * 3 + [False] * 2
    assert report["limits"] == {"macs": 2_000_000}


def test_the_report_is_that_of_its_candidates(report: dict[str, Any]) -> None:
    inherited, alone, costs = (
        [candidate[key] for candidate in report["candidates"]]
        for key in ("inherited", "alone", "macs")
    )
    tau, macs_tau = kendalltau(inherited, alone).statistic, kendalltau(costs, alone).statistic
    assert report["tau"]["value"] == pytest.approx(tau)
    assert report["spearman"]["value"] == pytest.approx(spearmanr(inherited, alone).statistic)
    assert report["macs_tau"]["value"] == pytest.approx(macs_tau)
    assert report["gain"]["value"] == pytest.approx(tau - macs_tau)
    for judge in JUDGES:
        assert report[judge]["low"] <= report[judge]["high"]
    assert (report["resamples"], report["confidence"], report["seed"]) == (200, 0.95, 0)


def test_the_inherited_accuracy_can_be_had_again(checked: Path, report: dict[str, Any]) -> None:
    search = checked / "searched"
    setting = prepare(load_config(RankConfig, None, [], _supernet_keys(search)))
    supernet = load_weights(search / "supernet" / "weights.safetensors")
    judge = InheritedAccuracy(supernet, setting.calibration(), setting.validation())
    for candidate in report["candidates"]:
        arch = Architecture.from_dict(candidate["architecture"])
        assert judge(arch) == candidate["inherited"]


def test_the_accuracy_alone_is_what_training_it_gives(
    nasaug: Nasaug, quick: tuple[str, ...], here: Path, report: dict[str, Any]
) -> None:
    """`nasaug train` with the candidate as the target, by the same recipe."""
    candidate = report["candidates"][3]
    table = {key: candidate["architecture"][key] for key in ("resolution", "in_channels", "rows")}
    (here / "candidate.yaml").write_text(yaml.safe_dump(table))
    options = [*quick[1:], "--set=train.bn_images=2048", "--method=baseline", "--out=trained"]
    assert nasaug("train", "--target=candidate.yaml", *options).code == 0
    (line,) = (here / "trained" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["top1"] == candidate["alone"]


def _supernet_keys(search: Path) -> dict[str, Any]:
    saved = yaml.safe_load((search / "config.yaml").read_text())
    return {key: saved[key] for key in ("target", "data", "train", "space")}


def test_the_files_of_a_check(checked: Path, report: dict[str, Any]) -> None:
    folder = checked / "rank"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {"config.yaml", "rank.json", "rank.svg", "candidates.jsonl", "result.json"} <= names
    assert not [name for name in names if "checkpoint" in name or "weights" in name]
    lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    assert lines == report["candidates"]
    picture = (folder / "rank.svg").read_text()
    assert picture.startswith("<?xml")
    assert "</svg>" in picture
    # The supernet that was checked carries the report.
    assert read_json_object(checked / "searched" / "supernet" / "rank.json") == report
    for index in range(5):
        (line,) = (folder / "alone" / f"{index:03d}" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == 4


def test_json_is_all_that_stdout_holds(nasaug: Nasaug, here: Path, report: dict[str, Any]) -> None:
    done = nasaug(*CHECK, "--supernet=searched", "--out=rank", "--resume", "--json")
    assert done.code == 0
    assert done.json == {**report, "run_dir": "rank"}
    assert done.json["supernet"] == "searched"
    assert done.json["target"] == "micro_10k"


def test_people_get_a_table_and_what_it_means(
    nasaug: Nasaug, here: Path, report: dict[str, Any]
) -> None:
    done = nasaug(*CHECK, "--supernet=searched", "--out=rank", "--resume")
    assert done.code == 0
    for key, name in (("tau", "Kendall tau of the supernet"), ("macs_tau", "of MACs alone")):
        (line,) = [line for line in done.out.splitlines() if name in line]
        value, low, high = (report[key][part] for part in ("value", "low", "high"))
        assert line.endswith(f"{low:.2f} to {high:.2f}")
        assert f" {value:.2f} " in line
    assert "95 % interval" in done.out
    assert "rank better than chance (n = 5)" in done.said
    assert "than MACs alone" in done.said
    assert "picture: rank/rank.svg" in done.said


@pytest.mark.parametrize(("lines", "rest"), [(0, ""), (3, '{"path": [1, 2'), (5, "")])
def test_a_killed_check_repeats_nothing_and_reports_the_same(
    lines: int,
    rest: str,
    nasaug: Nasaug,
    here: Path,
    report: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rank = here / "rank"
    before = (rank / "candidates.jsonl").read_bytes()
    picture = (rank / "rank.svg").read_bytes()
    _begun(rank, lines, rest)
    trained = []
    fit = rank_check.fit

    def counted(*arguments: Any, **options: Any) -> Network:
        trained.append(arguments)
        return fit(*arguments, **options)

    monkeypatch.setattr(rank_check, "fit", counted)
    done = nasaug(*CHECK, "--supernet=searched", "--out=rank", "--resume")
    assert done.code == 0
    assert len(trained) == 5 - lines
    assert read_json_object(rank / "rank.json") == report
    assert (rank / "candidates.jsonl").read_bytes() == before
    assert (rank / "rank.svg").read_bytes() == picture


def test_a_check_killed_within_a_candidate_goes_on_from_its_checkpoint(
    shell: Any, here: Path, nasaug: Nasaug
) -> None:
    """kill -9 when the second candidate has its first checkpoint, then the same command again."""
    command = [*CHECK[:2], "--epochs=4", *CHECK[3:], "--n=4", "--supernet=searched", "--seed=3"]
    process = shell.nasaug(*command, "--out=killed")
    began = time.monotonic()
    while not (list((here / "killed" / "alone").glob("001/checkpoint/*.json"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = here / "killed"
    done = len((killed / "candidates.jsonl").read_text().splitlines())
    assert 1 <= done < 4
    first = (killed / "alone" / "000" / "metrics.jsonl").read_bytes()
    assert nasaug(*command, "--out=killed", "--resume").code == 0
    assert (killed / "alone" / "000" / "metrics.jsonl").read_bytes() == first
    assert nasaug(*command, "--out=whole").code == 0
    names = ("candidates.jsonl", "rank.json")
    for name in names:
        assert (killed / name).read_bytes() == (here / "whole" / name).read_bytes()


def test_the_newest_search_of_the_target_is_checked(
    nasaug: Nasaug, quick: tuple[str, ...], here: Path
) -> None:
    """Its data, space and recipe come with it; keys that contradict it lead to another supernet."""
    (here / "runs").mkdir()
    shutil.move(here / "searched", here / "runs" / "searched")
    draw = [*CHECK, "--set=n=4"]
    done = nasaug(*draw, "--out=found", "--json")
    assert done.code == 0
    assert done.json["supernet"] == "runs/searched"
    assert done.json["data"] == "fashion-mnist"
    assert "checking the supernet of runs/searched" in done.said
    other = nasaug(*draw, *quick, "--set=space.extra_depth=[0]", "--out=other", "--json")
    assert other.code == 0
    assert other.json["supernet"] == "other"
    assert "training a supernet" in other.said
    assert (here / "other" / "supernet" / "weights.safetensors").is_file()
    assert (here / "other" / "supernet" / "rank.json").is_file()
    # What "auto" came to is kept.
    _begun(here / "found", 2)
    (here / "runs" / "searched").touch()
    again = nasaug(*draw, "--out=found", "--resume", "--json")
    assert again.json == done.json


def test_without_a_search_the_supernet_is_trained_and_then_searched(
    nasaug: Nasaug, quick: tuple[str, ...], tmp_path: Path
) -> None:
    options = ("--set=train.epochs=1", "--set=train.warmup_epochs=0", "--set=train.batch_size=64")
    data = [option for option in quick if option.startswith("--data")]
    bn = "--set=train.bn_images=128"
    made = nasaug(*CHECK, *data, *options, bn, "--budget=2M", "--out=made", "--json")
    assert made.code == 0
    assert made.json["supernet"] == "made"
    assert made.json["limits"] == {"macs": 2_000_000}
    assert made.json["method"] == "single-path"


def test_the_supernet_may_be_trained_by_any_method(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug(
        *CHECK,
        *quick,
        "--supernet=new",
        "--set=supernet.method=sandwich",
        "--set=supernet.random_paths=1",
        "--set=n=4",
        "--out=sandwich",
        "--json",
    )
    assert done.code == 0
    assert done.json["method"] == "sandwich"
    line = Path("sandwich/supernet/metrics.jsonl").read_text().splitlines()[-1]
    assert {"loss_largest", "loss_smallest", "loss_random"} <= json.loads(line).keys()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--n=3"], "at least 4 candidates, but got 3; raise --n"),
        (["--n=5", "--bands=6"], "5 candidates cannot fill 6 bands; raise --n or lower --bands"),
        (["--bands=0"], "bands must be greater than or equal to 1"),
        (["--n=4", "--bands=4", "--budget=336144"], "band 2 of 4 (336,145 to 336,144 MACs) has no"),
        (["--budget=1000"], "1,000"),
        (["--budget=lots"], "a budget is a number of MACs"),
        (["--supernet=nowhere"], "nowhere holds no finished supernet"),
        (["--set=space.width=[1,2]"], "the supernet of searched has space.width: None"),
        (["--set=train.lr=0.2"], "the supernet of searched has train.lr: 0.1"),
        (["--data=fashion-mnist-mini"], "the supernet of searched has data.name: fashion-mnist"),
        (["--target=micro_40k"], "the supernet of searched has target: micro_10k"),
        (["--set=alone.resolution=32"], "alone.resolution must be the supernet's 28"),
        (["--set=alone.epoch=3"], "did you mean 'alone.epochs'"),
        (["--set=supernet.method=fare"], "supernet.method: unknown method 'fare'"),
    ],
)
def test_bad_input(options: list[str], said: str, nasaug: Nasaug, here: Path) -> None:
    done = nasaug(*CHECK, "--supernet=searched", "--out=bad", *options)
    assert done.code == 2
    assert said in done.said
    assert done.out == ""
    assert not (here / "bad" / "candidates.jsonl").exists()


def test_a_damaged_configuration_of_the_search_is_named(nasaug: Nasaug, here: Path) -> None:
    saved = here / "searched" / "config.yaml"
    text = saved.read_text()
    said = {"data: 3\n": "data", "space: {divisor: 0}\n": "space.divisor", "[]\n": "keys"}
    for wrong, key in said.items():
        saved.write_text(wrong)
        done = nasaug(*CHECK, "--supernet=searched", "--out=bad")
        assert done.code == 2
        assert "searched/config.yaml" in done.said
        assert key in done.said
    # "auto" says so, and takes another.
    (here / "runs").mkdir()
    shutil.copytree(here / "searched", here / "runs" / "older")
    (here / "runs" / "older" / "config.yaml").write_text(text)
    done = nasaug(*CHECK, "--set=n=4", "--out=good", "--json")
    assert done.json["supernet"] == "runs/older"
    assert "passing over a supernet: searched/config.yaml" in done.said
    saved.unlink()
    done = nasaug(*CHECK, "--supernet=searched", "--out=bad")
    assert "searched/config.yaml is missing" in done.said


def test_the_limits_of_the_search_hold_unless_others_are_given(here: Path) -> None:
    saved = here / "searched" / "config.yaml"
    own = yaml.safe_load(saved.read_text())
    limited = {"budget_from": 1_000_000, "max_memory": 30_000, "max_flash": 90_000}
    saved.write_text(yaml.safe_dump({**own, **limited}))

    def limits(**keys: Any) -> Limits:
        asked = load_config(RankConfig, None, [], {"target": "micro_10k", **keys})
        return as_searched(asked, here / "searched").limits

    assert limits() == Limits(macs=2_000_000, least_macs=1_000_000, memory=30_000, flash=90_000)
    assert limits(budget="3M") == Limits(macs=3_000_000, memory=30_000, flash=90_000)
    assert limits(budget="1M..3M").least_macs == 1_000_000
    assert limits(max_memory="20KB", max_params="50K", max_flash="1KB") == Limits(
        macs=2_000_000, least_macs=1_000_000, memory=20_480, params=50_000, flash=1024
    )


def test_data_may_have_moved(here: Path) -> None:
    asked = load_config(RankConfig, None, [], {"target": "micro_10k", "data.dir": "elsewhere"})
    made = as_searched(asked, here / "searched")
    assert (made.data.name, made.data.dir) == ("fashion-mnist", "elsewhere")


def test_a_supernet_of_another_space_is_refused(nasaug: Nasaug, here: Path) -> None:
    weights = here / "searched" / "supernet" / "weights.safetensors"
    other = SearchSpace.around(load_target("micro_10k", 10), (1,), (1, 2))
    save_weights(weights, Network(other.largest.canonical()))
    done = nasaug(*CHECK, "--supernet=searched", "--out=bad")
    assert done.code == 2
    assert "is a supernet of another space" in done.said


def test_damaged_or_foreign_lines_are_refused(nasaug: Nasaug, here: Path) -> None:
    _begun(here / "rank", 2)
    lines = here / "rank" / "candidates.jsonl"
    kept = lines.read_text()
    command = [*CHECK, "--supernet=searched", "--out=rank", "--resume"]
    lines.write_text("".join(reversed(kept.splitlines(keepends=True))))
    assert "holds other candidates than this check draws" in nasaug(*command).said
    lines.write_text("nonsense\n" + kept)
    done = nasaug(*command)
    assert done.code == 2
    assert "candidates.jsonl is damaged" in done.said


def test_a_used_folder_needs_resume_and_the_same_question(nasaug: Nasaug, here: Path) -> None:
    used = nasaug(*CHECK, "--supernet=searched", "--out=rank")
    assert used.code == 2
    assert "add --resume" in used.said
    other = nasaug(*CHECK, "--supernet=searched", "--out=rank", "--resume", "--n=6")
    assert other.code == 2
    assert "n: 5 there" in other.said


@pytest.mark.parametrize(
    ("low", "high", "warns"),
    [(-0.1, 0.5, True), (0.0, 0.6, True), (0.1, 0.7, False), (-1, -0.2, True)],
)
def test_the_warning_for_a_search(low: float, high: float, warns: bool, tmp_path: Path) -> None:
    assert rank_warning(tmp_path) is None
    (tmp_path / "supernet").mkdir()
    path = tmp_path / "supernet" / "rank.json"
    path.write_text(json.dumps({"n": 12, "tau": {"value": 0.3, "low": low, "high": high}}))
    warning = rank_warning(tmp_path)
    assert (warning is not None) == warns
    if warning is not None:
        assert "Kendall tau 0.30" in warning
        assert f"{low:.2f} to {high:.2f}" in warning
        assert "(n = 12)" in warning
        assert "supernet.method" in warning


def test_a_search_that_reuses_a_supernet_warns_as_the_check_found(
    nasaug: Nasaug, quick: tuple[str, ...], here: Path, report: dict[str, Any]
) -> None:
    tau = {"value": 0.2, "low": -0.1, "high": 0.5}
    poor = here / "searched" / "supernet" / "rank.json"
    poor.write_text(json.dumps({**report, "tau": tau}))
    again = nasaug("search", *quick, "--budget=2M", "--trials=1", "--out=again")
    assert again.code == 0
    assert "the supernet ranks no better than chance" in again.said
    assert "interval -0.10 to 0.50 includes 0" in again.said
    assert (here / "again" / "supernet" / "rank.json").read_bytes() == poor.read_bytes()


@pytest.mark.parametrize(
    "text", ["{}", "no", "[]", '{"n": 3, "tau": 1}', '{"n": 3, "tau": {"low": 1}}']
)
def test_the_warning_says_when_the_report_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "supernet").mkdir()
    (tmp_path / "supernet" / "rank.json").write_text(text)
    warning = rank_warning(tmp_path)
    assert warning is not None
    assert "rank.json is no result of nasaug rank-check" in warning
