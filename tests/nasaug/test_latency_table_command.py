"""`nasaug latency-table` on a small space: what it writes, resumes, extends and refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.__main__ import run
from nasaug.devices import LatencyTable, load_latency_table, rows_of
from nasaug.devices.torch_cpu import TorchBackend
from nasaug.supernet import SearchSpace, load_target

Nasaug = Callable[..., Any]
NARROW = ("--set=space.width=[1]", "--set=space.extra_depth=[0]")
QUICK = ("latency-table", "micro_10k", "--repeats=3", "--validate=3", *NARROW)
SMALL = (*QUICK, "--set=space.expand=[1]")


def small_space() -> SearchSpace:
    return SearchSpace.around(load_target("micro_10k", 10), (1,), (1,), (0, 2), (0,))


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete table."""
    path = tmp_path_factory.mktemp("measured") / "table.csv"
    assert run([*SMALL, f"--out={path}"]) == 0
    return path


@pytest.fixture
def measured(complete: Path, tmp_path: Path) -> Path:
    """A copy of the complete table, in `tmp_path`."""
    return Path(shutil.copy(complete, tmp_path))


def test_the_table_holds_every_row_and_predicts_every_network(nasaug: Nasaug) -> None:
    done = nasaug(*SMALL, "--out=table.csv", "--json")
    assert done.code == 0
    space = small_space()
    table = load_latency_table("table.csv")
    assert table.timings.keys() == rows_of(space)
    assert done.json["table"] == "table.csv"
    assert done.json["target"] == "micro_10k"
    assert done.json["rows"] == done.json["rows_measured"] == len(rows_of(space))
    assert done.json["backend"] == "torch"
    assert done.json["threads"] == 1
    assert done.json["scale"] == table.scale
    assert done.json["target_ns"] == table.predict(space.target) > 1000
    judged = done.json["validation"]
    assert judged.keys() == {"networks", "spearman", "mape", "bias"}
    assert judged["networks"] == 3
    assert table.facts["validated_on"] == "3 other networks of that space"
    assert float(table.facts["mape_percent"]) == pytest.approx(100 * judged["mape"], abs=0.01)
    assert float(table.facts["spearman"]) == pytest.approx(judged["spearman"], abs=1e-4)
    assert table.facts["targets"] == "micro_10k"
    assert [path.name for path in Path().iterdir()] == ["table.csv"]


def test_people_see_each_network_and_the_verdict(nasaug: Nasaug) -> None:
    done = nasaug(*SMALL, "--out=table.csv")
    assert done.code == 0
    assert "measured" in done.out and "predicted" in done.out
    assert sum(line.endswith("%") for line in done.out.splitlines()) == 3
    assert "Spearman" in done.out
    assert "on 3 networks that the table has not seen" in done.out
    rows = len(rows_of(small_space()))
    assert f"table.csv: {rows} rows, {rows} of them measured now; micro_10k takes" in done.out


def test_the_onnxruntime_backend_measures_too(nasaug: Nasaug) -> None:
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    done = nasaug(*SMALL, "--out=table.csv", "--backend=onnxruntime", "--json")
    assert done.code == 0
    assert done.json["overhead_ns"] > 0
    assert load_latency_table("table.csv").facts["backend"] == "onnxruntime"


def test_without_validation(nasaug: Nasaug, measured: Path) -> None:
    done = nasaug(*SMALL, "--out=table.csv", "--validate=0", "--resume", "--json")
    assert done.code == 0
    assert done.json["validation"] is None
    assert "spearman" not in load_latency_table(measured).facts


def test_a_space_of_one_network_is_measured_but_not_validated(nasaug: Nasaug) -> None:
    one = (*SMALL, "--set=space.kernel_growth=[0]", "--out=table.csv")
    done = nasaug(*one)
    assert done.code == 2
    assert "4 different networks are wanted, but the space around micro_10k has 1" in done.said
    done = nasaug(*one, "--validate=0", "--json")
    assert done.code == 0
    table = load_latency_table("table.csv")
    assert table.facts["scaled_on"] == "1 networks of the space around micro_10k"
    assert done.json["target_ns"] == table.predict(load_target("micro_10k", 10))


