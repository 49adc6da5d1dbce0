"""What a process is told once: to keep what is freed, and the kernels of many shapes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from nasaug.training.process import KERNELS, keep_compiled_kernels, keep_freed_memory

# Ten blocks of 40 MiB, more than glibc ever keeps by itself, made and freed in turn. Page faults
# tell whether the memory came anew each time.
CHURN = """
import resource
import torch
from nasaug.training.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
done = keep_freed_memory()
faults()
print(done, faults() / usual)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_on_glibc() -> None:
    """In a process of its own, since the setting stays."""
    command = [sys.executable, "-c", CHURN]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done, share = printed.split()
    assert done == "True"
    assert float(share) < 0.2


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert keep_freed_memory() is False


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_other_c_libraries_are_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """musl has neither the file nor the function."""

    def missing(_: str) -> None:
        raise error

    monkeypatch.setattr("nasaug.training.process.ctypes.CDLL", missing)
    assert keep_freed_memory() is False


def test_kernels_of_many_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KERNELS, raising=False)
    monkeypatch.setattr("os.environ", dict(os.environ))
    keep_compiled_kernels()
    assert int(os.environ[KERNELS]) > 10_000


def test_users_own_number_of_kernels_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNELS, "7")
    keep_compiled_kernels()
    assert os.environ[KERNELS] == "7"
