"""Keep freed memory inside the process.

glibc returns every large activation to the kernel when it is freed and pays for the page faults
again at the next step: on two CPU cores this can cost two thirds of a training step (measured by
`benchmarks/speed.py`). The price is a higher resident size between peaks, never a higher peak need.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to serve large blocks from the heap and never trim it.

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
