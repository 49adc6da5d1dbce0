"""The one training loop.

What differs between plain, supernet and NetAug training is the step: a short function that runs
forward and backward passes and leaves gradients behind. Everything random is a function of (seed,
step), so that a run which is killed and resumed ends in the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nasaug.supernet import ChannelMasks, Cuts, Network, maskable, synchronise_batch_norm
from nasaug.training.checkpoint import load_newest_checkpoint, save_checkpoint
from nasaug.training.distributed import ALONE, Workers, check_agreement, explained, wait_for_all
from nasaug.training.evaluate import Batch
from nasaug.training.gradients import Gradients
from nasaug.training.monitor import Losses, Monitor
from nasaug.training.recipe import Recipe, check_batch, learning_rate, total_steps
from nasaug.training.replays import Replays
from nasaug.training.run import RunFolder
from nasaug.training.state import State
from nasaug.training.weights import Net, Weights

log = logging.getLogger(__name__)

Watch = Callable[[int, int, Mapping[str, float]], None]
Step = Callable[[Network, Batch, State], Losses]

# Images and what is known of them: labels, or objects with boxes.
Shown = TypeVar("Shown", bound=tuple[Tensor, Any])
ShownBatch = TypeVar("ShownBatch", bound=tuple[Tensor, Any], covariant=True)


class Stream(Protocol[ShownBatch]):
    """Training batches: `len` of them an epoch, each a function of (epoch, index)."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[ShownBatch]:
        """The batches of one epoch, from batch `start` on."""


def plain_step(net: Network, batch: Batch, state: State) -> Losses:
    """Train the whole of `net`."""
    images, labels = batch
    loss = state.loss(state.outputs(net, images).logits, labels)
    loss.backward()
    return {"target": loss.detach()}


def fit(
    net: Net,
    step: Callable[[Net, Shown, State], Losses],
    batches: Stream[Shown],
    recipe: Recipe,
    run: RunFolder,
    *,
    seed: int = 0,
    group: Workers = ALONE,
    validate: Callable[[Net, float], Mapping[str, float]] | None = None,
    watch: Watch | None = None,
    resume: bool = False,
) -> Net:
    """Train `net` in place by `step`; returns the weights to use: `net`, or its moving average.

    `validate` is called on these weights, with the share of the training that is done, after every
    `recipe.validate_every` epochs, and its values are logged; `watch(step, steps, values)` after
    every step. With `resume` training goes on from the newest checkpoint in `run`, if there is one.

    Raises: TrainingFailed when a loss is not finite, when another worker is lost, and when a GPU
        cannot record a step; ValueError for a batch of one image and an epoch that is shorter than
        a step.
    """
    check_batch(recipe, group.size)
    device = next(net.parameters()).device
    net.to(memory_format=torch.channels_last).train()
    synchronise_batch_norm(net, recipe.sync_batch_norm and group.size > 1)
    weights, monitor, autocast = Weights.of(net, recipe), Monitor(device), _autocast(recipe, device)
    epoch_steps = _steps_per_epoch(len(batches), recipe)
    steps = total_steps(recipe, epoch_steps)
    plan = {"steps": steps, "workers": group.size}
    done = _restore(run, weights, monitor, plan) if resume else _begin(run)
    check_agreement(done, group, device)
    run.forget_metrics_after(done)
    gradients, replays, cuts = Gradients(net), _replays(net, recipe, device, group), Cuts()
    masks = None if replays is None else _masks(net)
    for parts in _from_step(batches, recipe.accumulate, epoch_steps, done, steps):
        rate = learning_rate(recipe, done, epoch_steps, group.size)
        state = State(recipe, done, steps, epoch_steps, seed, autocast, weights.companions, group)
        state.gradients, state.replays, state.cuts, state.masks = gradients, replays, cuts, masks
        values, shown = _gradients_of(net, step, parts, state, gradients)
        monitor.macs += state.macs * group.size
        gradients.merge()
        weights.step(rate, recipe.clip_norm)
        done += 1
        monitor.add(done, rate, values, shown)
        if watch is not None:
            watch(done, steps, monitor.latest)
        epoch_ends = done % epoch_steps == 0 or done == steps
        if epoch_ends:
            measured = {"epoch": state.epoch + 1, "lr": rate, **monitor.epoch_means()}
            due = (state.epoch + 1) % recipe.validate_every == 0 or done == steps
            if validate is not None and due and group.first:
                measured |= validate(weights.used, done / steps)
            run.log_metrics(done, measured)
            monitor.restart_clocks()
        if epoch_ends or (recipe.checkpoint_every and done % recipe.checkpoint_every == 0):
            monitor.check()
            if run.writes:
                save_checkpoint(run.checkpoints, done, weights.tensors(), plan | monitor.facts())
            with explained(group):
                wait_for_all(group)
    return weights.used


