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

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nasaug.supernet import Network, synchronise_batch_norm
from nasaug.training.checkpoint import load_newest_checkpoint, save_checkpoint
from nasaug.training.distributed import ALONE, Workers, check_agreement, explained, wait_for_all
from nasaug.training.evaluate import Batch
from nasaug.training.gradients import Gradients
from nasaug.training.loaders import Batches
from nasaug.training.monitor import Losses, Monitor
from nasaug.training.recipe import Recipe, check_batch, learning_rate, make_optimizer, total_steps
from nasaug.training.run import RunFolder
from nasaug.training.state import State

log = logging.getLogger(__name__)

Validate = Callable[[Network, float], Mapping[str, float]]
Watch = Callable[[int, int, Mapping[str, float]], None]


Step = Callable[[Network, Batch, State], Losses]


def plain_step(net: Network, batch: Batch, state: State) -> Losses:
    """Train the whole of `net`."""
    images, labels = batch
    loss = state.loss(state.outputs(net, images).logits, labels)
    loss.backward()
    return {"target": loss.detach()}


def fit(
    net: Network,
    step: Step,
    batches: Batches,
    recipe: Recipe,
    run: RunFolder,
    *,
    seed: int = 0,
    group: Workers = ALONE,
    validate: Validate | None = None,
    watch: Watch | None = None,
    resume: bool = False,
) -> Network:
    """Train `net` in place by `step`; returns the weights to use: `net`, or its moving average.

    `validate` is called on these weights, with the share of the training that is done, after every
    `recipe.validate_every` epochs, and its values are logged; `watch(step, steps, values)` after
    every step. With `resume` training goes on from the newest checkpoint in `run`, if there is one.

    Raises: TrainingFailed when a loss is not finite, and when another worker is lost; ValueError
        for a batch of one image and an epoch that is shorter than a step.
    """
    check_batch(recipe, group.size)
    device = next(net.parameters()).device
    net.to(memory_format=torch.channels_last).train()
    synchronise_batch_norm(net, recipe.sync_batch_norm and group.size > 1)
    optimizer = make_optimizer(net, recipe)
    average = _moving_average(net, recipe)
    epoch_steps = _steps_per_epoch(len(batches), recipe)
    steps = total_steps(recipe, epoch_steps)
    monitor = Monitor(device)
    plan = {"steps": steps, "workers": group.size}
    done = _restore(run, net, optimizer, average, monitor, plan) if resume else 0
    check_agreement(done, group, device)
    run.forget_metrics_after(done)
    if not resume and run.writes:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    gradients = Gradients(net)

    def companions() -> list[Mapping[str, Tensor]]:
        return _companions(net, optimizer, average)

    autocast = _autocast(recipe, device)
    for parts in _from_step(batches, recipe.accumulate, epoch_steps, done, steps):
        rate = learning_rate(recipe, done, epoch_steps, group.size)
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        state = State(recipe, done, steps, epoch_steps, seed, autocast, companions, group)
        values, shown = _gradients_of(net, step, parts, state, gradients)
        monitor.macs += state.macs * group.size
        gradients.merge()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        if average is not None:
            average.update_parameters(net)
        done += 1
        monitor.add(done, rate, values, shown)
        if watch is not None:
            watch(done, steps, monitor.latest)
        epoch_ends = done % epoch_steps == 0 or done == steps
        if epoch_ends:
            measured = {"epoch": state.epoch + 1, "lr": rate, **monitor.epoch_means()}
            due = (state.epoch + 1) % recipe.validate_every == 0 or done == steps
            if validate is not None and due and group.first:
                measured |= validate(_used(net, average), done / steps)
            run.log_metrics(done, measured)
            monitor.restart_clock()
        if epoch_ends or (recipe.checkpoint_every and done % recipe.checkpoint_every == 0):
            monitor.check()
            if run.writes:
                tensors = _tensors(net, optimizer, average)
                save_checkpoint(run.checkpoints, done, tensors, plan | monitor.facts())
            with explained(group):
                wait_for_all(group)
    return _used(net, average)


def _gradients_of(
    net: Network, step: Step, parts: Iterable[Batch], state: State, gradients: Gradients
) -> tuple[dict[str, Tensor], Tensor]:
    """Run `step` on every part of an update and leave the mean gradients of all workers behind.

    Returns what was measured, and the images if there is one part, else whether all were finite.
    """
    gradients.clear()
    state.gradients = gradients
    dtype = next(net.parameters()).dtype
    values: dict[str, Tensor] = {}
    finite = []
    with explained(state.group):
        for part, batch in enumerate(parts):
            state = state.begin(part)
            _add(values, step(net, batch, state), state.observed, dtype)
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
    batches: Batches, accumulate: int, epoch_steps: int, done: int, steps: int
) -> Iterator[Iterator[Batch]]:
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


def _moving_average(net: Network, recipe: Recipe) -> AveragedModel | None:
    if recipe.ema is None:
        return None
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


def _used(net: Network, average: AveragedModel | None) -> Network:
    """The weights that count: the moving average where there is one."""
    used = net if average is None else average.module
    assert isinstance(used, Network)
    return used


def _companions(
    net: Network, optimizer: torch.optim.SGD, average: AveragedModel | None
) -> list[Mapping[str, Tensor]]:
    """What must move along when channels are sorted: momentum and averaged weights, by name."""
    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in net.named_parameters()
        if optimizer.state[parameter].get("momentum_buffer") is not None
    }
    averaged = dict(average.module.named_parameters()) if average is not None else {}
    return [momentum, averaged]


def _tensors(
    net: Network, optimizer: torch.optim.SGD, average: AveragedModel | None
) -> dict[str, Tensor]:
    momentum = _companions(net, optimizer, None)[0]
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"momentum.{name}": tensor for name, tensor in momentum.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    return tensors


def _restore(
    run: RunFolder,
    net: Network,
    optimizer: torch.optim.SGD,
    average: AveragedModel | None,
    monitor: Monitor,
    plan: Mapping[str, int],
) -> int:
    """Load the newest checkpoint into the four; returns the number of steps done.

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
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "momentum": {}, "average": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    try:
        net.load_state_dict(parts["net"])
        if average is not None:
            average.load_state_dict(parts["average"])
    except RuntimeError as error:
        raise ValueError(f"the checkpoint in {run.path} is of another network ({error})") from None
    for name, parameter in net.named_parameters():
        if name in parts["momentum"]:
            buffer = torch.empty_like(parameter, requires_grad=False)
            optimizer.state[parameter]["momentum_buffer"] = buffer.copy_(parts["momentum"][name])
    monitor.restore(checkpoint.facts)
    log.info("resuming %s after step %d", run.path, checkpoint.step)
    return checkpoint.step
