"""What a process is told once so that training on a CPU is fast: two caches that are kept.

`benchmarks/speed.py --only process` prints what each of them brings.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 << 20
KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def keep_caches() -> None:
    """Both of the below; before the first convolution of the process."""
    keep_freed_memory()
    keep_compiled_kernels()


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to serve large blocks from the heap and never trim it.

    By itself glibc returns every large activation to the kernel when it is freed, and the page
    faults come again at the next step. The price is a resident size that stays at its peak.

    Returns whether it was done; False where the C library is not glibc. Child processes do not
    inherit it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD))
    return all([mallopt(option, value) == 1 for option, value in settings])


def keep_compiled_kernels(capacity: int = 16_384) -> None:
    """Let oneDNN keep the kernels of `capacity` layer shapes; its own default is 1,024.

    It compiles a kernel for every layer shape, forward and backward, and forgets the oldest. Each
    sampled sub-network brings some 150 shapes, so that with the default a supernet's step compiles
    again and again what it had before. oneDNN reads the variable at the process's first
    convolution; one that the user has set is left alone, and child processes inherit it.
    """
    os.environ.setdefault(KERNELS, str(capacity))
