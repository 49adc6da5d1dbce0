"""`nasaug search --direction down`: the network that it finds, its weights, what they are for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nasaug.__main__ import run
from nasaug.config import SearchConfig, dump_config, load_config
from nasaug.pipelines.notes import study_note
from nasaug.pipelines.plan import make_plan
from nasaug.pipelines.searched import read_search
from nasaug.setting import Setting, prepare
from nasaug.supernet import (
    Architecture,
    SearchSpace,
    count_with_fvcore,
    load_space,
    load_target,
    macs,
)
from nasaug.train_config import TrainConfig
from nasaug.training import (
    calibration_batches,
    evaluate,
    load_weights,
    read_facts,
    reestimate_batch_norm,
)
from nasaug.workspace import newest_search

Nasaug = Callable[..., Any]
BUDGET = 800_000
DOWN = ("--direction=down", "--space=micro_down", "--budget=800K")


@pytest.fixture(scope="session")
def down_quick(quick: tuple[str, ...]) -> tuple[str, ...]:
    """The options of a search down that ends within seconds."""
    return (*quick[1:], *DOWN)


@pytest.fixture(scope="session")
def finished_down(tmp_path_factory: pytest.TempPathFactory, down_quick: tuple[str, ...]) -> Path:
    """A finished search down, made without a look at the test images."""
    folder = tmp_path_factory.mktemp("finished_down")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delattr(Setting, "test")
        assert run(["search", *down_quick, "--trials=3", "--out=down"]) == 0
    return folder / "down"


@pytest.fixture
def down(finished_down: Path, tmp_path: Path) -> Path:
    """A copy of the finished search, in `tmp_path`."""
    return Path(shutil.copytree(finished_down, tmp_path / "down"))


@pytest.fixture
def found(down: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((down / "best.json").read_text())
    return facts


@pytest.fixture
def space() -> SearchSpace:
    return load_space("micro_down", 10)


@pytest.fixture
def baseline(quick: tuple[str, ...]) -> tuple[str, ...]:
    return (*quick[1:], "--method=baseline")


def test_what_is_found_fits_the_budget_and_is_of_the_space(
    found: dict[str, Any], space: SearchSpace
) -> None:
    winner = Architecture.from_dict(found["architecture"])
    counts = count_with_fvcore(winner)
    assert found["macs"] == counts["conv"] + counts["linear"] <= BUDGET == found["budget_macs"]
    assert space.macs(space.path(winner)) == found["macs"]
    assert winner.name == "micro_down-found"
    assert found["direction"] == "down"
    assert "target" not in found
    assert found["space"]["table"] == "micro_down"
    assert 0 <= found["accuracy"] <= 1


def test_its_weights_are_the_supernets_with_statistics_of_its_own(
    down: Path, found: dict[str, Any], down_quick: tuple[str, ...]
) -> None:
    winner = Architecture.from_dict(found["architecture"])
    setting = prepare(load_config(SearchConfig, str(down / "config.yaml"), (), {}))
    by_hand = load_weights(down / "supernet" / "weights.safetensors").export(winner)
    few = by_hand.export()
    # 2,048 images would be taken; the tiny data set has two batches of 128.
    batches = calibration_batches(setting.data, setting.view, 2048)
    assert reestimate_batch_norm(by_hand, batches) == found["bn_images"] == 256
    reestimate_batch_norm(few, setting.calibration())
    shipped = load_weights(down / "weights.safetensors")
    assert shipped.arch == winner
    for name, tensor in by_hand.state_dict().items():
        assert torch.equal(shipped.state_dict()[name], tensor), name
    other = few.state_dict()
    assert any(not torch.equal(other[n], t) for n, t in by_hand.state_dict().items())
    assert read_facts(down / "weights.safetensors")["resolution"] == setting.view.resolution


def test_it_is_evaluated_as_it_is(down: Path, nasaug: Nasaug, data: tuple[str, ...]) -> None:
    judged = nasaug("evaluate", "down", *data, "--json").json
    setting = prepare(load_config(SearchConfig, "down/config.yaml", (), {}))
    alone = evaluate(load_weights(down / "weights.safetensors"), setting.test())
    assert judged["top1"] == alone["top1"]
    assert judged["target"] == "micro_down-found"
    named = nasaug("evaluate", "down", "--target=down", *data, "--json").json
    assert named["top1"] == judged["top1"]


def test_words_and_json(nasaug: Nasaug, down: Path, down_quick: tuple[str, ...]) -> None:
    done = nasaug("search", *down_quick, "--trials=3", "--out=down", "--resume")
    assert done.out.splitlines()[0] == "Best networks in micro_down within 800,000 MACs"
    assert "nasaug evaluate down; trained from fresh weights: nasaug train --target down" in (
        done.said
    )
    facts = nasaug("search", *down_quick, "--trials=3", "--out=down", "--resume", "--json").json
    assert facts["weights"] == "down/weights.safetensors"
    assert facts["best"]["macs"] <= BUDGET
    several = ("--objectives=accuracy,macs", "--trials=4", "--out=front")
    front = nasaug("search", *down_quick, *several)
    assert "reusing the supernet of down" in front.said
    assert "Pareto front of accuracy, macs in micro_down" in front.out


def test_another_process_joins_by_the_saved_configuration(
    nasaug: Nasaug, down: Path, found: dict[str, Any]
) -> None:
    joined = nasaug("search", "--config=down/config.yaml", "--out=down", "--join", "--trials=5")
    assert joined.code == 0, joined.err
    assert json.loads((down / "result.json").read_text())["trials"] == 5


def test_configuration_is_read_as_it_was_written() -> None:
    options = {"direction": "down", "space.table": "micro_down", "budget": "1M"}
    config = load_config(SearchConfig, None, (), options)
    values = yaml.safe_load(dump_config(config))
    assert values["space"] == {"table": "micro_down"}
    assert SearchConfig.model_validate(values) == config
    up = yaml.safe_load(dump_config(SearchConfig()))
    assert "table" not in up["space"]
    assert SearchConfig.model_validate(up) == SearchConfig()


def test_a_run_without_out_is_named_after_the_space(
    nasaug: Nasaug, down: Path, down_quick: tuple[str, ...], baseline: tuple[str, ...]
) -> None:
    assert nasaug("search", *down_quick, "--trials=1").code == 0
    (searched,) = Path("runs").iterdir()
    assert searched.name.endswith("-search-micro_down")
    assert nasaug("train", "--target=down", *baseline).code == 0
    trained = {path.name for path in Path("runs").iterdir()} - {searched.name}
    assert [name.endswith("-train-down") for name in trained] == [True]


@pytest.mark.parametrize("target", ["down", "down/best.json"])
def test_it_is_trained_as_a_target(
    target: str, nasaug: Nasaug, down: Path, found: dict[str, Any], baseline: tuple[str, ...]
) -> None:
    trained = nasaug("train", f"--target={target}", *baseline, "--out=out", "--json").json
    assert trained["target"] == "down/best.json"
    assert (trained["macs"], trained["params"]) == (found["macs"], found["params"])
    assert load_weights(Path("out/weights.safetensors")).arch == load_target("down", 10)


def test_it_is_trained_inside_a_larger_network(
    nasaug: Nasaug, down: Path, quick: tuple[str, ...], found: dict[str, Any]
) -> None:
    options = ("--target=down", *quick[1:], "--out=out", "--json")
    done = nasaug("train", *options)
    assert done.json["macs"] == found["macs"]
    assert "from the published factors" in done.json["inside"]


@pytest.mark.parametrize("place", ["down", "down/weights.safetensors", "down/best.json"])
def test_training_starts_from_inherited_weights(
    place: str, down: Path, nasaug: Nasaug, data: tuple[str, ...]
) -> None:
    keys = {"target": "down", "method": "baseline", "init": place}
    keys |= {"data.name": "fashion-mnist", "data.dir": data[1].partition("=")[2]}
    config = load_config(TrainConfig, None, (), keys)
    plan = make_plan(config, prepare(config), Path("out"))
    shipped = load_weights(down / "weights.safetensors").state_dict()
    for name, tensor in plan.net.state_dict().items():
        assert torch.equal(tensor, shipped[name]), name
    assert plan.inside == f"micro_down-found alone, from the weights of {place}"


def test_fine_tuning_begins_where_the_search_ended(
    nasaug: Nasaug, down: Path, baseline: tuple[str, ...]
) -> None:
    """Accuracies of so young networks are of ties: the weights tell."""
    still = ("--target=down", *baseline, "--set=train.lr=1e-9", "--json")
    nasaug("train", *still, "--init=down", "--out=tuned")
    nasaug("train", *still, "--out=fresh")
    found, tuned, fresh = (
        dict(load_weights(folder / "weights.safetensors").named_parameters())
        for folder in (down, Path("tuned"), Path("fresh"))
    )
    for name, weight in found.items():
        torch.testing.assert_close(tuned[name], weight, rtol=1e-5, atol=1e-6)
    assert any((fresh[name] - weight).abs().max() > 0.01 for name, weight in found.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--init=gone", "--method=baseline"), ["--init gone", "gone does not exist"]),
        (("--init=down", "--method=netbooster"), ["method netbooster trains another network"]),
        (("--init=down", "--method=baseline", "--target=micro_10k"), ["3", "channels"]),
        (
            ("--init=down", "--method=baseline", "--target=micro_10k", "--set=in_channels=1"),
            ["the weights are not of micro_10k, but of micro_down-found", "--target"],
        ),
        (("--largest=down",), ["nothing to train micro_down-found in"]),
    ],
)
def test_a_start_that_does_not_fit(
    options: tuple[str, ...],
    words: list[str],
    nasaug: Nasaug,
    down: Path,
    quick: tuple[str, ...],
) -> None:
    done = nasaug("train", "--target=down", *quick[1:], "--out=out", *options)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert not Path("out").exists()


def test_init_of_other_classes_gets_a_new_head(
    nasaug: Nasaug, down: Path, image_folder: Callable[..., Path]
) -> None:
    images = image_folder("pets")
    options = ("--target=down", f"--data=imagefolder:{images}", "--method=baseline")
    few = ("--epochs=1", "--set=train.batch_size=2", "--set=train.resolution=28")
    done = nasaug("train", *options, *few, "--init=down", "--out=out", "--set=data.workers=0")
    assert done.code == 0, done.err
    assert "from the weights of down, with a new head for 2 classes in place of 10" in done.said


def test_it_is_no_largest_network_unless_it_contains_the_target(
    nasaug: Nasaug, down: Path, quick: tuple[str, ...], space: SearchSpace, found: dict[str, Any]
) -> None:
    """Not taken by itself, even if it says to be of the target; where named, it must contain it."""
    target = load_target("micro_10k", 10, in_channels=1)
    options = ("train", *quick, "--set=in_channels=1", "--json")
    for arch, contains in ((space.target, False), (space.largest, True)):
        facts = {**found, "target": "micro_10k", "architecture": arch.to_dict()}
        (down / "best.json").write_text(json.dumps(facts))
        assert newest_search("micro_10k", target, Path("out")) is None
        named = nasaug(*options, "--largest=down", f"--out=named{contains}")
        assert (named.code == 0) == contains
        if not contains:
            assert "down/best.json cannot be used: " in named.said
            assert "micro_10k" in named.said
            assert not Path("namedFalse").exists()
        else:
            assert "the search down/best.json" in named.json["inside"]
    chosen = nasaug(*options, "--out=auto")
    assert "published factors" in chosen.json["inside"]


def test_a_damaged_result_is_no_target(
    nasaug: Nasaug, down: Path, baseline: tuple[str, ...], found: dict[str, Any]
) -> None:
    (down / "best.json").write_text(json.dumps({**found, "architecture": {"rows": []}}))
    done = nasaug("train", "--target=down", *baseline, "--out=out")
    assert done.code == 2
    assert "down/best.json is not a search's result" in done.said
    assert not Path("out").exists()


def test_the_winner_of_a_search_up_is_no_target(
    nasaug: Nasaug, searched: Path, baseline: tuple[str, ...]
) -> None:
    done = nasaug("train", "--target=searched", *baseline, "--out=out")
    assert done.code == 2
    for word in ("searched/best.json is a network to train micro_10k in", "--largest"):
        assert word in done.said


DAMAGED = """
resolution: 28
in_channels: 1
rows:
  - {kind: conv, kernel: 3, stride: 2, out: [8, 16], act: relu6}
  - {kind: inverted_residual, kernel: [3, 4], stride: 2, expand: 2, out: 16, act: relu6}
  - {kind: global_avg_pool}
  - {kind: linear}
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--direction=down",), ["--direction down searches a table", "--space", "micro_down"]),
        (("--space=micro_down",), ["tied to no target", "--direction down"]),
        (("--direction=sideways",), ["direction must be 'up' or 'down'", "'sideways'"]),
        ((*DOWN, "--target=micro_10k"), ["a target has no meaning", "'micro_10k'", "micro_down"]),
        ((*DOWN, "--space=micro_dwn"), ["unknown space 'micro_dwn'", "did you mean 'micro_down'"]),
        ((*DOWN, "--space=gone.yaml"), ["gone.yaml"]),
        (
            (*DOWN, "--space=damaged.yaml"),
            ["damaged.yaml is not a space's table: row 1 (stage1.block1): kernel must be odd"],
        ),
        (
            (*DOWN, "--budget=100K"),
            ["micro_down's smallest member's 123,056 MACs, but got 100,000", "raise --budget"],
        ),
        ((*DOWN, "--set=space.width=[1, 2]"), ["space: width is for a space around a target"]),
        ((*DOWN, "--set=space.divisor=8"), ["space: divisor is for a space around a target"]),
        ((*DOWN, "--objective=help"), ["objective help", "down"]),
        ((*DOWN, "--objective=both"), ["objective help", "down"]),
    ],
)
def test_refused_before_anything_is_made(
    options: tuple[str, ...], words: list[str], nasaug: Nasaug, quick: tuple[str, ...]
) -> None:
    Path("damaged.yaml").write_text(DAMAGED)
    done = nasaug("search", *quick[1:], *options, "--out=none")
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert not Path("none").exists()


