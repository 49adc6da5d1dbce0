"""What an interrupted measurement keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasaug.devices import RowKey, SamplesFile
from nasaug.supernet import InvertedResidual, Linear

CONDITIONS = {"device": "a board", "threads": "1"}
BLOCK = RowKey(InvertedResidual(3, 1, 48, 16, "hardswish", skip=True, squeeze=16), 16, 7)
HEAD = RowKey(Linear(10), 16, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv.repeats.jsonl"


def test_bursts_come_back_in_their_order(path: Path) -> None:
    file = SamplesFile(path, CONDITIONS)
    assert file.read() == {}
    with file.appending() as note:
        note(BLOCK, [3, 1, 2])
        note(None, [5])
    with file.appending() as note:
        note(HEAD, [7])
        note(BLOCK, [4])
    found = SamplesFile(path, CONDITIONS).read()
    assert found == {BLOCK: [[3, 1, 2], [4]], None: [[5]], HEAD: [[7]]}


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_last_line_that_was_cut_off_is_dropped(path: Path, cut: int) -> None:
    file = SamplesFile(path, CONDITIONS)
    with file.appending() as note:
        note(HEAD, [7, 8])
    whole = path.read_bytes()
    with file.appending() as note:
        note(BLOCK, [3, 1, 2])
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    assert file.read() == {HEAD: [[7, 8]]}
    assert path.read_bytes() == whole
    with file.appending() as note:
        note(BLOCK, [9])
    assert file.read() == {HEAD: [[7, 8]], BLOCK: [[9]]}


def test_a_first_line_that_was_cut_off_is_nothing(path: Path) -> None:
    path.write_text('{"device": "a bo')
    file = SamplesFile(path, CONDITIONS)
    assert file.read() == {}
    with file.appending() as note:
        note(None, [5])
    assert file.read() == {None: [[5]]}


def test_other_conditions_are_refused(path: Path) -> None:
    with SamplesFile(path, CONDITIONS).appending():
        pass
    said = r"repeats.jsonl was measured with threads 1, but here it is 2; name another --out"
    with pytest.raises(ValueError, match=said):
        SamplesFile(path, {**CONDITIONS, "threads": "2"}).read()
    with pytest.raises(ValueError, match="was measured with batch unknown, but here it is 1"):
        SamplesFile(path, {**CONDITIONS, "batch": "1"}).read()


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "nothing",
        '{"row": null, "ns": []}',
        '{"row": null, "ns": ["x"]}',
        '{"row": [{"kind": "dense"}, 3, 1], "ns": [1]}',
        '{"row": [{"kind": "linear", "out": 3}, 3], "ns": [1]}',
    ],
)
def test_a_damaged_file_is_refused(path: Path, line: str) -> None:
    file = SamplesFile(path, CONDITIONS)
    with file.appending():
        pass
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ValueError, match=r"is damaged \(.*\); delete it to measure from the start"):
        file.read()


def test_two_processes_do_not_measure_into_one_file(path: Path) -> None:
    file = SamplesFile(path, CONDITIONS)
    said = "another process is measuring into .*; name another --out"
    with file.appending(), pytest.raises(ValueError, match=said), file.appending():
        raise AssertionError("two at once")
    with file.appending() as note:
        note(None, [1])
    assert file.read() == {None: [[1]]}