def _gradients_of(
    net: Net,
    step: Callable[[Net, Shown, State], Losses],
    parts: Iterable[Shown],
    state: State,
    gradients: Gradients,
) -> tuple[dict[str, Tensor], Tensor]:
    """Run `step` on every part of an update and leave the mean gradients of all workers behind.

    Returns what was measured, and the images if there is one part, else whether all were finite.
    """
    gradients.clear()
    dtype = next(net.parameters()).dtype
    values: dict[str, Tensor] = {}
    finite = []
    with explained(state.group):
        for part, batch in enumerate(parts):
            state = state.begin(part)
            losses = step(net, batch, state)
            state.settle()
            _add(values, losses, state.observed, dtype)
            shown = batch[0]
            if state.recipe.accumulate > 1:
                finite.append(torch.isfinite(shown).all())
        gradients.average(state.group, state.recipe.accumulate, values)
    return values, torch.stack(finite).all() if finite else shown


def _add(
    sums: dict[str, Tensor],
    losses: Mapping[str, Tensor],
    observed: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """A batch's losses, as `loss_NAME`, and what else it observed, to those of its step."""
    values = {f"loss_{name}": loss for name, loss in losses.items()} | dict(observed)
    for name, value in values.items():
        value = value.detach().to(dtype)
        sums[name] = sums[name] + value if name in sums else value.clone()


def _steps_per_epoch(batches: int, recipe: Recipe) -> int:
    if batches < recipe.accumulate:
        raise ValueError(
            f"train.accumulate must be at most the {batches} batches of an epoch, "
            f"but got {recipe.accumulate}"
        )
    return batches // recipe.accumulate


def _from_step(
    batches: Stream[Shown], accumulate: int, epoch_steps: int, done: int, steps: int
) -> Iterator[Iterator[Shown]]:
    """The `accumulate` batches of each of the steps `done` .. `steps` - 1, one at a time."""
    while done < steps:
        epoch, start = divmod(done, epoch_steps)
        stream = iter(batches.epoch(epoch, start * accumulate))
        for _ in range(min(epoch_steps - start, steps - done)):
            yield itertools.islice(stream, accumulate)
            done += 1
        if done < steps:
            # What is left of an epoch, so that its decoding processes come to rest.
            for _ in stream:
                pass


def _autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """bf16 where it helps: asked for, or "auto" on a GPU that has it."""
    wanted = recipe.amp == "bf16" or (
        recipe.amp == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    if not wanted:
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def _replays(
    net: nn.Module, recipe: Recipe, device: torch.device, group: Workers
) -> Replays | None:
    """What several workers exchange within a step is not recorded, nor is rounding, which reads
    numbers while it computes."""
    rounds = isinstance(net, Network) and net.rounds
    wanted = recipe.graphs != "off" and device.type == "cuda" and group.size == 1 and not rounds
    return Replays(device) if wanted else None


def _masks(net: nn.Module) -> ChannelMasks | None:
    return ChannelMasks(net) if isinstance(net, Network) and maskable(net) else None


def _begin(run: RunFolder) -> int:
    """Remove what an older training left: it would be resumed. Returns the number of steps done."""
    if run.writes:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return 0


def _restore(
    run: RunFolder, weights: Weights[Any], monitor: Monitor, plan: Mapping[str, int]
) -> int:
    """Load the newest checkpoint into the two; returns the number of steps done.

    Raises: ValueError for a checkpoint of another network, or of a training whose steps or workers
        are others than in `plan`.
    """
    checkpoint = load_newest_checkpoint(run.checkpoints)
    if checkpoint is None:
        return 0
    for name, value in plan.items():
        begun = checkpoint.facts.get(name, value)
        if begun != value:
            raise ValueError(
                f"{run.path} was begun with {begun} {name}, and now there would be {value}; resume "
                "it as it was begun, or choose another --out"
            )
    try:
        weights.restore(checkpoint.tensors)
    except ValueError as error:
        raise ValueError(f"the checkpoint in {run.path} is of another network ({error})") from None
    monitor.restore(checkpoint.facts)
    log.info("resuming %s after step %d", run.path, checkpoint.step)
    return checkpoint.step
