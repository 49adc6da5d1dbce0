"""Workers that lose another one say so; no other error is taken for that."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nasaug.training import ALONE, TrainingFailed, Workers
from nasaug.training.distributed import _join, _leave, explained

PROGRAM = Path(__file__).with_name("lost_worker.py")
# Batch norm's statistics, forward and backward; embeddings; gradients; the end of an epoch.
SITES = ("_combine", "_Normalise.backward", "_Gather.forward", "average", "wait_for_all")
PAIR = Workers(0, 2)
# Joins a group whose other worker never comes; with "child" as argument a forked child is ended.
WAITING = """
import os, signal, sys, threading, time
import torch
from nasaug.training import join_workers

def fork():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writes, b".")
        time.sleep(60)
        os._exit(0)
    os.read(reads, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], flush=True)

if sys.argv[1:] == ["child"]:
    threading.Thread(target=fork).start()
print("begins", flush=True)
join_workers(torch.device("cpu"))
"""


@pytest.fixture(scope="module")
def survivors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the survivor of each site has left what it raised."""
    folder = tmp_path_factory.mktemp("lost")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), *SITES],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("site", SITES)
def test_a_worker_lost_in_a_collective_is_named(site: str, survivors: Path) -> None:
    kind, said, cause = json.loads((survivors / f"{site}.json").read_text())
    assert kind == "TrainingFailed"
    what = r"(Connection closed by peer|Read error|writev) \[127\.0\.0\.1\]:\d+(: [A-Z][a-z ]+)?"
    end = "; start the same command again with --resume"
    assert re.fullmatch(rf"worker 0 of 2 has lost another worker \({what}\){end}", said)
    assert "gloo/transport" in cause


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "[/a/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for "
            "recv operation to complete",
            "Timed out waiting 1800000ms for recv operation to complete",
        ),
        (
            "Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144] "
            "no error",
            "no error",
        ),
        (
            "[/a/gloo/gloo/transport/tcp/pair.cc:589] writev [10.0.0.2]:25266: Broken pipe. This "
            "is typically caused by a remote worker.\nGLHF",
            "writev [10.0.0.2]:25266: Broken pipe",
        ),
    ],
)
def test_what_gloo_says_of_a_silent_peer_is_shortened(text: str, what: str) -> None:
    with pytest.raises(TrainingFailed) as caught, explained(Workers(2, 3)):
        raise RuntimeError(text)
    assert str(caught.value) == (
        f"worker 2 of 3 has lost another worker ({what}); start the same command again with "
        "--resume"
    )


@pytest.mark.parametrize(
    "error",
    [
        dist.DistNetworkError("The client socket has timed out after 60000ms"),
        dist.DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//1"),
        dist.DistBackendError(
            "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network "
            "error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to ..."
        ),
        dist.DistBackendError(
            "NCCL error in: P.cpp:1275, internal error, NCCL version 2.14.3\nncclInternalError: "
            "Internal check failed.\nLast error:\nNet : Connection closed by remote peer a<1>"
        ),
    ],
)
def test_other_errors_of_the_group_are_shortened_to_a_line(error: RuntimeError) -> None:
    with pytest.raises(TrainingFailed) as caught, explained(PAIR):
        raise error
    what = str(error).splitlines()[0]
    assert str(caught.value).startswith(f"worker 0 of 2 has lost another worker ({what}); ")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. socket peer gloo"),
        RuntimeError("ProcessGroupGloo::allgather: invalid output tensor list at index 0"),
        # What gloo says of workers that call the same collective with different shapes.
        RuntimeError(
            "[enforce fail at /a/gloo/gloo/transport/tcp/pair.cc:464] op.preamble.length <= "
            "op.nbytes. 1000 vs 12. Is there a distributed collective mismatch in your code?"
        ),
        dist.DistBackendError(
            "NCCL error in: P.cpp:1287, invalid usage, NCCL version 2.17.1\nncclInvalidUsage: This "
            "usually reflects invalid usage of NCCL library.\nDuplicate GPU detected : rank 1"
        ),
        TrainingFailed("the loss of target became nan at step 3: Connection closed by peer"),
        ValueError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer"),
    ],
)
def test_an_error_of_another_kind_stays_itself(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained(PAIR):
        raise error
    assert caught.value is error


@pytest.fixture
def own_group(tmp_path: Path) -> Iterator[None]:
    """torch.distributed's default group, of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("own_group")
def test_a_collective_that_is_used_wrongly_is_no_lost_worker() -> None:
    one = torch.ones(3)
    with pytest.raises(RuntimeError, match="invalid output tensor list") as caught, explained(PAIR):
        dist.all_gather([one.clone(), one.clone()], one)
    assert not isinstance(caught.value, TrainingFailed)


def test_who_is_alone_has_nobody_to_lose() -> None:
    with pytest.raises(RuntimeError, match="closed by peer") as caught, explained(ALONE):
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer")
    assert not isinstance(caught.value, TrainingFailed)


def test_a_worker_leaves_its_group_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else gloo's threads abort a process in some of ten exits, after all went well."""
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": "1"}
    for name, value in {**group, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    _join("gloo")
    assert dist.is_initialized()
    for function in reversed(at_exit):
        function()
    assert not dist.is_initialized()
    _leave()


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _waiting(*arguments: str) -> subprocess.Popen[str]:
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": "2"}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments],
        env={**os.environ, **group, "RANK": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def test_a_worker_that_is_told_to_end_says_why_even_while_it_waits_for_others() -> None:
    """torchrun's SIGTERM comes to a worker that is deep in a collective; a child of it that is
    ended in the same way ends as if nothing were set, and says nothing."""
    with _waiting("child") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{signal.SIGTERM.value}\n"
        assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == (
        "nasaug: worker 0 of 2 was told to end (SIGTERM), as torchrun tells all workers when one "
        "is lost; start the same command again with --resume\n"
    )
