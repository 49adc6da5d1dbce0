"""Several workers under torchrun: one explicit all-reduce of the gradients before each step.

No DistributedDataParallel: it hooks into one backward pass, while NetAug has several a step.

When a worker is lost, the others learn of it in one of two ways, and each says so: a collective
that waits for the lost one fails (`explained`), or torchrun ends them by SIGTERM, which it does at
once, so that a worker in the middle of a long pass hears of it first.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from nasaug.training.monitor import TrainingFailed

# How long workers wait for the first one's validation and soft labels. A lost worker is noticed by
# its closed connection or by torchrun, not by this.
PATIENCE = timedelta(hours=12)
REMEDY = "start the same command again with --resume"
# What gloo's connections say when a peer has gone or is silent: "[FILE:LINE] Connection closed by
# peer [127.0.0.1]:6554. This is ...". Wrong use of a collective is told in other words: "[enforce
# fail at FILE:LINE] ..." and "ProcessGroupGloo::...".
OF_GLOO = re.compile(r"\[\S*gloo/transport/\S+\] (?P<what>.+?)(\. |$)", re.MULTILINE)
# The same of NCCL, which reports mistakes by the same class.
OF_NCCL = re.compile(r"ncclRemoteError|remote peer|connection|timeout|timed out|aborted", re.I)


@dataclass(frozen=True)
class Workers:
    """This worker's rank and the number of workers; (0, 1) outside torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def __str__(self) -> str:
        return f"worker {self.rank} of {self.size}"


ALONE = Workers()


def join_workers(device: torch.device) -> Workers:
    """Join the group that torchrun describes in the environment; alone without it.

    Raises: TrainingFailed if the others do not come; ValueError if the environment says too little.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    workers = Workers(int(os.environ.get("RANK", "0")), size)
    if not dist.is_initialized():
        _speak_when_told_to_end(workers)
        with explained(workers):
            _join("nccl" if device.type == "cuda" else "gloo")
    return Workers(dist.get_rank(), size)


def average(tensors: Sequence[Tensor], workers: Workers, parts: int = 1) -> None:
    """Replace every tensor, a sum over `parts`, by its mean over parts and workers, in place."""
    if workers.size == 1:
        if parts > 1:
            torch._foreach_div_(list(tensors), parts)
        return
    flat = _flatten_dense_tensors(tensors)
    dist.all_reduce(flat)
    flat /= workers.size * parts
    for tensor, mean in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
        tensor.copy_(mean)


@contextmanager
def explained(workers: Workers) -> Iterator[None]:
    """Turns the error that a collective raises when another worker is gone into one that says so.

    Raises: TrainingFailed.
    """
    try:
        yield
    except RuntimeError as error:
        what = _what_was_lost(error)
        if workers.size == 1 or what is None:
            raise
        _stay_silent_when_told_to_end()
        raise TrainingFailed(f"{workers} has lost another worker ({what}); {REMEDY}") from error


def check_agreement(step: int, workers: Workers, device: torch.device) -> None:
    """Raises: ValueError where workers would begin at different steps: they see other folders."""
    if workers.size == 1:
        return
    own = torch.tensor([step], device=device)
    steps = [torch.empty_like(own) for _ in range(workers.size)]
    with explained(workers):
        dist.all_gather(steps, own)
    found = sorted({int(each) for each in steps})
    if len(found) > 1:
        raise ValueError(
            f"the workers would go on after different steps ({', '.join(map(str, found))}); --out "
            "must be one folder that all of them see"
        )


def wait_for_all(workers: Workers) -> None:
    if workers.size > 1:
        dist.barrier()


def _join(backend: str) -> None:
    """As torch does it, but workers that torchrun has restarted (`--max-restarts`) do not find the
    addresses of the dead in the store, which is the same."""
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    # Else gloo's threads end the process by SIGABRT every now and then, when all is done.
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _what_was_lost(error: RuntimeError) -> str | None:
    """What happened to the connection, in a line; None if `error` is of something else."""
    text = str(error)
    if (found := OF_GLOO.search(text)) is not None:
        return found["what"]
    lost = isinstance(error, dist.DistNetworkError | dist.DistStoreError)
    if lost or (isinstance(error, dist.DistBackendError) and OF_NCCL.search(text)):
        return text.partition("\n")[0]
    return None


def _speak_when_told_to_end(workers: Workers) -> None:
    """Have SIGTERM say what it means before it ends this process.

    A thread speaks: Python's own handlers would wait for the main thread, which may be in a
    collective or waiting for a GPU. A handler that the host program has set stays.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    hears, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.signal(signal.SIGTERM, _told)  # What has no handler wakes nobody.
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_as_if_nothing_were_set)
    threading.Thread(target=_speak, args=(hears, workers), daemon=True).start()


def _speak(hears: int, workers: Workers) -> None:
    while signal.SIGTERM not in os.read(hears, 64):
        pass
    said = f"{workers} was told to end (SIGTERM), as torchrun tells all workers when one is lost"
    os.write(2, f"nasaug: {said}; {REMEDY}\n".encode())
    os._exit(128 + signal.SIGTERM)


def _told(*_: object) -> None:
    pass


def _stay_silent_when_told_to_end() -> None:
    """This worker is about to end and to say why: it is not to be ended before it has."""
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is _told:
        signal.set_wakeup_fd(-1)


def _as_if_nothing_were_set() -> None:
    """In child processes, such as those that decode images."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
