"""What a run records while it trains, and what a step is told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from nasaug.supernet import Architecture, Network, count_with_fvcore
from nasaug.training import Batch, Batches, Losses, Recipe, RunFolder, State, fit, plain_step

MakeNetwork = Callable[..., Network]
RECIPE = Recipe(epochs=1, warmup_epochs=1, batch_size=16, lr=0.1)  # five steps an epoch, ten in all


def test_metrics_are_logged_after_every_epoch(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    losses: list[float] = []

    def record(net: Network, batch: Batch, state: State) -> Losses:
        values = plain_step(net, batch, state)
        losses.append(float(values["target"]))
        return values

    fit(make_network(micro), record, batches, RECIPE, run, validate=lambda *_: {"top1": 0.25})
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert [first["step"], second["step"]] == [5, 10]
    assert [first["epoch"], second["epoch"]] == [1, 2]
    assert first["lr"] == pytest.approx(0.1)
    assert first["loss_target"] == pytest.approx(sum(losses[:5]) / 5)
    assert second["loss_target"] == pytest.approx(sum(losses[5:]) / 5)
    assert first["top1"] == second["top1"] == 0.25
    assert first["seconds"] > 0 and first["cpu_seconds"] > 0
    assert first.keys() == {
        "step", "epoch", "lr", "loss_target", "top1", "seconds", "cpu_seconds", "macs",
    }  # fmt: skip


def test_seconds_are_those_of_training(
    micro: Architecture,
    make_network: MakeNetwork,
    batches: Batches,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step waits as long as it computes; what validating takes is not counted."""
    clocks = {"wall": 1000.0, "cpu": 50.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clocks["wall"])
    monkeypatch.setattr(time, "process_time", lambda: clocks["cpu"])

    def step(net: Network, batch: Batch, state: State) -> Losses:
        clocks["wall"] += 2
        clocks["cpu"] += 1
        return plain_step(net, batch, state)

    def validate(net: Network, progress: float) -> dict[str, float]:
        clocks["wall"] += 500
        clocks["cpu"] += 300
        return {"top1": 0.5}

    def stop(done: int, *_: object) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_network(micro), step, batches, RECIPE, run, validate=validate, watch=stop)
    clocks["wall"] += 3600
    clocks["cpu"] = 5.0  # of another process
    fit(make_network(micro), step, batches, RECIPE, run, validate=validate, resume=True)
    assert [(row["seconds"], row["cpu_seconds"]) for row in run.metrics()] == [(10, 5), (10, 5)]


def test_validation_is_every_so_many_epochs_and_at_the_end(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 4, "validate_every": 2})
    fit(make_network(micro), plain_step, batches, recipe, run, validate=lambda *_: {"top1": 0.5})
    assert [row["epoch"] for row in run.metrics() if "top1" in row] == [2, 4, 5]


def test_watch_is_called_after_every_step(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    seen: list[tuple[int, int]] = []

    def watch(step: int, steps: int, values: Mapping[str, float]) -> None:
        assert values["loss_target"] > 0
        seen.append((step, steps))

    fit(make_network(micro), plain_step, batches, RECIPE, run, watch=watch)
    assert seen == [(step, 10) for step in range(1, 11)]


def test_state_tells_a_step_where_it_is(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    states: list[State] = []

    def record(net: Network, batch: Batch, state: State) -> Losses:
        states.append(state)
        return plain_step(net, batch, state)

    fit(make_network(micro), record, batches, RECIPE, run, seed=3)
    assert [state.epoch for state in states] == [0] * 5 + [1] * 5
    assert [state.epoch_begins for state in states] == 2 * [True, False, False, False, False]
    assert [state.progress for state in states] == pytest.approx([i / 10 for i in range(10)])
    draws = [state.rng.random() for state in states]
    assert len(set(draws)) == 10
    again = replace(states[4])
    assert again.rng.random() == draws[4]


def test_new_run_in_a_used_folder_leaves_no_older_checkpoints(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """Else it would be resumed from the old run's last step."""
    fit(make_network(micro), plain_step, batches, RECIPE, run)

    def stop(step: int, *_: object) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_network(micro, seed=1), plain_step, batches, RECIPE, run, watch=stop)
    assert {path.stem for path in run.checkpoints.iterdir()} == {"step-000000005"}


def test_macs_of_all_passes_are_counted(
    micro: Architecture, make_network: MakeNetwork, batches: Batches, run: RunFolder
) -> None:
    """Forward passes, at the resolution that is shown; two of every image here."""

    def twice(net: Network, batch: Batch, state: State) -> Losses:
        plain_step(net, batch, state)
        return plain_step(net, batch, state)

    fit(make_network(micro), twice, batches, RECIPE, run)
    shown = next(iter(batches))[0]
    counted = count_with_fvcore(replace(micro, resolution=shown.shape[-1]))
    expected = 2 * len(batches) * len(shown) * (counted["conv"] + counted["linear"])
    assert [row["macs"] for row in run.metrics()] == [expected, expected]
