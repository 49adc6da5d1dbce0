"""Fine-tuning with rounded numbers, where int8 loses more than is allowed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nasaug.pipelines import export
from nasaug.pipelines.export_qat import FineTuning, fine_tuned
from nasaug.pipelines.export_source import Wanted, open_source
from nasaug.training import load_weights

Nasaug = Callable[..., Any]


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """A finished training inside a search's winner, which lies beside it."""
    monkeypatch.chdir(trained.parent)
    return Wanted(str(trained))


@pytest.mark.parametrize("helpers", [False, True])
def test_it_goes_on_with_the_run(run: Wanted, searched: Path, helpers: bool) -> None:
    """From its weights, on its data, by its recipe but for length and rate; only once."""
    source = open_source(run)
    first = fine_tuned(source, run, FineTuning(1, helpers=helpers))
    config, own = first.config, source.config
    method = "netaug" if helpers else "qat"
    assert first.folder == source.folder / f"qat-{method}-e1-lr{0.1 * own['train']['lr']:g}"
    assert (config["method"], config["init"]) == (method, str(source.folder))
    assert config["quantise"] == {"weight_bits": 8, "activation_bits": 8}
    assert (config["netaug"] is None) != helpers
    changed = {"epochs": 1, "lr": 0.1 * own["train"]["lr"], "warmup_epochs": 0.0}
    assert config["train"] == own["train"] | changed
    assert config["data"] == own["data"]
    if helpers:
        assert config["netaug"]["sort_channels"] is False
        assert Path(config["largest"]) == Path(source.inside["largest"])
    tensors = first.net.state_dict()
    assert any(not torch.equal(t, tensors[n]) for n, t in source.net.state_dict().items())
    stamp = (first.folder / "result.json").stat().st_mtime_ns
    fine_tuned(source, run, FineTuning(1, helpers=helpers))
    assert (first.folder / "result.json").stat().st_mtime_ns == stamp


@pytest.fixture
def lossy_at_first(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The first int8 version loses too much."""
    seen: list[dict[str, Any]] = []
    quantised = export.quantised

    def judged(*arguments: Any) -> dict[str, Any]:
        seen.append(quantised(*arguments) | {"passed": len(seen) > 0})
        return seen[-1]

    monkeypatch.setattr(export, "quantised", judged)
    return seen


def test_what_is_fine_tuned_is_exported(
    run: Wanted, nasaug: Nasaug, lossy_at_first: list[dict[str, Any]]
) -> None:
    options = ("--format=onnx", "--int8", "--out=out", "--json", "--max-drop=100")
    failed = nasaug("export", "trained", *options)
    assert failed.code == 1 and "--qat-epochs" in failed.said and not Path("out").exists()
    del lossy_at_first[:]
    done = nasaug("export", "trained", *options, "--qat-epochs=1", "--qat-lr=0.003")
    assert done.code == 0, done.err
    assert "int8 loses more than is allowed: fine-tuning" in done.said
    assert len(lossy_at_first) == 2
    tuned = Path("trained/qat-qat-e1-lr0.003")
    assert done.json["run_dir"] == str(tuned) and done.json["training"]["method"] == "qat"
    assert "--qat-epochs 1 --qat-lr 0.003" in done.json["command"]
    assert done.json["training"]["fine_tuned_from"] == "the run trained"
    # What int8 may lose is of the run that was asked for.
    asked = json.loads(Path("trained/result.json").read_text())["top1"]
    assert done.json["int8"][0]["top1_before"] == pytest.approx(asked)
    assert load_weights(tuned / "weights.safetensors").arch.name == "micro_10k"


def test_what_cannot_be_fine_tuned(run: Wanted, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "weights.safetensors", tmp_path / "alone.safetensors")
    alone = Wanted(str(tmp_path / "alone.safetensors"), "fashion-mnist-mini")
    with pytest.raises(ValueError, match=r"goes on with a finished training, which .* is not"):
        fine_tuned(open_source(alone), alone, FineTuning(1))
    config = trained / "config.yaml"
    pruned = yaml.safe_load(config.read_text()) | {"prune": {"begin": 0.6}}
    config.write_text(yaml.safe_dump(pruned))
    with pytest.raises(ValueError, match="is pruned, and fine-tuning would fill its zeros"):
        fine_tuned(open_source(run), run, FineTuning(1))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--qat-epochs=1",), 2, "add --int8"),
        (("--int8", "--qat-lr=0.1"), 2, "say how --qat-epochs are trained"),
        (("--max-memory=1KB",), 1, "does not fit in 32 bits: memory"),
        (("--int8", "--format=onnx", "--max-flash=1KB"), 1, "does not fit in 8 bits: flash"),
        (("--max-flash=small",), 2, "small"),
    ],
)
def test_refused_before_anything_is_written(
    run: Wanted, nasaug: Nasaug, options: tuple[str, ...], code: int, words: str
) -> None:
    done = nasaug("export", "trained", *options, "--out=out")
    assert done.code == code and words in done.said, done.err
    assert not Path("out").exists()


def test_a_folder_of_another_fine_tuning_is_named(run: Wanted, trained: Path) -> None:
    """As after the run was moved, whose path it says that it began with."""
    source = open_source(run)
    fine_tuned(source, run, FineTuning(1))
    moved = trained.rename(trained.with_name("moved"))
    with pytest.raises(ValueError, match=r"qat-qat-.* is of other settings .* remove it"):
        fine_tuned(open_source(Wanted(str(moved))), Wanted(str(moved)), FineTuning(1))
