"""`nasaug macs`, `targets` and `space`: the numbers in JSON and in tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.supernet import Network, load_target, target_names

Nasaug = Callable[..., Any]
PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "targets.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_are_the_published_ones(name: str, nasaug: Nasaug) -> None:
    done = nasaug("macs", name, "--json")
    assert done.code == 0
    assert done.err == ""
    published = PUBLISHED[name]
    assert {key: done.json[key] for key in ("target", "resolution", "macs", "params")} == {
        "target": name,
        "resolution": published["resolution"],
        "macs": published["macs"],
        "params": published["parameters"],
    }


def test_macs_with_the_data_sets_own_head(nasaug: Nasaug) -> None:
    facts = nasaug("macs", "mbv2_tiny", "--classes", "10", "--json").json
    assert facts["macs"] == 23_055_632
    assert facts["classes"] == 10


def test_macs_at_another_size(nasaug: Nasaug) -> None:
    facts = nasaug("macs", "mcunet", "--resolution", "88", "--in-channels", "1", "--json").json
    # Only the stem, 3 x 3 and 16 wide with stride 2, reads the images: two channels fewer.
    channel = 3 * 3 * 16 * 44 * 44
    whole = nasaug("macs", "mcunet", "--resolution", "88", "--json").json
    assert facts["resolution"] == 88
    assert whole["macs"] - facts["macs"] == 2 * channel
    assert whole["params"] - facts["params"] == 2 * 3 * 3 * 16


@pytest.mark.parametrize("name", ["mcunet", "mbv3_w035", "micro_10k"])
def test_explained_rows_add_up(name: str, nasaug: Nasaug) -> None:
    done = nasaug("macs", name, "--explain", "--json")
    facts = done.json
    rows = facts["rows"]
    assert [row["row"] for row in rows] == list(load_target(name).row_names)
    assert sum(row["macs"] for row in rows) == facts["macs"]
    assert sum(row["params"] for row in rows) == facts["params"]
    assert max(row["memory"] for row in rows) == facts["peak_memory"]
    counted = facts["fvcore"]
    assert counted["conv"] + counted["linear"] == facts["macs"]
    assert counted["total"] == sum(value for key, value in counted.items() if key != "total")


def test_the_explanation_is_a_table_and_the_reasons_that_tools_differ(nasaug: Nasaug) -> None:
    done = nasaug("macs", "mcunet", "--explain")
    assert done.code == 0
    total = next(line for line in done.out.splitlines() if line.startswith("total"))
    assert "81,785,520" in total
    assert "737,408" in total
    macs_column = [
        int(line.split()[4].replace(",", ""))
        for line in done.out.splitlines()
        if line.startswith(("stem", "stage", "head", "pool", "classifier")) and len(line) > 60
    ]
    assert sum(macs_column) == 81_785_520
    assert "fvcore" in done.out
    assert "86,821,712" in done.out
    assert f"{2 * 81_785_520:,}" in done.out


def test_the_short_table(nasaug: Nasaug) -> None:
    done = nasaug("macs", "mbv2_tiny")
    assert done.code == 0
    for text in ("mbv2_tiny", "144", "23,499,152", "750,280"):
        assert text in done.out


def test_targets(nasaug: Nasaug) -> None:
    facts = nasaug("targets", "--json", "--classes", "10").json
    assert facts["classes"] == 10
    listed = {row["target"]: row for row in facts["targets"]}
    assert tuple(listed) == target_names()
    for name, row in listed.items():
        one = nasaug("macs", name, "--classes", "10", "--json").json
        assert row == {key: one[key] for key in row}


def test_the_table_of_targets(nasaug: Nasaug) -> None:
    done = nasaug("targets")
    assert done.code == 0
    for name in target_names():
        assert any(line.startswith(name) for line in done.out.splitlines())
    assert "81,785,520" in done.out


def test_space(nasaug: Nasaug) -> None:
    facts = nasaug("space", "micro_10k", "--json").json
    own = nasaug("macs", "micro_10k", "--classes", "10", "--json").json
    assert facts["macs_least"] == own["macs"]
    assert facts["macs_most"] > facts["macs_least"]
    assert facts["members"] > 10**6
    assert facts["decisions"]["stage2.block1.kernel"] == [3, 5]
    assert facts["decisions"]["stage2.block1.expand"] == [1.0, 1.6, 2.2, 2.8]


def test_a_space_of_one_decision_is_counted_by_hand(nasaug: Nasaug) -> None:
    one = ["space.width=[1]", "space.expand=[1]", "space.extra_depth=[0]"]
    facts = nasaug("space", "micro_10k", "--json", *(f"--set={key}" for key in one)).json
    # Five rows have a depthwise kernel, of 3 or 5.
    assert facts["members"] == 2**5
    assert {tuple(values) for values in facts["decisions"].values()} == {(3, 5)}
    assert facts["macs_least"] < facts["macs_most"]


def test_the_table_of_a_space(nasaug: Nasaug) -> None:
    done = nasaug("space", "micro_10k")
    assert done.code == 0
    assert "stage3.block3" in done.out
    assert "1.0 1.6 2.2 2.8" in done.out
    assert "members" in done.out


def test_a_space_is_around_the_configured_target(nasaug: Nasaug, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("target: micro_10k\n")
    assert nasaug("space", "--config", "search.yaml", "--json").json["target"] == "micro_10k"
    assert nasaug("space", "--set", "target=micro_40k", "--json").json["target"] == "micro_40k"


def test_a_users_own_table(nasaug: Nasaug, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "resolution: 16\n"
        "rows:\n"
        "  - {kind: conv, kernel: 3, stride: 2, out: 8, act: relu6}\n"
        "  - {kind: global_avg_pool}\n"
        "  - {kind: linear, out: 4}\n"
    )
    facts = nasaug("macs", "mine.yaml", "--classes", "5", "--json").json
    assert facts["target"] == "mine"
    assert facts["macs"] == 27 * 8 * 8 * 8 + 8 * 5
    net = Network(load_target(tmp_path / "mine.yaml", 5))
    assert facts["params"] == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["macs", "mbv2_tinny"], ["unknown target 'mbv2_tinny'", "did you mean 'mbv2_tiny'"]),
        (["macs", "mbv2_w999"], ["'mbv2_w999'", "from 005 to 400"]),
        (["macs", "missing.yaml"], ["missing.yaml", "No such file"]),
        (["macs", "micro_10k", "--classes", "1"], ["num_classes", "at least 2", "1"]),
        (["targets", "--classes", "0"], ["num_classes", "at least 2", "0"]),
        (["macs", "micro_10k", "--resolution", "0"], ["resolution", "from 1 to 8192", "0"]),
        (["macs", "micro_10k", "--in-channels", "2"], ["in_channels", "1", "3", "got 2"]),
        (["space", "mbv2_tinny"], ["unknown target", "'mbv2_tiny'"]),
        (["space", "micro_10k", "--set", "space.wdth=[1]"], ["'space.wdth'", "'space.width'"]),
        (["space", "micro_10k", "--set", "space.width=[2]"], ["width", "1 among them", "2.0"]),
        (["space", "micro_10k", "--set", "space.kernel_growth=[0,1]"], ["kernel_growth", "even"]),
        (["space", "micro_10k", "--set", "space.extra_depth=[0,2]"], ["extra_depth", "gap"]),
        (["space", "micro_10k", "--set", "space.divisor=0"], ["space.divisor", "greater", "0"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], nasaug: Nasaug) -> None:
    done = nasaug(*arguments)
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.said
