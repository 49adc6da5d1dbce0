"""`nasaug search`: what it finds, what it writes, which supernet it uses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.config import SearchConfig, load_config
from nasaug.supernet import Architecture, count_with_fvcore, embed, load_target, params
from nasaug.training import load_weights

Nasaug = Callable[..., Any]
BUDGET = 2_000_000


def test_json_is_all_that_stdout_holds(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("search", *quick, "--budget=2M", "--trials=2", "--out=here", "--json")
    assert done.code == 0
    facts = done.json
    assert {"best", "budget_macs", "run_dir"} <= facts.keys()
    assert {"macs", "params", "accuracy", "architecture"} <= facts["best"].keys()
    assert facts["budget_macs"] == BUDGET
    assert facts["run_dir"] == "here"
    assert 0 <= facts["best"]["accuracy"] <= 1
    assert "best: here/best.json" in done.said


def test_json_agrees_with_the_file(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, best: dict[str, Any]
) -> None:
    done = nasaug(
        "search", *quick, "--budget=2M", "--trials=3", "--out=searched", "--resume", "--json"
    )
    facts = json.loads(done.out.splitlines()[-1])
    keys = ("macs", "params", "memory", "flash", "accuracy", "architecture")
    assert facts["best"] == {key: best[key] for key in keys}
    assert facts["budget_macs"] == best["budget_macs"]


def test_the_winner_fits_the_budget_and_contains_the_target(best: dict[str, Any]) -> None:
    winner = Architecture.from_dict(best["architecture"])
    counts = count_with_fvcore(winner)
    assert best["macs"] == counts["conv"] + counts["linear"] <= BUDGET == best["budget_macs"]
    assert best["params"] == params(winner)
    target = load_target("micro_10k", 10)
    assert embed(target, winner).canonical() == target
    assert winner != target
    assert best["target"] == "micro_10k"
    assert best["data"] == "fashion-mnist"
    assert best["resolution"] == winner.resolution == target.resolution
    assert 0 <= best["accuracy"] <= 1


def test_the_winner_is_the_best_of_all_trials(searched: Path, best: dict[str, Any]) -> None:
    import optuna

    study = optuna.load_study(study_name=None, storage=_journal(searched))
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 3
    assert best["accuracy"] == max(trial.value for trial in complete)
    for trial in complete:
        assert trial.user_attrs["macs"] <= BUDGET
    tops = json.loads((searched / "result.json").read_text())["top"]
    assert [top["accuracy"] for top in tops] == sorted(
        (trial.value for trial in complete), reverse=True
    )
    assert best["macs"] == tops[0]["macs"]


def test_the_run_folder(searched: Path, quick: tuple[str, ...]) -> None:
    names = {str(path.relative_to(searched)) for path in searched.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "best.json",
        "result.json",
        "study.journal",
        "supernet/weights.safetensors",
        "supernet/metrics.jsonl",
    } <= names
    assert not [name for name in names if "checkpoint" in name or "tmp" in name]
    config = load_config(SearchConfig, str(searched / "config.yaml"), [], {})
    assert (config.budget, config.trials, config.target) == (BUDGET, 3, "micro_10k")
    assert config.train.epochs == 1
    supernet = load_weights(searched / "supernet" / "weights.safetensors")
    winner = Architecture.from_dict(
        json.loads((searched / "best.json").read_text())["architecture"]
    )
    assert embed(winner, supernet.arch).canonical() == winner
    (line,) = (searched / "supernet" / "metrics.jsonl").read_text().splitlines()
    assert {"step", "epoch", "lr", "loss_path", "target_top1"} <= json.loads(line).keys()


def test_people_get_a_table_and_the_way_on(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("search", *quick, "--budget=2M", "--trials=2", "--out=here")
    assert done.code == 0
    best = json.loads(Path("here/best.json").read_text())
    first = next(line for line in done.out.splitlines() if line.split()[:1] == ["1"])
    assert first.split() == [
        "1",
        f"{100 * best['accuracy']:.2f}",
        f"{best['macs']:,}",
        f"{best['params']:,}",
        f"{best['memory'] / 1024:.0f}",
    ]
    assert "2,000,000 MACs" in " ".join(done.out.split())
    assert "next: nasaug train --target micro_10k" in done.said
    counts = re.search(r"(\d+) training, (\d+) validation, 200 test images of 10", done.said)
    assert counts is not None
    assert int(counts[1]) + int(counts[2]) == 320
    assert abs(int(counts[2]) - 32) <= 5


def test_without_out_a_run_lies_below_runs_and_is_found_again(
    nasaug: Nasaug, quick: tuple[str, ...], files_below: Callable[[], dict[str, bytes]]
) -> None:
    command = ["search", *quick, "--budget=2M", "--trials=1"]
    assert nasaug(*command).code == 0
    (run,) = Path("runs").iterdir()
    assert run.name.endswith("-search-micro_10k")
    before = files_below()
    again = nasaug(*command, "--resume")
    assert again.code == 0
    assert list(Path("runs").iterdir()) == [run]
    assert files_below().keys() == before.keys()
    other = nasaug(*command, "--resume", "--seed=1")
    assert other.code == 0
    assert "no earlier run" in other.said
    assert len(list(Path("runs").iterdir())) == 2


def test_the_same_seed_finds_the_same(
    nasaug: Nasaug, quick: tuple[str, ...], best: dict[str, Any], tmp_path: Path
) -> None:
    command = ["search", *quick, "--budget=2M", "--trials=3"]
    assert nasaug(*command, "--out=elsewhere/again").code == 0
    again = json.loads((tmp_path / "elsewhere" / "again" / "best.json").read_text())
    assert again == best
    assert nasaug(*command, "--seed=5", "--out=elsewhere/other").code == 0
    other = json.loads((tmp_path / "elsewhere" / "other" / "best.json").read_text())
    assert other["architecture"] != best["architecture"]


def test_a_supernet_is_reused_for_another_budget(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    done = nasaug(
        "search", *quick, "--budget=800K", "--trials=2", "--sampler=random", "--out=second"
    )
    assert done.code == 0
    assert "reusing the supernet" in done.said
    assert "training a supernet" not in done.said
    weights = Path("second/supernet/weights.safetensors").read_bytes()
    assert weights == (searched / "supernet" / "weights.safetensors").read_bytes()
    assert json.loads(Path("second/best.json").read_text())["macs"] <= 800_000


@pytest.mark.parametrize(
    "change",
    [
        ["--set=train.lr=0.05"],
        ["--epochs=2"],
        ["--seed=1"],
        ["--set=space.width=[1,2]"],
        ["--set=space.divisor=4"],
        ["--set=data.flip=false"],
        ["--set=data.validation=0.2"],
        ["--set=train.resolution=20"],
        ["--data-dir=other_clothes"],
        ["--target=micro_40k"],
    ],
    ids=lambda change: change[0].removeprefix("--").removeprefix("set="),
)
def test_a_supernet_of_another_making_is_not_reused(
    change: list[str], nasaug: Nasaug, quick: tuple[str, ...], searched: Path, clothes: Path
) -> None:
    shutil.copytree(clothes, "other_clothes")
    pixels = Path("other_clothes/train-images-idx3-ubyte")
    pixels.write_bytes(pixels.read_bytes()[:-40_000] + bytes(40_000))
    done = nasaug("search", *quick, "--budget=2M", "--trials=1", "--out=second", *change)
    assert done.code == 0
    assert "training a supernet" in done.said
    assert "reusing" not in done.said


def test_a_supernet_of_the_same_images_elsewhere_is_reused(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, clothes: Path
) -> None:
    shutil.copytree(clothes, "moved")
    done = nasaug("search", *quick, "--budget=2M", "--trials=1", "--out=second", "--data-dir=moved")
    assert "reusing the supernet" in done.said


def test_a_finished_search_goes_on_to_more_trials(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    before = [trial.params for trial in _trials(searched)]
    done = nasaug("search", *quick, "--budget=2M", "--trials=5", "--out=searched", "--resume")
    assert done.code == 0
    after = [trial.params for trial in _trials(searched)]
    assert after[:3] == before
    assert len(after) == 5
    assert nasaug("search", *quick, "--budget=2M", "--trials=5", "--out=whole").code == 0
    whole = Path("whole/best.json").read_text()
    assert (searched / "best.json").read_text() == whole


def test_a_budget_above_the_largest_is_said_and_searched(
    nasaug: Nasaug, quick: tuple[str, ...]
) -> None:
    done = nasaug("search", *quick, "--budget=1G", "--trials=1", "--out=here")
    assert done.code == 0
    assert "the budget of 1,000,000,000 MACs is above the space's largest" in done.said
    most = nasaug("space", "micro_10k", "--json").json["macs_most"]
    assert f"{most:,}" in done.said
    assert json.loads(Path("here/best.json").read_text())["budget_macs"] == 10**9


def test_the_targets_own_macs_are_the_least_budget(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    least = nasaug("macs", "micro_10k", "--classes=10", "--json").json["macs"]
    low = nasaug("search", *quick, f"--budget={least - 1}", "--trials=1", "--out=low")
    assert low.code == 2
    assert "at least micro_10k's own 336,144 MACs, but got 336,143" in low.said
    assert "raise --budget" in low.said
    assert not Path("low").exists()
    done = nasaug("search", *quick, f"--budget={least}", "--trials=1", "--out=exact")
    assert done.code == 0
    found = json.loads(Path("exact/best.json").read_text())["architecture"]
    assert Architecture.from_dict(found) == load_target("micro_10k", 10)


def test_a_study_in_a_database(nasaug: Nasaug, quick: tuple[str, ...], searched: Path) -> None:
    storage = "--storage=sqlite:///study.db"
    done = nasaug("search", *quick, "--budget=2M", "--trials=3", "--out=second", storage)
    assert done.code == 0
    assert not Path("second/study.journal").exists()
    first, second = (
        json.loads(path.read_text()) for path in (searched / "best.json", Path("second/best.json"))
    )
    assert first == second


def _journal(folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / "study.journal")))


def _trials(folder: Path) -> list[Any]:
    import optuna

    return optuna.load_study(study_name=None, storage=_journal(folder)).trials