def test_an_interrupted_measurement_goes_on(
    nasaug: Nasaug, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> list[int]:
            raise KeyboardInterrupt

        patch.setattr(TorchBackend, "network", interrupt)
        done = nasaug(*SMALL, "--out=table.csv")
    assert done.code == 130
    kept = Path("table.csv.repeats.jsonl")
    assert [path.name for path in Path().iterdir()] == [kept.name]

    done = nasaug(*SMALL, "--out=table.csv")
    assert done.code == 2
    assert "table.csv.repeats.jsonl exists; add --resume to go on with it" in done.said

    def sweep(*_: object) -> Any:
        raise AssertionError("rows are measured again")

    monkeypatch.setattr(TorchBackend, "sweep", sweep)
    done = nasaug(*SMALL, "--out=table.csv", "--resume", "--json")
    assert done.code == 0
    assert done.json["rows_measured"] == len(rows_of(small_space()))
    assert not kept.exists()


def test_a_table_is_extended_by_what_it_lacks(nasaug: Nasaug, measured: Path) -> None:
    before = load_latency_table(measured)
    wide = (*QUICK, "--set=space.expand=[1,2]", "--out=table.csv")
    done = nasaug(*wide, "--resume", "--json")
    assert done.code == 0
    after = load_latency_table(measured)
    assert done.json["rows_measured"] == len(after.timings) - len(before.timings) > 0
    assert {key: after.timings[key] for key in before.timings} == before.timings

    done = nasaug("latency-table", "micro_40k", *SMALL[2:], "--out=table.csv", "--resume", "--json")
    assert done.code == 0
    assert load_latency_table(measured).facts["targets"] == "micro_10k, micro_40k"


def test_a_table_is_never_overwritten(nasaug: Nasaug, measured: Path) -> None:
    content = measured.read_bytes()
    done = nasaug(*SMALL, "--out=table.csv")
    assert done.code == 2
    assert "table.csv exists; add --resume to go on with it or to extend it" in done.said
    assert measured.read_bytes() == content


def test_a_table_of_other_conditions_is_not_extended(nasaug: Nasaug, measured: Path) -> None:
    content = measured.read_bytes()
    done = nasaug(*SMALL, "--out=table.csv", "--resume", "--threads=2")
    assert done.code == 2
    assert "table.csv was measured with threads 1, but here it is 2; name another --out" in (
        done.said
    )
    assert measured.read_bytes() == content


def test_a_resume_without_anything_says_so_and_starts(nasaug: Nasaug) -> None:
    done = nasaug(*SMALL, "--out=table.csv", "--resume")
    assert done.code == 0
    assert "no earlier measurement of table.csv was found; starting a new one" in done.said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend=tensorflow"], "unknown backend 'tensorflow': choose one of torch, onnx"),
        (["--backend=onnx"], "unknown backend 'onnx': did you mean 'onnxruntime'?"),
        (["--validate=2"], "--validate must be 0 or at least 3, but got 2"),
        (
            ["--validate=5000"],
            "5001 different networks are wanted, but the space around micro_10k has ",
        ),
        (["--out=nowhere/table.csv"], "there is no folder nowhere; make it first"),
        (["--threads=0"], "--threads"),
        (["--repeats=2"], "--repeats"),
        (["--set=space.divisor=0"], "space.divisor"),
    ],
)
def test_bad_input(arguments: list[str], said: str, nasaug: Nasaug) -> None:
    done = nasaug(*SMALL, "--out=table.csv", *arguments)
    assert done.code == 2
    assert said in done.said
    assert done.out == ""
    assert list(Path().iterdir()) == []


def test_a_table_that_is_damaged_is_refused(nasaug: Nasaug) -> None:
    Path("table.csv").write_text("kind,size\n")
    done = nasaug(*SMALL, "--out=table.csv", "--resume")
    assert done.code == 2
    assert "table.csv, line 1: column in_channels is missing" in done.said


def test_the_search_takes_the_table(measured: Path) -> None:
    """What the command writes prices the space that it was measured on."""
    table: LatencyTable = load_latency_table(measured)
    space = small_space().priced(table)
    assert space.latency(space.path(space.largest)) == table.predict(space.largest)