def test_the_space_is_described_and_drawn(nasaug: Nasaug, down: Path) -> None:
    done = nasaug("space", "--space=micro_down", "--picture=space.svg", "--best=down")
    assert done.out.startswith("Space micro_down\n")
    assert "(the smallest)" in done.out and "target" not in done.out
    drawn = Path("space.svg").read_text()
    assert "Search space micro_down" in drawn and "target" not in drawn
    facts = nasaug("space", "--space=micro_down", "--budget=800K", "--json").json
    assert facts["space"] == "micro_down" and "target" not in facts
    assert facts["members"] == 613_900_800
    assert (facts["macs_least"], facts["macs_most"]) == (123_056, 5_746_256)
    refused = nasaug("space", "micro_10k", "--space=micro_down")
    assert refused.code == 2


def test_report_and_note_speak_of_a_network_that_stands_by_itself(
    nasaug: Nasaug, down: Path
) -> None:
    assert nasaug("report", "down").code == 0
    page = unescape((down / "report.html").read_text())
    assert "<title>Search down in micro_down, at most 800,000 MACs" in page
    for word in ("The winner is deployed", "micro_down: 6.14e+8 members", "smallest member"):
        assert word in page
    note = study_note(read_search(down)[0], "/picture")
    assert note.startswith("## Search down in `micro_down`, at most 800,000 MACs")
    assert "| | smallest member | winner |" in note
    for text in (page, note):
        for word in ("trained inside", "the target", "Search around"):
            assert word not in text


