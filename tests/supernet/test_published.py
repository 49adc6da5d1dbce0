"""Loading the authors' checkpoints: every way they are stored, and every way they can be wrong."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasaug.supernet import load_published, load_target, read_pickle_safely

State = dict[str, Tensor]

# torch's remark about a file that it goes on to refuse, or to read.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")


@pytest.fixture(scope="module")
def state(golden: Callable[[str], dict[str, Any]]) -> State:
    """The authors' mbv2_tiny with 10 classes."""
    tensors: State = golden("mbv2_tiny")["state_dict"]
    return tensors


class RunsCode:
    """Creates a file when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def _stored(state: State) -> dict[str, Any]:
    return {
        "plain": state,
        "wrapped": {"state_dict": state, "epoch": 150},
        "distributed": {f"module.{name}": value for name, value in state.items()},
    }


@pytest.mark.parametrize("how", ["plain", "wrapped", "distributed"])
@pytest.mark.parametrize("from_file", [False, True])
def test_every_way_to_store_it_loads(
    state: State, tmp_path: Path, how: str, from_file: bool
) -> None:
    source: Any = _stored(state)[how]
    if from_file:
        torch.save(source, tmp_path / "weights.pth")
        source = tmp_path / "weights.pth"
    net = load_published(source, load_target("mbv2_tiny", 10))
    own = net.state_dict()
    assert torch.equal(own["blocks.20.linear.weight"], state["head.op_list.3.linear.weight"])
    theirs = state["backbone.stages.0.op_list.0.conv.depth_conv.norm.running_var"]
    assert torch.equal(own["blocks.2.depthwise.norm.running_var"], theirs)


def test_path_may_be_text(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    assert load_published(str(tmp_path / "weights.pth"), load_target("mbv2_tiny", 10))


def test_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_published(tmp_path / "none.pth", load_target("mbv2_tiny", 10))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_file_that_would_run_code_is_refused_and_runs_none(
    state: State, tmp_path: Path, zipped: bool, wrapped: bool
) -> None:
    trace = tmp_path / "executed"
    payload = {"state_dict": state, "extra": RunsCode(trace)} if wrapped else RunsCode(trace)
    path = tmp_path / "evil.pth"
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"refused to load .*evil\.pth"):
        load_published(path, load_target("mbv2_tiny", 10))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file must be one that does run code where it is trusted"


def test_bare_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "executed"
    path.write_bytes(pickle.dumps(RunsCode(trace)))
    with pytest.raises(ValueError, match=r"evil\.pkl"):
        read_pickle_safely(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04", b"\x80\x02.", b"{}", b"\x00" * 64]
)
def test_file_of_something_else_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.pth"):
        read_pickle_safely(path)


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(2), "text"])
def test_file_without_a_mapping_is_an_error_that_says_what_it_holds(
    tmp_path: Path, value: object
) -> None:
    torch.save(value, tmp_path / "list.pth")
    with pytest.raises(ValueError, match=f"holds a {type(value).__name__}, not a mapping"):
        read_pickle_safely(tmp_path / "list.pth")


def _small_file(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


FILES = {zipped: _small_file(zipped) for zipped in (True, False)}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_an_error_that_names_it(
    tmp_path: Path, zipped: bool, share: float
) -> None:
    whole = FILES[zipped]
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        read_pickle_safely(path)


@settings(max_examples=300, deadline=None)
@given(zipped=st.booleans(), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_damaged_file_loads_or_is_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, place: float, byte: int
) -> None:
    damaged = bytearray(FILES[zipped])
    damaged[int(place * len(damaged))] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(damaged)
    try:
        assert len(read_pickle_safely(path)) <= 1
    except ValueError as error:
        assert "damaged.pth" in str(error)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            "mbv2_w035",
            r"not of mbv2_w035 with 10 classes: blocks\.18\.conv\.weight has shape \(448",
        ),
        ("mcunet", "not of mcunet"),
        ("micro_10k", "not of micro_10k: it has 20 rows with weights, micro_10k has 8"),
        ("mbv3_w035", "not of mbv3_w035"),
        ("resnet50", "not of resnet50: it has 20 rows with weights, resnet50 has 18"),
    ],
)
def test_checkpoint_of_another_target_is_an_error(state: State, target: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_published(state, load_target(target, 10))


def test_other_number_of_classes_is_an_error_with_both_shapes(state: State) -> None:
    words = r"mbv2_tiny with 100 classes: .* has shape \(10, 448\), expected \(100, 448\)"
    with pytest.raises(ValueError, match=words):
        load_published(state, load_target("mbv2_tiny", 100))


def test_missing_tensor_is_an_error_that_names_it(state: State) -> None:
    less = {n: t for n, t in state.items() if n != "head.op_list.1.norm.running_mean"}
    with pytest.raises(
        ValueError, match=r"missing blocks\.18\.conv\.norm\.running_mean \(1 in all\)"
    ):
        load_published(less, load_target("mbv2_tiny", 10))


def test_unknown_tensor_is_an_error_that_names_it(state: State) -> None:
    more = {**state, "head.op_list.1.gate.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"unknown blocks\.18\.gate\.weight \(1 in all\)"):
        load_published(more, load_target("mbv2_tiny", 10))


def test_wrapping_without_a_mapping_is_an_error() -> None:
    with pytest.raises(ValueError, match="state_dict is not a mapping"):
        load_published({"state_dict": [1, 2]}, load_target("mbv2_tiny", 10))


@pytest.mark.parametrize("name", ["features.0.0.weight", "optimizer", 3])
def test_names_of_other_code_are_an_error(name: object) -> None:
    with pytest.raises(ValueError, match="not a parameter name of the NetAug authors' networks"):
        load_published({name: torch.zeros(1)}, load_target("mbv2_tiny", 10))  # type: ignore[dict-item]


def test_empty_mapping_is_an_error() -> None:
    with pytest.raises(ValueError, match="it has 0 rows with weights, mbv2_tiny has 20"):
        load_published({}, load_target("mbv2_tiny", 10))


def test_value_that_is_no_tensor_is_an_error(state: State) -> None:
    name = "head.op_list.3.linear.bias"
    with pytest.raises(ValueError, match=r"blocks\.20\.linear\.bias must be a tensor, but is int"):
        load_published({**state, name: 3}, load_target("mbv2_tiny", 10))
