"""`nasaug memory`: what a network needs, row by row, whether it fits, and the chart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.pictures import memory_figure, render
from nasaug.supernet import (
    Architecture,
    Network,
    flash_size,
    load_target,
    peak_memory,
)
from nasaug.training import save_weights

Nasaug = Callable[..., Any]
MICRO = load_target("micro_10k", 10)


def test_rows_add_up(nasaug: Nasaug) -> None:
    done = nasaug("memory", "mcunet", "--json")
    assert (done.code, done.err) == (0, "")
    facts, arch = done.json, load_target("mcunet")
    counted = nasaug("macs", "mcunet", "--json").json
    assert {key: facts[key] for key in ("macs", "params", "peak_memory")} == {
        key: counted[key] for key in ("macs", "params", "peak_memory")
    }
    rows = facts["rows"]
    assert [row["row"] for row in rows] == list(arch.row_names)
    for key in ("macs", "params", "flash"):
        assert sum(row[key] for row in rows) == facts[key]
    assert facts["flash"] == flash_size(arch)
    assert facts["peak_memory_in_place"] == peak_memory(arch, in_place=True)
    for key, where in (("memory", "peak_row"), ("memory_in_place", "peak_row_in_place")):
        largest = max(rows, key=lambda row: row[key])
        assert (largest[key], largest["row"]) == (facts[f"peak_{key}"], facts[where])
    assert rows[0]["input"] == [3, 176, 176]
    assert rows[-1]["output"] == [1000, 1, 1]
    for before, after in itertools.pairwise(rows):
        assert before["output"] == after["input"]
    assert "fits" not in facts


def test_the_table_marks_the_peaks(nasaug: Nasaug) -> None:
    done = nasaug("memory", "mcunet")
    assert done.code == 0
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert "340,736 <" in lines["stage2.block2"]
    assert lines["stage2.block1"].rstrip().endswith("247,808 <")
    assert done.out.count("<") == 3  # and the line that says what it means
    assert "332.8 KB at its peak (<), in stage2.block2; 242.0 KB in place" in done.out
    assert "Not counted: the program" in done.out


def test_float32_is_four_bytes_each(nasaug: Nasaug) -> None:
    whole = nasaug("memory", "micro_10k", "--json").json
    wide = nasaug("memory", "micro_10k", "--bits=32", "--json").json
    assert wide["peak_memory"] == 4 * whole["peak_memory"]
    assert wide["flash"] == flash_size(load_target("micro_10k"), 32)
    assert [row["memory"] for row in wide["rows"]] == [4 * row["memory"] for row in whole["rows"]]


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (["--max-memory=8KB", "--max-flash=16KB"], 0, ["fits: memory", "352 bytes to spare"]),
        (["--max-memory=7840"], 0, ["0 bytes to spare"]),
        (["--max-memory=7839"], 1, ["does not fit: memory", "1 byte too much"]),
        (["--max-flash=1KB"], 1, ["does not fit: flash", "of 1.0 KB", "too much"]),
        (["--max-memory=8KB", "--max-flash=1KB"], 1, ["to spare; flash", "too much"]),
    ],
)
def test_limits_decide_the_exit_code(
    limits: list[str], code: int, words: list[str], nasaug: Nasaug
) -> None:
    done = nasaug("memory", "micro_10k", "--classes=10", *limits)
    assert done.code == code
    for word in words:
        assert word in done.out
    facts = nasaug("memory", "micro_10k", "--classes=10", *limits, "--json")
    assert (facts.code, facts.json["fits"]) == (code, code == 0)
    assert facts.json["limits"].keys() == facts.json["spare"].keys()
    assert all((spare >= 0) or code for spare in facts.json["spare"].values())


def test_what_fits_only_in_place_is_said(nasaug: Nasaug) -> None:
    limits = ("--max-memory=320KB", "--max-flash=1MB")
    done = nasaug("memory", "mcunet", *limits)
    assert done.code == 1
    assert "does not fit: memory 332.8 KB of 320.0 KB, 12.8 KB too much" in done.out
    assert "in place it fits: memory 242.0 KB" in done.out
    assert nasaug("memory", "mcunet", *limits, "--in-place").code == 0


def test_a_run_is_its_weights(nasaug: Nasaug, tmp_path: Path) -> None:
    arch = load_target("micro_3k", 7, 32, in_channels=1)
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run" / "weights.safetensors", Network(arch))
    for name in ("run", "run/weights.safetensors"):
        facts = nasaug("memory", name, "--json").json
        assert (facts["peak_memory"], facts["flash"]) == (peak_memory(arch), flash_size(arch))
        assert (facts["classes"], facts["resolution"]) == (7, 32)
    changed = nasaug("memory", "run", "--classes=9", "--resolution=48", "--in-channels=3", "--json")
    other = load_target("micro_3k", 9, 48, in_channels=3)
    assert changed.json["peak_memory"] == peak_memory(other)
    assert changed.json["flash"] == flash_size(other)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_searchs_winner(direction: str, nasaug: Nasaug, tmp_path: Path) -> None:
    best = {"architecture": MICRO.to_dict(), "macs": 1, "budget_macs": 2, "target": "micro_10k"}
    (tmp_path / "best.json").write_text(json.dumps({**best, "direction": direction}))
    for name in (".", "best.json"):
        assert nasaug("memory", name, "--json").json["flash"] == flash_size(MICRO)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["micro_1k0"], ["unknown target 'micro_1k0'", "did you mean"]),
        (["missing.yaml"], ["missing.yaml", "No such file"]),
        (["missing.safetensors"], ["missing.safetensors", "No such file"]),
        (["empty"], ["empty holds neither weights.safetensors nor best.json", "a target"]),
        (["bad.json"], ["bad.json is not a search result", "row 0"]),
        (["list.json"], ["list.json is not a search result"]),
        (["bad.safetensors"], ["bad.safetensors"]),
        (["micro_10k", "--max-memory=12QB"], ["max-memory: this must be", "256KB", "'12QB'"]),
        (["micro_10k", "--max-flash=0"], ["max-flash: this must be from 1", "'0'"]),
        (["micro_10k", "--bits=4"], ["'4'", "'8'", "'32'"]),
        (["micro_10k", "--classes=1"], ["--classes", "x>=2"]),
        (["micro_10k", "--resolution=0"], ["resolution", "from 1 to 8192", "0"]),
        (["micro_10k", "--plot=chart.gif"], [".svg or .png", "'chart.gif'"]),
        (["micro_10k", "--plot=none/chart.svg"], ["none"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], nasaug: Nasaug, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bad = {"architecture": {"rows": [{}]}, "macs": 1, "budget_macs": 2, "target": "x"}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    before = sorted(tmp_path.rglob("*"))
    done = nasaug("memory", *arguments)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_chart_is_written(nasaug: Nasaug, tmp_path: Path) -> None:
    done = nasaug("memory", "micro_10k", "--max-memory=8KB", "--plot=chart.svg", "--json")
    assert done.json["plot"] == "chart.svg"
    text = (tmp_path / "chart.svg").read_text()
    for word in (*MICRO.row_names, "limit 8.0 KB", "peak 7.7 KB", "nothing in place"):
        assert f">{word}" in text or word in text
    assert nasaug("memory", "micro_10k", "--plot=chart.png").code == 0
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def _bars(arch: Architecture, **options: Any) -> tuple[list[float], list[float], Any]:
    figure = memory_figure(arch, **options)
    (axes,) = figure.axes
    widths = [[bar.get_width() for bar in group] for group in axes.containers]  # type: ignore[attr-defined]
    return widths[0], widths[1], axes


@pytest.mark.parametrize("bits", [8, 32])
def test_bars_are_the_rows_memory(bits: int, nasaug: Nasaug) -> None:
    rows = nasaug("memory", "mcunet", f"--bits={bits}", "--json").json["rows"]
    plain, tight, axes = _bars(load_target("mcunet"), bits=bits)
    assert plain == [row["memory"] / 1024 for row in rows]
    assert tight == [row["memory_in_place"] / 1024 for row in rows]
    assert [text.get_text() for text in axes.get_yticklabels()] == [row["row"] for row in rows]
    assert axes.yaxis_inverted()


def test_a_limit_is_a_line_or_words() -> None:
    _, _, axes = _bars(MICRO, limit=8192)
    (line,) = axes.lines
    assert set(line.get_xdata()) == {8.0}
    assert axes.get_xlim()[1] > 8
    _, _, axes = _bars(MICRO, limit=10**6)
    assert not axes.lines
    assert "976.6 KB, is further right" in axes.get_xlabel()


def test_equal_charts_are_equal_files() -> None:
    one, other = (render(memory_figure(MICRO, limit=9000), "svg") for _ in range(2))
    assert one == other