def test_rank_check_of_its_supernet(nasaug: Nasaug, down: Path, data: tuple[str, ...]) -> None:
    options = ("--space=micro_down", *data, "--epochs=1", "--n=4", "--bands=1", "--out=checked")
    done = nasaug("rank-check", *options, "--set=alone.warmup_epochs=0", "--set=resamples=100")
    assert done.code == 0, done.err
    assert "checking the supernet of down" in done.said
    assert "4 candidates of micro_down; the supernet is that of" in done.out
    checked = json.loads(Path("checked/result.json").read_text())
    space = load_space("micro_down", 10)
    for candidate in checked["candidates"]:
        arch = Architecture.from_dict(candidate["architecture"])
        assert macs(arch) == candidate["macs"] <= BUDGET
        assert space.path(arch) == tuple(candidate["path"])
    assert (down / "supernet" / "rank.json").is_file()


TABLE = """
resolution: 28
in_channels: 1
rows:
  - {kind: conv, kernel: 3, stride: 2, out: [8, 16], act: relu6}
  - {kind: inverted_residual, depth: [1, 2], kernel: 3, stride: 2, expand: [2, 4], out: 16, act: relu6}
  - {kind: global_avg_pool}
  - {kind: linear}
"""  # noqa: E501


def test_within_a_latency_of_a_table_of_ones_own(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    Path("mine.yaml").write_text(TABLE)
    measured = nasaug(
        "latency-table", "--space=mine.yaml", "--validate=0", "--repeats=3", "--out=t.csv"
    )
    assert measured.code == 0, measured.err
    assert "mine-smallest takes" in measured.out
    found = nasaug(
        "search",
        *quick[1:],
        "--direction=down",
        "--space=mine.yaml",
        "--latency-table=t.csv",
        "--max-latency=1s",
        "--trials=2",
        "--out=fast",
        "--json",
    )
    assert found.code == 0, found.err
    assert 0 < found.json["best"]["latency"] <= 10**9
    assert found.json["best"]["architecture"]["name"] == "mine-found"
