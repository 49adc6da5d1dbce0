"""What the machine or the training does wrong: exit code 1, a message, nothing half-written."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasaug.__main__ import run

Nasaug = Callable[..., Any]
WeightsIn = Callable[[Path | str], bytes]
# Files may grow to so many bytes only, as on a full disk: writing on fails with EFBIG.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from nasaug.__main__ import run
sys.exit(run(sys.argv[2:]))
"""


def _leftovers(folder: Path) -> list[str]:
    """Temporary files: all that begin with a dot, but the lock."""
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_full_disk_while_training(
    nasaug: Nasaug, shell: Any, quick: tuple[str, ...], tmp_path: Path, weights_in: WeightsIn
) -> None:
    command = ["train", *quick, "--method=baseline"]
    done = shell.finish(shell.python(LIMITED, "20000", *command, "--out=full"))
    assert done.code == 1
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "File too large" in done.said
    assert not (tmp_path / "full" / "weights.safetensors").exists()
    assert not list((tmp_path / "full" / "checkpoint").iterdir())
    assert _leftovers(tmp_path) == []

    assert nasaug(*command, "--out=full", "--resume").code == 0
    assert nasaug(*command, "--out=roomy").code == 0
    assert weights_in("full") == weights_in("roomy")


def test_a_full_disk_when_the_weights_are_written(
    nasaug: Nasaug,
    quick: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    weights_in: WeightsIn,
) -> None:
    """The last file of a run; checkpoints are larger, so that no limit on sizes reaches it."""
    from nasaug.training import write_atomically

    def full(path: Path, content: bytes | str) -> None:
        if path.name == "weights.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    command = ["train", *quick, "--method=baseline"]
    with monkeypatch.context() as patch:
        patch.setattr("nasaug.training.run.write_atomically", full)
        done = nasaug(*command, "--out=full")
    assert done.code == 1
    assert done.out == ""
    assert "full/weights.safetensors: No space left on device" in done.said
    assert not Path("full/result.json").exists()
    assert nasaug(*command, "--out=full", "--resume").code == 0
    assert nasaug(*command, "--out=roomy").code == 0
    assert weights_in("full") == weights_in("roomy")


def test_a_full_disk_is_told_with_the_file_that_did_not_fit(
    nasaug: Nasaug, quick: tuple[str, ...]
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        done = nasaug("train", *quick, "--method=baseline", "--out=full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert done.code == 1
    assert "full/checkpoint" in done.said


@pytest.mark.parametrize("method", ["netaug", "baseline"])
def test_training_that_diverges(method: str, nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    # Each step multiplies the weights by 1 - lr x weight_decay = -99.
    explosive = ("--set=train.lr=100", "--set=train.weight_decay=1", "--epochs=20")
    done = nasaug("train", *quick, *explosive, f"--method={method}", "--out=here", "--json")
    assert done.code == 1
    assert done.out == ""
    assert "the loss of " in done.said
    assert " at step " in done.said
    assert "learning rate of " in done.said
    assert "try a lower train.lr or set train.clip_norm" in done.said
    assert not Path("here/weights.safetensors").exists()
    assert not Path("here/result.json").exists()


def test_a_supernet_that_diverges(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    explosive = ("--set=train.lr=100", "--set=train.weight_decay=1", "--epochs=20")
    done = nasaug("search", *quick, *explosive, "--budget=2M", "--trials=1", "--out=here")
    assert done.code == 1
    assert "the loss of path became" in done.said
    assert not Path("here/best.json").exists()
    # A broken supernet is nobody's.
    assert not Path("here/supernet/result.json").exists()


def test_an_interrupt_while_searching(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*parts: Any) -> float:
        raise KeyboardInterrupt

    command = ["search", *quick, "--budget=2M", "--trials=2", "--out=here"]
    with monkeypatch.context() as patch:
        patch.setattr("nasaug.search.InheritedAccuracy.__call__", interrupted)
        done = nasaug(*command)
    assert done.code == 130
    assert "interrupted; the same command with --resume goes on" in done.said
    assert nasaug(*command, "--resume").code == 0
    assert json.loads(Path("here/best.json").read_text())["macs"] <= 2_000_000


def test_the_traceback_is_there_for_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NASAUG_DEBUG", "1")
    assert run(["macs", "mbv2_tinny"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "nasaug: unknown target 'mbv2_tinny'" in err


def test_a_fault_of_our_own_is_not_called_bad_input(
    nasaug: Nasaug, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*parts: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("nasaug.pipelines.macs.count", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        nasaug("macs", "micro_10k")
